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

    With d for dim and k for block_size, there are at least n = ⌈(d - 1) / k⌉ blocks: one of them
    may have a row more than k, so that a bias makes no block of its own. (For k below 8, where a
    row is much, n = ⌈d / k⌉.) Of the numbers from n to 4 d / 3 k the least that divides d is taken:
    blocks are equal then, and every operation is one batched operation. If none divides d, it is n
    blocks, d mod n of which have a row more than the others; these come last, so that what is
    before them stays where it is without a bias.

    >>> [balanced_blocks(dim, 256) for dim in (1024, 1025, 769)]
    [[(4, 256)], [(5, 205)], [(2, 256), (1, 257)]]
    """
    fewest = max(-(-(dim - spare_rows(block_size)) // block_size), 1)
    for count in range(fewest, 4 * dim // (3 * block_size) + 1):
        if dim % count == 0:
            return [(count, dim // count)]
    size, larger = divmod(dim, fewest)
    groups = [(fewest - larger, size), (larger, size + 1)]
    return [group for group in groups if group[0]]


def spare_rows(block_size: int) -> int:
    """How many rows more than asked for a block may have.

    >>> spare_rows(7), spare_rows(8)
    (0, 1)
    """
    return min(block_size // 8, 1)
