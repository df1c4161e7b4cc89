"""Which axes of a parameter make rows, columns, and separate matrices."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from singd_optax._validate import check_pattern, check_size

Axes = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How a parameter makes separate matrices of its parts: heads, experts, fused QKV.

    Axes are counted from 0, or from -1 at the end.

    Attributes:
      rows: The axes that are merged to the rows of a matrix.
      columns: The axes that are merged to its columns. Axes in neither run over separate matrices.
      tiles: A dict from an axis of the rows or columns to the number of equal parts that it is cut
        into, each a separate matrix; empty for none.
      positions: Those of the rows and columns that are positions of a convolution's window, for
        rules that treat each pair of channels by itself (``mini_block_fisher``); others do not
        look. Empty for a kernel that is no convolution's.

    >>> Tiles((0,), (1,), {1: 3})  # a fused kernel of queries, keys and values
    Tiles(rows=(0,), columns=(1,), tiles={1: 3}, positions=())
    """

    rows: Axes
    columns: Axes
    tiles: Mapping[int, int] = dataclasses.field(default_factory=dict)
    positions: Axes = ()


@dataclasses.dataclass(frozen=True)
class Merged:
    """How a parameter makes matrices: neighbouring axes are merged as long as they are small.

    Of most kernels two axes are then left, which are the rows and the columns of a matrix. Where
    only one is left, the parameter is "cut" as it was; where more are, each axis is preconditioned
    by itself.

    Attributes:
      size: The largest number of entries of a merged axis, >= 1.
    """

    size: int


@dataclasses.dataclass(frozen=True)
class UpTo:
    """A cut, unless a side is longer than this: then the parameter is left to the fallback.

    That is a rule on shapes for embeddings and heads, whatever their names: a vocabulary is longer
    than any width.

    Attributes:
      size: The longest side, of rows or columns.

    >>> import jax.numpy as jnp, singd_optax
    >>> params = {"embed": jnp.ones((500, 8)), "up": jnp.ones((8, 32))}
    >>> list(singd_optax.find_matrices(params, matrix_axes={".*": UpTo(100)}))
    ['up']
    """

    size: int


#: How a parameter makes matrices: (axes of rows, axes of columns), axes in neither running over
#: separate matrices; ``Tiles``; ``Merged``; ``UpTo``; "cut", leading axes as rows and trailing ones
#: as columns, where the larger side is smallest; "each", every axis by itself, as the rows of a
#: matrix whose columns have no factor; None, not at all.
MatrixAxes = (
    tuple[Sequence[int], Sequence[int]] | Tiles | Merged | UpTo | Literal["cut", "each"] | None
)


#: The largest window that is taken for one, by shape: 8 x 8, or 4 x 4 x 4.
_LARGEST_WINDOW = 64
#: What is left to the fallback by default: tables of embeddings and of positions, by the last key.
EMBEDDINGS = r"(.*/)?[^/]*(embed|embedding|position)s?"


def with_embeddings_left(matrix_axes: Mapping[str, MatrixAxes] | None) -> dict[str, MatrixAxes]:
    """What the user said, and after it that embeddings are left to the fallback.

    >>> axes = with_embeddings_left({"position": "cut"})
    >>> for path in ("Embed_0/embedding", "position", "patch_embedding/kernel"):
    ...     print(path, len(list(axes_of(path, (4, 3), axes))))
    Embed_0/embedding 0
    position 1
    patch_embedding/kernel 1
    """
    return {
        **(matrix_axes or {}),
        **({} if EMBEDDINGS in (matrix_axes or {}) else {EMBEDDINGS: None}),
    }


def cut(shape: tuple[int, ...]) -> Tiles | None:
    """Leading axes as rows, trailing ones as columns, cut where the larger side is smallest.

    So a convolution's kernel (height, width, in, out) is (height width in, out), and attention's
    (in, heads, size) and (heads, size, out) are in x heads size and heads size x out.

    Arrays of four axes or more are taken for kernels of convolutions, as Flax has them: all axes
    but the last two are positions, if that makes 64 positions at most.

    Args:
      shape: The shape of a parameter.

    Returns:
      The axes, or None for a scalar or a vector (or what is one but for axes of length 1).

    >>> cut((3, 3, 64, 128))
    Tiles(rows=(0, 1, 2), columns=(3,), tiles={}, positions=(0, 1))
    >>> cut((768, 12, 64)).rows
    (0,)
    >>> cut((1, 768)) is None
    True
    """
    if sum(size > 1 for size in shape) < 2 or 0 in shape:
        return None
    sides = [(math.prod(shape[:place]), math.prod(shape[place:])) for place in range(1, len(shape))]
    place = 1 + min(range(len(sides)), key=lambda index: max(sides[index]))
    is_window = len(shape) > 3 and math.prod(shape[:-2]) <= _LARGEST_WINDOW
    positions = tuple(range(len(shape) - 2)) if is_window else ()
    return Tiles(tuple(range(place)), tuple(range(place, len(shape))), positions=positions)


