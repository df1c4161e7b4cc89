"""How one call of a layer uses its kernel: what a kind of layer must say."""

import abc
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.structures import Precision, Projection, StructuredMatrix, contract

#: A factor, with which second moments are whitened; or a projection, which leaves them plain.
Whitening = StructuredMatrix | Projection


class Rows(abc.ABC):
    """The inputs of one call in the format of all layers, [batch, shared, inputs].

    The batch axis runs over examples; the shared axis over the positions (tokens, pixels) at which
    one example uses the same kernel. Sub-classes are pytrees; how they hold the inputs is theirs.
    """

    @abc.abstractmethod
    def gram(
        self, factor: Whitening, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> tuple[StructuredMatrix, jax.Array]:
        """Π(Kᵀ Σ w a aᵀ K) over all positions, and Σ w aᵀ a.

        Args:
          factor: K, or a projection in its place.
          weights: w, (batch, shared), or None for ones.
          bias: Whether a has a last entry that is 1.
          precision: Of the products.
        """

    @abc.abstractmethod
    def averaged(self, weights: jax.Array | None) -> "Rows":
        """The inputs averaged over the shared axis, (batch, 1, inputs), as ``"reduce"`` wants."""


class Operation(abc.ABC):
    """How one call of a layer used its kernel; static and hashable.

    Sub-classes are frozen dataclasses. Leading axes of inputs and outputs are what they have in
    common; the first is the batch, all others are shared positions.

    Attributes:
      shares_leading: Whether the arranged inputs have all leading axes, one entry for each of the
        gradient's; else only the first one is common.
    """

    shares_leading: ClassVar[bool] = True

    def arrange(self, inputs: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The two, with all leading axes in front, so that one more can be added there."""
        return inputs, gradient

    @abc.abstractmethod
    def leading(self, gradient: jax.Array) -> tuple[int, ...]:
        """The sizes of the leading axes of the arranged gradient, pixels included."""

    @abc.abstractmethod
    def expected_leading(self, inputs: jax.Array) -> tuple[int, ...]:
        """What ``leading`` must be of the gradient, from the arranged inputs."""

    @abc.abstractmethod
    def input_rows(self, inputs: jax.Array) -> Rows:
        """The arranged inputs as rows; if the kernel has batch axes, these lead all arrays."""

    @abc.abstractmethod
    def output_rows(self, gradient: jax.Array) -> jax.Array:
        """The arranged gradient as (*kernel batch, batch, shared, outputs)."""


def batch_and_shared(leading: tuple[int, ...]) -> tuple[int, int]:
    """Leading axes as (batch, shared).

    >>> batch_and_shared((8, 3, 4)), batch_and_shared(())
    ((8, 12), (1, 1))
    """
    size = 1
    for axis in leading[1:]:
        size *= axis
    return (leading[0] if leading else 1), size


@flax.struct.dataclass
class PlainRows(Rows):
    """Inputs as they are: (batch, shared, inputs)."""

    rows: jax.Array

    def gram(
        self, factor: Whitening, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> tuple[StructuredMatrix, jax.Array]:
        """The gram of the rows, each times the root of its weight."""
        rows = self.rows.reshape(-1, self.rows.shape[-1])
        if bias:
            rows = jnp.concatenate([rows, jnp.ones_like(rows, shape=(rows.shape[0], 1))], axis=1)
        if weights is not None:
            rows = rows * jnp.sqrt(weights).reshape(-1, 1).astype(rows.dtype)
        squares = contract("ni,ni->", rows, rows, precision=precision)
        return factor.gram(rows, precision=precision), squares

    def averaged(self, weights: jax.Array | None) -> "PlainRows":
        """The mean over the shared axis, with weights."""
        dtype = jnp.promote_types(jnp.float32, self.rows.dtype)
        if weights is None:
            return PlainRows(jnp.mean(self.rows, axis=1, dtype=dtype, keepdims=True))
        sums = contract("nsi,ns->ni", self.rows, weights.astype(self.rows.dtype))
        return PlainRows((sums * safe_inverse(weights.sum(1, dtype=dtype))[:, None])[:, None])


def safe_inverse(x: PyTree) -> jax.Array:
    """1 / x, and 0 where x is 0."""
    return jnp.where(x == 0, 0, 1 / jnp.where(x == 0, 1, x))
