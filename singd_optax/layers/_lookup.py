"""Embeddings: rows of a table, looked up."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from singd_optax.layers._operation import (
    Operation,
    Rows,
    Whitening,
    batch_and_shared,
    safe_inverse,
)
from singd_optax.structures import Diagonal, DiagonalMatrix, Precision, StructuredMatrix


@dataclasses.dataclass(frozen=True)
class Lookup(Operation):
    """Outputs are the rows of the table at the inputs: a product with one-hot vectors.

    The second moment of one-hot vectors is diagonal, with the frequencies of the entries on it:
    they are counted, and no one-hot vector is ever built.

    Attributes:
      size: Rows of the table.
    """

    size: int

    def leading(self, gradient: jax.Array) -> tuple[int, ...]:
        """All axes but the last."""
        return gradient.shape[:-1]

    def expected_leading(self, inputs: jax.Array) -> tuple[int, ...]:
        """Those of the indices."""
        return inputs.shape

    def input_rows(self, inputs: jax.Array) -> "OneHotRows":
        """The indices."""
        return OneHotRows(inputs.reshape(batch_and_shared(inputs.shape)), self.size)

    def output_rows(self, gradient: jax.Array) -> jax.Array:
        """The gradient."""
        return gradient.reshape(*batch_and_shared(gradient.shape[:-1]), gradient.shape[-1])


@flax.struct.dataclass
class OneHotRows(Rows):
    """One-hot vectors of length ``size`` by the index of their one, (batch, shared)."""

    indices: jax.Array
    size: int = flax.struct.field(pytree_node=False)

    def gram(
        self, factor: Whitening, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> tuple[StructuredMatrix, jax.Array]:
        """Sums of weights by index, on the diagonal."""
        return _diagonal_gram(self.indices, weights, self.size, factor, bias, precision)

    def averaged(self, weights: jax.Array | None) -> "AveragedOneHotRows":
        """Frequencies of the indices in each example."""
        if weights is None:
            weights = jnp.ones(self.indices.shape)  # float64 where that is on
        return AveragedOneHotRows(self.indices, weights, self.size)


@flax.struct.dataclass
class AveragedOneHotRows(Rows):
    """Averages of one-hot vectors over the shared axis, with weights (batch, shared)."""

    indices: jax.Array
    weights: jax.Array
    size: int = flax.struct.field(pytree_node=False)

    def gram(
        self, factor: Whitening, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> tuple[StructuredMatrix, jax.Array]:
        """The diagonal of Σ ā āᵀ: an entry's square is its weight times that of all its equals."""
        same = self.indices[:, :, None] == self.indices[:, None, :]
        equals = jnp.einsum("nst,nt->ns", same.astype(self.weights.dtype), self.weights)
        total = self.weights.sum(1, keepdims=True)
        squares = self.weights * equals * safe_inverse(total) ** 2
        if weights is not None:
            squares = squares * weights
        return _diagonal_gram(self.indices, squares, self.size, factor, bias, precision)

    def averaged(self, weights: jax.Array | None) -> "AveragedOneHotRows":
        """They are."""
        del weights
        return self


def _diagonal_gram(
    indices: jax.Array,
    weights: jax.Array | None,
    size: int,
    factor: Whitening,
    bias: bool,
    precision: Precision,
) -> tuple[StructuredMatrix, jax.Array]:
    if factor.structure != Diagonal() or bias:
        raise ValueError(f"The input factor of an embedding is Diagonal(), got {factor.structure}.")
    weights = jnp.ones(indices.shape) if weights is None else weights  # float64 where that is on
    flat = weights.reshape(-1)
    counts = DiagonalMatrix(jnp.zeros(size, flat.dtype).at[indices.reshape(-1)].add(flat))
    if isinstance(factor, StructuredMatrix):
        return factor.gram(precision=precision).multiply(counts, precision=precision), flat.sum()
    return counts, flat.sum()
