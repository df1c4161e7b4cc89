"""The contract of a placement, which one device fulfils by doing nothing."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from singd_optax.placement._sides import Sides
from singd_optax.structures import Precision, StructuredMatrix

Tree = TypeVar("Tree")


class Placement:
    """Where the arrays of one layer are, and how its gradients get to its factors.

    It is static and hashable. What is written here is what one device needs: nothing moves. All
    methods take traced arrays; a tree is a NamedTuple (or one part of it), with ``sides`` that say
    to which side each of its fields belongs: 0 for K (inputs, rows), 1 for C (outputs, columns),
    None for neither.
    """

    def constrained(self, tree: Tree, sides: Sides) -> Tree:
        """A layer's factors, state or statistics (axes of a stack first), where they are kept."""
        del sides
        return tree

    def constrained_moments(self, tree: Tree, sides: Sides) -> Tree:
        """The statistics of one layer of a stack, where they are formed."""
        del sides
        return tree

    def constrained_parameters(self, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Arrays like a layer's parameters, by path, where these are."""
        return arrays

    def placed(self, tree: Tree, sides: Sides) -> Tree:
        """The state with matrices whose products with gradients say where they are computed."""
        del sides
        return tree

    def gradient_to_factors(self, gradient: jax.Array, placed: object, sides: Sides) -> jax.Array:
        """The gradient matrix, from where its parameter is to where K is applied.

        Args:
          gradient: The gradient matrix, (*stack, rows, columns).
          placed: What ``placed`` returned.
          sides: The sides of its fields.
        """
        del placed, sides
        return gradient

    def gradient_from_factors(self, gradient: jax.Array, placed: object, sides: Sides) -> jax.Array:
        """The preconditioned gradient, from where C was applied to where its parameter is.

        Args:
          gradient: The preconditioned matrix, (*stack, rows, columns).
          placed: What ``placed`` returned.
          sides: The sides of its fields.
        """
        del placed, sides
        return gradient

    def at_parameters(self, gradient: jax.Array) -> jax.Array:
        """The gradient matrix, (*stack, rows, columns), which is to be where its parameter is."""
        return gradient

    def divided(self, matrix: jax.Array, axis: int) -> jax.Array:
        """A matrix (*stack, m, n) that all devices work on, each with a part of one axis.

        Args:
          matrix: The matrix, as large as the layer's, or smaller.
          axis: The axis that is divided, -1 or -2.
        """
        del axis
        return matrix

    @property
    def device_count(self) -> int:
        """The number of devices that there are to deal work to."""
        return 1

    def dealt(self, batch: jax.Array) -> jax.Array:
        """A batch whose first axis is as long as there are devices, each with its own part.

        What is done to each matrix of it, a decomposition for one, is then done on one device.

        Args:
          batch: The batch, (device_count, ...).
        """
        return batch

    def whitens_late(self, factors: Sequence[StructuredMatrix]) -> bool:
        """Whether statistics stay plain where they are formed, and are whitened at the refresh.

        Args:
          factors: The factors K and C; empty for a method that does not whiten.
        """
        del factors
        return False

    def whitened(
        self,
        statistics: Tree,
        sides: Sides,
        factors: Sequence[StructuredMatrix],
        precision: Precision,
    ) -> Tree:
        """Statistics as they are wanted, whether they were whitened where they were formed or not.

        Args:
          statistics: The statistics of one layer, in its factors' structures.
          sides: The sides of their fields.
          factors: The factors K and C; empty for a method that does not whiten.
          precision: The precision of the products, as ``jax.numpy.einsum`` takes it.
        """
        del sides, factors, precision
        return statistics

    def named(self, tree: Tree, sides: Sides, mesh: Mesh | AbstractMesh) -> Tree:
        """The sharding of each array (or shape) of what ``constrained`` takes.

        Args:
          tree: A layer's factors, state or statistics, of arrays or shapes.
          sides: The sides of its fields.
          mesh: The mesh of devices.

        Returns:
          The same tree, of ``NamedSharding``.

        Raises:
          ValueError: The layer was placed on a mesh of other axes.
        """
        del sides
        return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), tree)


@dataclasses.dataclass(frozen=True)
class OneDevice(Placement):
    """The placement that splits nothing: one device, or a mesh where the compiler may choose."""
