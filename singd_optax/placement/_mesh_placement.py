"""The placement of one layer on a mesh."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeVar

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from singd_optax.placement._late_whitening import can_whiten, whiten
from singd_optax.placement._mesh_partitions import MeshPartitions
from singd_optax.placement._placed_matrix import PlacedMatrix
from singd_optax.placement._placement import Placement
from singd_optax.placement._sides import Side, Sides, at_arrays, at_sides, matrix_of
from singd_optax.placement._splits import Split, fitted, fitting, partition_of
from singd_optax.structures import DenseMatrix, Precision, StructuredMatrix

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class MeshPlacement(MeshPartitions, Placement):
    """Where the arrays of one layer are on a mesh, and how its gradients get there.

    Made by ``singd_optax.sharding.spread``. It holds no devices: it can be pickled, and compares
    equal on any machine. The devices are those of the arrays that a step is given.
    """

    def constrained(self, tree: Tree, sides: Sides) -> Tree:
        """As ``Placement`` says, split by the stack, and by rows."""
        kept = lambda x, side: self.constrain(x, self.kept(x.shape, side))
        return at_arrays(kept, tree, sides)

    def constrained_moments(self, tree: Tree, sides: Sides) -> Tree:
        """As ``Placement`` says, split by rows over all devices."""
        formed = lambda x, side: self.constrain(x, self.formed(x.shape, side))
        return at_arrays(formed, tree, sides)

    def constrained_parameters(self, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """As ``Placement`` says, split as the user split the parameters."""
        own = dict(self.parameters)
        return {
            path: self.constrain(array, own[path]) if path in own else array
            for path, array in arrays.items()
        }

    def named(self, tree: Tree, sides: Sides, mesh: Mesh | AbstractMesh) -> Tree:
        """As ``Placement`` says, of what ``constrained`` does."""
        if dict(mesh.shape) != dict(self.mesh.shape):
            raise ValueError(
                f"The layers were spread over a mesh of the axes {dict(self.mesh.shape)}, and the "
                f"shardings are on one of {dict(mesh.shape)}. Call singd_optax.sharding.spread "
                "with the shardings that you pass."
            )
        named = lambda x, side: NamedSharding(mesh, self.kept(x.shape, side))
        return at_arrays(named, tree, sides)

    def placed(self, tree: Tree, sides: Sides) -> Tree:
        """As ``Placement`` says."""
        fetched = self._fetched(matrix_of(tree, sides, 0), matrix_of(tree, sides, 1))

        def part(part: object, side: Side) -> object:
            if side is None or not isinstance(part, StructuredMatrix):
                return part
            return PlacedMatrix(part, self, side, fetched == side)

        return at_sides(part, tree, sides)

    def _fetched(self, K: StructuredMatrix | None, C: StructuredMatrix | None) -> int | None:
        """The side whose factor travels to the gradients, None for neither.

        Where the rows of both factors are split, gradients travel to K, from K to C, and home. With
        one of the two at hand they stay between K and C; a structured factor may be smaller than
        they are. Dense factors never travel.
        """
        if K is None or C is None or not self.spare:
            return None
        if not (self.has_split_rows(K, 0) and self.has_split_rows(C, 1)):
            return None
        shape = (*K.batch_shape, K.dim, C.dim)
        most = 2 * math.prod(shape) / self.mesh.size
        travels = {}
        for side, matrix in enumerate((K, C)):
            numbers = sum(self.share(leaf.shape) for leaf in jax.tree.leaves(matrix))
            if not isinstance(matrix, DenseMatrix) and numbers <= most:
                # Gradients are then split over their columns for K, or over their rows for C.
                away = self._at_factor(shape, side == 1, 0)
                moves = () if self.home is None else self.moves(shape, self.home, away)
                travels[side] = (len(moves), numbers)
        return min(travels, key=travels.__getitem__, default=None)

    def gradient_to_factors(self, gradient: jax.Array, placed: object, sides: Sides) -> jax.Array:
        """As ``Placement`` says, by all-to-alls."""
        away = self._away(gradient, placed, sides, 0)
        return gradient if self.home is None else self.moved(gradient, self.home, away)

    def gradient_from_factors(self, gradient: jax.Array, placed: object, sides: Sides) -> jax.Array:
        """As ``Placement`` says, by all-to-alls."""
        away = self._away(gradient, placed, sides, 1)
        return gradient if self.home is None else self.moved(gradient, away, self.home)

    def at_parameters(self, gradient: jax.Array) -> jax.Array:
        """As ``Placement`` says."""
        return gradient if self.home is None else self.constrain(gradient, partition_of(self.home))

    def divided(self, matrix: jax.Array, axis: int) -> jax.Array:
        """As ``Placement`` says: what does not divide the axis splits the other."""
        taken = {name for axes in self.stack for name in axes}
        free = dict.fromkeys((*self.spare, *self.rows[0], *self.rows[1]))
        names = tuple(name for name in free if name not in taken)
        chosen = fitting(matrix.shape[axis], names, self.mesh.shape)
        rest = tuple(name for name in names if name not in chosen)
        sides = [chosen, rest] if axis == -2 else [rest, chosen]
        split = fitted(matrix.shape, [*self.stack, *sides], self.mesh.shape)
        return self.constrain(matrix, partition_of(split))

    @property
    def device_count(self) -> int:
        """Those of the mesh."""
        return self.mesh.size

    def dealt(self, batch: jax.Array) -> jax.Array:
        """As ``Placement`` says."""
        return self.constrain(batch, partition_of((self.mesh.axis_names,)))

    def _away(self, gradient: jax.Array, placed: object, sides: Sides, side: int) -> Split:
        """The split of gradients at the factor of a side; of no factor, as of a whole one."""
        factor = matrix_of(placed, sides, side)
        is_split = isinstance(factor, PlacedMatrix) and factor.is_split
        return self._at_factor(gradient.shape, is_split, side)

    def _at_factor(self, shape: Sequence[int], is_split: bool, side: int) -> Split:
        """The split of gradients (*stack, rows, columns) at a factor."""
        if side == 0:
            return self.beside(shape, is_split, side)
        *stack, columns, rows = self.beside((*shape[:-2], shape[-1], shape[-2]), is_split, side)
        return (*stack, rows, columns)

    def whitens_late(self, factors: Sequence[StructuredMatrix]) -> bool:
        """As ``Placement`` says: the work is then split, and no factor whole on any device.

        It needs structures in which Π(Kᵀ U K) follows from Π(U), as it does with blocks.
        """
        return can_whiten(factors)

    def whitened(
        self,
        statistics: Tree,
        sides: Sides,
        factors: Sequence[StructuredMatrix],
        precision: Precision,
    ) -> Tree:
        """As ``Placement`` says."""
        if not self.whitens_late(factors):
            return statistics

        def part(moment: StructuredMatrix, side: Side) -> StructuredMatrix:
            return moment if side is None else whiten(factors[side], moment, precision)

        return at_sides(part, statistics, sides)
