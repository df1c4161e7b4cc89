"""How arrays are split over mesh axes: the two ways to write it, and which axes divide a size."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from jax.sharding import PartitionSpec

#: Names of mesh axes.
MeshAxes = tuple[str, ...]

#: For each axis of an array the mesh axes that it is split over, major first.
Split = tuple[MeshAxes, ...]


def split_of(partition: PartitionSpec, rank: int) -> Split:
    """For each axis of an array of this rank the mesh axes that it is split over.

    >>> split_of(PartitionSpec("a", None, ("b", "c")), 4)
    (('a',), (), ('b', 'c'), ())
    """
    entries = [*partition, *(None,) * (rank - len(partition))]
    return tuple((entry,) if isinstance(entry, str) else tuple(entry or ()) for entry in entries)


def partition_of(split: Iterable[MeshAxes]) -> PartitionSpec:
    """The inverse of ``split_of``.

    >>> partition_of((("a",), (), ("b", "c")))
    P('a', None, ('b', 'c'))
    """
    return PartitionSpec(*(axes if len(axes) > 1 else (axes or (None,))[0] for axes in split))


def fitted(shape: Sequence[int], wanted: Sequence[MeshAxes], sizes: Mapping[str, int]) -> Split:
    """The split of an array of this shape that is wanted, without mesh axes that do not divide it.

    Args:
      shape: The shape of the array.
      wanted: The mesh axes for each of its first axes; the others stay whole.
      sizes: Name of a mesh axis -> its size.
    """
    padded = [*wanted[: len(shape)], *[()] * (len(shape) - len(wanted))]
    return tuple(fitting(size, axes, sizes) for size, axes in zip(shape, padded, strict=True))


def fitting(
    size: int, axes: Iterable[str], sizes: Mapping[str, int], avoid: Iterable[str] = ()
) -> MeshAxes:
    """Those of the mesh axes that divide a size, in all the most devices.

    Args:
      size: The size of the array's axis.
      axes: Candidates, in order.
      sizes: Name of a mesh axis -> its size.
      avoid: Names that are taken only for more devices.

    >>> fitting(12, ("data", "model"), {"data": 16, "model": 4})
    ('model',)
    """
    axes, avoid = tuple(axes), set(avoid)
    chosen: MeshAxes = ()
    best = (1, 0)
    for count in range(1, len(axes) + 1):
        for subset in itertools.combinations(axes, count):
            devices = math.prod(sizes[axis] for axis in subset)
            rank = (devices, -len(avoid.intersection(subset)))
            if size % devices == 0 and rank > best:
                best, chosen = rank, subset
    return chosen