def axes_of(
    path: str, shape: tuple[int, ...], matrix_axes: Mapping[str, MatrixAxes] | None
) -> Iterator[tuple[str, Tiles, bool]]:
    """The matrices of a parameter: names, axes, and whether the columns have no factor.

    Args:
      path: The path of the parameter.
      shape: The shape of the parameter.
      matrix_axes: What the user said.

    Raises:
      ValueError: Axes do not fit the parameter.
    """
    patterns = (pattern for pattern in matrix_axes or {} if re.fullmatch(pattern, path))
    pattern = next(patterns, None)
    chosen: MatrixAxes = "cut" if pattern is None else (matrix_axes or {})[pattern]
    if chosen is None:
        return
    if isinstance(chosen, tuple):
        chosen = Tiles(tuple(chosen[0]), tuple(chosen[1]))
    if isinstance(chosen, Tiles):
        yield path, _fitting(path, shape, chosen, pattern or ""), False
        return
    whole = cut(shape)
    if whole is None:
        return
    if isinstance(chosen, UpTo):
        sides = (math.prod(shape[axis] for axis in side) for side in (whole.rows, whole.columns))
        if max(sides) > chosen.size:
            return
        chosen = "cut"
    groups: list[Axes] = [(axis,) for axis in range(len(shape)) if shape[axis] > 1]
    if isinstance(chosen, Merged):
        groups = _merged(shape, chosen.size)
    if chosen == "cut" or len(groups) < 2:
        yield path, whole, False
    elif len(groups) == 2:
        rest = tuple(axis for axis in range(len(shape)) if axis not in groups[0])
        yield path, Tiles(groups[0], rest), False
    else:
        for group in groups:
            rest = tuple(axis for axis in range(len(shape)) if axis not in group)
            yield f"{path}[{','.join(map(str, group))}]", Tiles(group, rest), True


def _merged(shape: tuple[int, ...], size: int) -> list[Axes]:
    groups: list[Axes] = []
    for axis in range(len(shape)):
        if groups and math.prod(shape[a] for a in groups[-1]) * shape[axis] <= size:
            groups[-1] = (*groups[-1], axis)
        else:
            groups.append((axis,))
    return [group for group in groups if math.prod(shape[axis] for axis in group) > 1]


def _fitting(path: str, shape: tuple[int, ...], axes: Tiles, pattern: str) -> Tiles:
    """The axes counted from the front, if they fit."""
    rank = len(shape)
    flat = [*axes.rows, *axes.columns]
    legal = all(-rank <= axis < rank for axis in (*flat, *axes.tiles, *axes.positions))
    if not legal or len({axis % rank for axis in flat}) < len(flat):
        raise ValueError(
            f"`matrix_axes` of {pattern!r} are {axes.rows, axes.columns!r}, which do not fit "
            f"{path!r} of shape {shape}: name each axis once, from {-rank} to {rank - 1}."
        )
    rows, columns = (tuple(axis % rank for axis in side) for side in (axes.rows, axes.columns))
    tiles = {axis % rank: count for axis, count in axes.tiles.items()}
    for axis, count in tiles.items():
        if axis not in (*rows, *columns) or shape[axis] % count:
            raise ValueError(
                f"`matrix_axes` of {pattern!r} cut axis {axis} of {path!r}, of shape {shape}, into "
                f"{count} tiles: it must be one of the rows or columns, and of a size that is a "
                f"multiple of {count}."
            )
    positions = tuple(axis % rank for axis in axes.positions)
    usable = [axis for axis in (*rows, *columns) if axis not in tiles]
    if len(set(positions)) < len(positions) or not set(positions) <= set(usable):
        raise ValueError(
            f"`matrix_axes` of {pattern!r} have the positions {axes.positions!r} for {path!r}, of "
            f"shape {shape}: name each axis once, of the rows and columns that are not tiled, "
            f"which are {tuple(sorted(usable))!r}."
        )
    return Tiles(rows, columns, tiles, positions)


def check_matrix_axes(matrix_axes: object) -> None:
    """Raise unless this is None or a mapping from patterns to ``MatrixAxes``.

    >>> check_matrix_axes({"blocks/.*kernel": ((1,), (2,)), "embedding": None, ".*": Merged(1024)})
    >>> check_matrix_axes({"embedding": 0})
    Traceback (most recent call last):
    ValueError: `matrix_axes` must map regular expressions to pairs of axes, as ((1,), (2,)), ...
    """
    if matrix_axes is None:
        return
    if not isinstance(matrix_axes, Mapping):
        raise TypeError(
            "`matrix_axes` must be None or a dict from regular expressions on paths to pairs of "
            f"axes, such as {{'blocks/.*kernel': ((1,), (2,))}}, got {matrix_axes!r} of type "
            f"{type(matrix_axes).__name__}."
        )
    for pattern, axes in matrix_axes.items():
        check_pattern("matrix_axes key", pattern)
        if axes is None or axes in ("cut", "each"):
            continue
        if isinstance(axes, Merged | UpTo):
            check_size(f"{type(axes).__name__}.size", axes.size)
            continue
        pair = (axes.rows, axes.columns) if isinstance(axes, Tiles) else axes
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(map(_is_side, pair)):
            raise ValueError(
                "`matrix_axes` must map regular expressions to pairs of axes, as ((1,), (2,)), to "
                "Tiles, Merged, UpTo, 'cut' or 'each', or to None for parameters that pass "
                f"through; got {axes!r} for {pattern!r}."
            )
        for count in axes.tiles.values() if isinstance(axes, Tiles) else ():
            check_size("Tiles.tiles", count)
        if isinstance(axes, Tiles) and axes.positions != () and not _is_side(axes.positions):
            raise ValueError(
                f"`Tiles.positions` must be a tuple of axes, as (0, 1), got {axes.positions!r} for "
                f"{pattern!r}."
            )


def _is_side(side: object) -> bool:
    return (
        isinstance(side, tuple | list)
        and len(side) > 0
        and all(isinstance(axis, int) and not isinstance(axis, bool) for axis in side)
    )
