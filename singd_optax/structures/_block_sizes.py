"""How a matrix is cut into blocks along its diagonal."""

#: Groups of equal blocks, as (count, size).
Groups = list[tuple[int, int]]


def full_blocks_first(dim: int, block_size: int) -> Groups:
    """Blocks of one size, and a smaller last one for what is left: the authors' package's rule.

    >>> full_blocks_first(1024, 256), full_blocks_first(1025, 256)
    ([(4, 256)], [(4, 256), (1, 1)])
    """
    size = min(block_size, dim)
    count, rest = divmod(dim, size)
    return [(count, size)] + [(1, rest)] * (rest > 0)


def balanced_blocks(dim: int, block_size: int) -> Groups:
    """Blocks of one size if there is one near ``block_size``, else of two that differ by one.

    With d for dim and k for block_size, the fewest blocks are n = ⌈d / k⌉. Between n and 4 d / 3 k
    blocks, the least number that divides d is taken: blocks are equal then, of 3/4 k to k rows, and
    every operation is one batched operation. If none divides d, it is n blocks: d mod n of them of
    ⌈d / n⌉ rows, all others of one row less.

    >>> [balanced_blocks(dim, 256) for dim in (1024, 1025, 769)]
    [[(4, 256)], [(5, 205)], [(1, 193), (3, 192)]]
    """
    fewest = -(-dim // block_size)
    for count in range(fewest, 4 * dim // (3 * block_size) + 1):
        if dim % count == 0:
            return [(count, dim // count)]
    size, larger = divmod(dim, fewest)
    groups = [(larger, size + 1), (fewest - larger, size)]
    return [group for group in groups if group[0]]
