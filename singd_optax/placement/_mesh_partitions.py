"""Which part of each array of one layer is on which device of a mesh."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from singd_optax.placement._resharding import steps
from singd_optax.placement._sides import Side
from singd_optax.placement._splits import MeshAxes, Split, fitted, fitting, partition_of
from singd_optax.structures import StructuredMatrix


@dataclasses.dataclass(frozen=True)
class MeshPartitions:
    """How the arrays of one layer are split over a mesh; static, hashable, without devices.

    An axis that a mesh axis does not divide stays whole on each device.

    Attributes:
      mesh: Names and sizes of the mesh axes, which are Auto.
      stack: For each axis of the layer's stack, the mesh axes that it is split over.
      rows: For K and for C, the mesh axes that rows (of dense factors), blocks (of block-diagonal
        ones) and entries (of diagonal ones) are split over.
      spare: The mesh axes that split neither: other axes of gradients are split over them.
      parameters: Path of a parameter -> its own partition.
      home: How the gradient matrix is split where its parameter is; None if that is not known.

    >>> mesh = AbstractMesh((4, 2), ("data", "model"))
    >>> partitions = MeshPartitions(mesh, (("data",),), (("model",), ()), ("model",))
    >>> partitions.kept((12, 64, 64), 0)  # 12 layers: 3 on each of 4, half of the rows on each
    P('data', 'model', None)
    """

    mesh: AbstractMesh
    stack: tuple[MeshAxes, ...] = ()
    rows: tuple[MeshAxes, MeshAxes] = ((), ())
    spare: MeshAxes = ()
    parameters: tuple[tuple[str, PartitionSpec], ...] = ()
    home: Split | None = None

    def kept(self, shape: Sequence[int], side: Side) -> PartitionSpec:
        """The partition of an array of a factor, whose first axes are the stack's."""
        rows = () if side is None or len(shape) == len(self.stack) else self.rows[side]
        return partition_of(fitted(shape, [*self.stack, rows], self.mesh.shape))

    def formed(self, shape: Sequence[int], side: Side) -> PartitionSpec:
        """The partition of an array of a statistic where it is formed, of one layer of a stack."""
        if side is None or not shape:
            return PartitionSpec(*(None,) * len(shape))
        rows = self.rows[side]
        over_all = (*rows, *(axis for axes in self.stack for axis in axes if axis not in rows))
        return partition_of(fitted(shape, [over_all], self.mesh.shape))

    def beside(self, shape: Sequence[int], is_split: bool, side: int) -> Split:
        """The split of gradients (*stack, dim, n) beside a factor of size dim.

        Args:
          shape: The shape of the gradients.
          is_split: Whether the factor's rows are split.
          side: The side of the factor.
        """
        rows = fitting(shape[-2], self.rows[side] if is_split else (), self.mesh.shape)
        columns = tuple(axis for axis in self.spare if axis not in rows)
        return fitted(shape, [*self.stack, rows, columns], self.mesh.shape)

    def share(self, shape: Sequence[int]) -> int:
        """How many numbers of a whole factor's array each device has."""
        sharding = NamedSharding(self.mesh, self.kept(shape, None))
        return math.prod(sharding.shard_shape(tuple(shape)))

    def has_split_rows(self, matrix: StructuredMatrix, side: int) -> bool:
        """Whether the rows of a factor are on several devices."""
        stacked = len(self.stack)
        return any(
            len(leaf.shape) > stacked and self.kept(leaf.shape, side)[stacked] is not None
            for leaf in jax.tree.leaves(matrix)
        )

    def constrain(self, array: jax.Array, partition: PartitionSpec) -> jax.Array:
        """The array, split in this way.

        The devices are those of the arrays of the program: with arrays of one device alone, which
        are on no mesh, nothing happens.
        """
        mesh = jax.sharding.get_abstract_mesh()
        if any(kind == AxisType.Manual for kind in mesh.axis_types):
            return array  # inside of shard_map each device has what it has
        return _constrain(array, NamedSharding(self.mesh if mesh.empty else mesh, partition))

    def moves(self, shape: Sequence[int], start: Split, goal: Split) -> tuple[Split, ...]:
        """The splits on a cheap way from one to another."""
        return steps(tuple(shape), start, goal, tuple(self.mesh.shape.items()))

    def moved(self, array: jax.Array, start: Split, goal: Split) -> jax.Array:
        """The array, brought from one split to another by moves that are cheap."""
        for split in (start, *self.moves(array.shape, start, goal)):
            array = self.constrain(array, partition_of(split))
        return array


# A mesh without devices is refused for concrete arrays on one device; a jitted function takes it.
@functools.partial(jax.jit, static_argnums=1, inline=True)
def _constrain(array: jax.Array, sharding: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(array, sharding)
