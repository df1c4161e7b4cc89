"""What a rule sees of a parameter: a matrix, whatever it is otherwise."""

from typing import Protocol

import jax
import jax.numpy as jnp

from singd_optax.placement import Placement
from singd_optax.structures import Structure


class MatrixView(Protocol):
    """One matrix-shaped parameter, or layer, or a stack of them; static and hashable.

    ``LayerSpec`` (kernel and bias of a layer) and ``MatrixSpec`` (one array) both are views.
    """

    def __hash__(self) -> int:
        """By what it says."""

    @property
    def path(self) -> str:
        """The name of the layer, or of the parameter."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Path -> shape of the parameters that make the matrix."""

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """How many matrices there are; ``()`` for one."""

    @property
    def dims(self) -> tuple[int, int]:
        """Rows (inputs) and columns (outputs)."""

    @property
    def structures(self) -> tuple[Structure, Structure]:
        """Of the factors of rows and of columns."""

    @property
    def factor_dtype(self) -> tuple[str, str]:
        """In which these are kept, by name."""

    @property
    def statistics_dtype(self) -> jnp.dtype:
        """In which everything is computed: float32, or float64 for a float64 parameter."""

    @property
    def placement(self) -> Placement:
        """Where its arrays are, and what moves."""

    @property
    def stacks_with_others(self) -> bool:
        """Whether its arrays may be kept in one stack with those of equal views."""

    def to_matrix(self, *arrays: jax.Array) -> jax.Array:
        """The parameters, or their gradients, as (*stack_shape, rows, columns)."""

    def from_matrix(self, matrix: jax.Array) -> tuple[jax.Array, ...]:
        """The inverse of ``to_matrix``."""
