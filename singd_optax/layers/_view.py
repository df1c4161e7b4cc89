"""What a rule sees of a parameter: a matrix, whatever it is otherwise."""

from typing import Protocol

import jax
import jax.numpy as jnp

from singd_optax.layers._window import Window
from singd_optax.placement import Placement
from singd_optax.structures import Structure


class MatrixView(Protocol):
    """What a rule sees: one matrix-shaped parameter or layer, or a stack; static and hashable.

    ``LayerSpec`` (kernel and bias of a layer) and ``MatrixSpec`` (one array) both are views.
    """

    def __hash__(self) -> int:
        """The hash of what the view says, as views are compared by value."""

    @property
    def path(self) -> str:
        """The name of the layer, or of the parameter."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """A dict from the path of each parameter that makes the matrix to its shape."""

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """How many matrices there are along each axis of a stack; ``()`` for one matrix."""

    @property
    def dims(self) -> tuple[int, int]:
        """The numbers of rows (inputs) and of columns (outputs)."""

    @property
    def window(self) -> Window | None:
        """Where positions of a convolution are in the matrix; None if it is no convolution's."""

    @property
    def structures(self) -> tuple[Structure, Structure]:
        """The structures of the factors of rows and of columns."""

    @property
    def factor_dtype(self) -> tuple[str, str]:
        """The dtypes, by name, in which the factors of rows and of columns are kept."""

    @property
    def statistics_dtype(self) -> jnp.dtype:
        """The dtype of all computations: float32, or float64 for a float64 parameter."""

    @property
    def placement(self) -> Placement:
        """Which device of a mesh holds which part of its arrays, and what moves."""

    @property
    def stacks_with_others(self) -> bool:
        """Whether its state may be kept in one stack with those of equal views."""

    def to_matrix(self, *arrays: jax.Array) -> jax.Array:
        """The parameters, or their gradients, as matrices (*stack_shape, rows, columns)."""

    def from_matrix(self, matrix: jax.Array) -> tuple[jax.Array, ...]:
        """The inverse of ``to_matrix``: a tuple of the parameters, in the order of ``shapes``."""
