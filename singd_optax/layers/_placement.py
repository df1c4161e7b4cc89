"""Which devices of a mesh hold, and work on, which part of a layer's factors."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from singd_optax.layers._moves import Split, steps
from singd_optax.structures import StructuredMatrix

#: Names of mesh axes.
MeshAxes = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the arrays of one layer are on a mesh; static and hashable.

    An axis that a mesh axis does not divide stays whole on each device.

    Attributes:
      mesh: The devices.
      stack: For each axis of the layer's stack, the mesh axes that it is split over.
      rows: For K and for C, the mesh axes that rows (of dense factors), blocks (of block-diagonal
        ones) and entries (of diagonal ones) are split over.
      spare: The mesh axes that split neither: other axes of gradients are split over them.
      parameters: Path of a parameter -> its own partition.
      home: The mesh axes of the kernel as a matrix: of its stack, of its inputs, of its outputs.

    >>> mesh = AbstractMesh((4, 2), ("data", "model"))
    >>> placement = Placement(mesh, (("data",),), (("model",), ()), ("model",))
    >>> placement.factor((12, 64, 64), 0)  # 12 layers: 3 on each of 4, half of the rows on each
    P('data', 'model', None)
    """

    mesh: Mesh | AbstractMesh
    stack: tuple[MeshAxes, ...] = ()
    rows: tuple[MeshAxes, MeshAxes] = ((), ())
    spare: MeshAxes = ()
    parameters: tuple[tuple[str, PartitionSpec], ...] = ()
    home: Split | None = None

    def factor(self, shape: Sequence[int], side: int | None) -> PartitionSpec:
        """The partition of an array of a factor, whose first axes are the stack's.

        Args:
          shape: Of the array.
          side: 0 for K, 1 for C; None for neither.
        """
        rows = () if side is None or len(shape) == len(self.stack) else self.rows[side]
        return self._partition(shape, [*self.stack, rows])

    @property
    def size(self) -> int:
        """The number of devices."""
        return self.mesh.size

    def share(self, shape: Sequence[int], side: int | None) -> int:
        """How many numbers of such an array each device has."""
        return math.prod(self.named(self.factor(shape, side)).shard_shape(tuple(shape)))

    def moment(self, shape: Sequence[int], side: int | None) -> PartitionSpec:
        """The partition of an array of a statistic where it is formed, of one layer of a stack."""
        rows = () if side is None or not shape else self.rows[side]
        spread = (*rows, *(axis for axes in self.stack for axis in axes if axis not in rows))
        return self._partition(shape, [spread if side is not None else ()])

    def matrix(self, shape: Sequence[int], split: bool, side: int) -> PartitionSpec:
        """The partition of gradients (*stack, dim, n) beside a factor of size dim.

        Args:
          shape: Of the gradients.
          split: Whether the factor's rows are split.
          side: 0 for K, 1 for C.
        """
        rows = self.rows[side] if split else ()
        rows = fitting(shape[-2], rows, self.mesh.shape)
        columns = tuple(axis for axis in self.spare if axis not in rows)
        return self._partition(shape, [*self.stack, rows, columns])

    def _partition(self, shape: Sequence[int], wanted: Sequence[MeshAxes]) -> PartitionSpec:
        entries: list[Any] = [None] * len(shape)
        for place, axes in enumerate(wanted[: len(shape)]):
            fitted = fitting(shape[place], axes, self.mesh.shape)
            entries[place] = (fitted if len(fitted) > 1 else fitted[0]) if fitted else None
        return PartitionSpec(*entries)

    def constrain(self, array: jax.Array, partition: PartitionSpec) -> jax.Array:
        """The array, split in this way inside of a jitted function."""
        context = jax.sharding.get_abstract_mesh()
        if not context.empty:
            if any(kind == AxisType.Manual for kind in context.axis_types):
                return array  # inside of shard_map each device has what it has
            return jax.lax.with_sharding_constraint(array, NamedSharding(context, partition))
        return jax.lax.with_sharding_constraint(array, NamedSharding(self.mesh, partition))

    def moves(self, shape: Sequence[int], start: Split | None, goal: Split) -> tuple[Split, ...]:
        """The partitions on a cheap way from one to another; none if the first is not known."""
        sizes = tuple(self.mesh.shape.items())
        return () if start is None else steps(tuple(shape), start, goal, sizes)

    def moved(self, array: jax.Array, start: Split, goal: Split) -> jax.Array:
        """The array, brought from one partition to another by moves that are cheap."""
        array = self.constrain(array, _partition_of(start))
        for split in self.moves(array.shape, start, goal):
            array = self.constrain(array, _partition_of(split))
        return array

    def named(self, partition: PartitionSpec) -> NamedSharding:
        """The partition on this mesh."""
        return NamedSharding(self.mesh, partition)


def _partition_of(split: Split) -> PartitionSpec:
    return PartitionSpec(*(axes if len(axes) > 1 else (axes or (None,))[0] for axes in split))


def split_of(partition: PartitionSpec, rank: int) -> Split:
    """For each axis of an array the mesh axes that it is split over."""
    entries = [*partition, *(None,) * (rank - len(partition))]
    return tuple((entry,) if isinstance(entry, str) else tuple(entry or ()) for entry in entries)


def fitting(size: int, axes: Iterable[str], sizes: Any, avoid: Iterable[str] = ()) -> MeshAxes:
    """Those of the mesh axes that divide a size, in all the most devices.

    Args:
      size: Of the array's axis.
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


def side_of(path: Iterable[Any]) -> int | None:
    """0 if a key path leads to an array of K (a field named K, m_K, ...), 1 of C, else None."""
    for key in reversed(tuple(path)):
        name = getattr(key, "name", None)
        if name is not None and name.split("_")[-1] in ("K", "C"):
            return "KC".index(name[-1])
    return None


def partitions(placement: Placement, tree: Any) -> Any:
    """The partitions of all arrays (or shapes) of a layer's factors, memory or statistics."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: placement.factor(leaf.shape, side_of(path)), tree
    )


def constrained(placement: Placement | None, tree: Any) -> Any:
    """A layer's factors, memory or statistics, where they are to be."""
    if placement is None:
        return tree
    return jax.tree.map(placement.constrain, tree, partitions(placement, tree))


def constrained_moments(placement: Placement | None, tree: Any) -> Any:
    """The statistics of one layer of a stack, where they are formed."""
    if placement is None:
        return tree
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: placement.constrain(leaf, placement.moment(leaf.shape, side_of(path))),
        tree,
    )


def constrained_parameters(
    placement: Placement | None, arrays: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """Arrays like a layer's parameters, where these are."""
    if placement is None:
        return arrays
    own = dict(placement.parameters)
    return {
        path: placement.constrain(array, own[path]) if path in own else array
        for path, array in arrays.items()
    }


def is_split(placement: Placement, matrix: StructuredMatrix, side: int) -> bool:
    """Whether the rows of a factor are on several devices."""
    stacked = len(placement.stack)
    return any(
        len(leaf.shape) > stacked and placement.factor(leaf.shape, side)[stacked] is not None
        for leaf in jax.tree.leaves(matrix)
    )
