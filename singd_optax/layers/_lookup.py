"""Embeddings: rows of a table, looked up."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax.layers._operation import (
    Operation,
    Rows,
    Whitening,
    batch_and_shared,
    safe_inverse,
)
from singd_optax.structures import (
    Diagonal,
    DiagonalMatrix,
    Precision,
    Projection,
    StructuredMatrix,
)


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

    def sums(self, weights: jax.Array | None, bias: bool, precision: Precision) -> jax.Array:
        """Sums of weights by index."""
        del bias, precision
        return _sums(self.indices, _or_ones(weights, self.indices), self.size)

    def quadratic(
        self, matrix: StructuredMatrix | None, is_root: bool, bias: bool, precision: Precision
    ) -> jax.Array:
        """The entries of the diagonal of M."""
        del bias, precision
        if matrix is None:
            return jnp.ones(self.indices.shape)
        return _form_of(matrix, is_root)[self.indices]

    def squared_products(
        self,
        basis: StructuredMatrix | None,
        gradients: jax.Array,
        bias: bool,
        exact: bool,
        precision: Precision,
    ) -> jax.Array:
        """Squares of gradients by index; exactly, of their sums over equals in an example."""
        del bias
        share = jnp.ones((), gradients.dtype)
        if exact:
            same = _equals(self.indices, gradients.dtype)
            gradients = jnp.einsum("nst,nto->nso", same, gradients, precision=precision)
            share = 1 / same.sum(-1)[..., None]  # each of several equals has the sum of them all
        return _by_index(self.indices, gradients**2 * share, self.size, basis)

    def sketch(
        self, columns: jax.Array, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> jax.Array:
        """The rows of Ω, times the diagonal of the moment."""
        whole = Projection(Diagonal(), self.size)
        moment, _ = self.gram(whole, weights, bias, precision)
        return _diagonal_of(moment)[:, None] * columns

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
        """The diagonal of Σ ā āᵀ."""
        squares = self._squares()
        if weights is not None:
            squares = squares * weights
        return _diagonal_gram(self.indices, squares, self.size, factor, bias, precision)

    def sums(self, weights: jax.Array | None, bias: bool, precision: Precision) -> jax.Array:
        """Sums of frequencies."""
        del bias, precision
        parts = self.weights * safe_inverse(self.weights.sum(1, keepdims=True))
        return _sums(self.indices, parts if weights is None else parts * weights, self.size)

    def quadratic(
        self, matrix: StructuredMatrix | None, is_root: bool, bias: bool, precision: Precision
    ) -> jax.Array:
        """Squares of frequencies, times the entries of the diagonal of M."""
        del bias, precision
        squares = self._squares()
        if matrix is not None:
            squares = squares * _form_of(matrix, is_root)[self.indices]
        return squares.sum(1, keepdims=True)

    def squared_products(
        self,
        basis: StructuredMatrix | None,
        gradients: jax.Array,
        bias: bool,
        exact: bool,
        precision: Precision,
    ) -> jax.Array:
        """Of each example, squares of frequencies and of its gradient."""
        del bias, exact, precision
        squares = self._squares()[..., None] * gradients**2
        return _by_index(self.indices, squares, self.size, basis)

    def _squares(self) -> jax.Array:
        """(batch, shared): an entry's square is its weight times that of all its equals."""
        equals = jnp.einsum("nst,nt->ns", _equals(self.indices, self.weights.dtype), self.weights)
        total = self.weights.sum(1, keepdims=True)
        return self.weights * equals * safe_inverse(total) ** 2

    def sketch(
        self, columns: jax.Array, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> jax.Array:
        """The rows of Ω, times the diagonal of the moment."""
        whole = Projection(Diagonal(), self.size)
        moment, _ = self.gram(whole, weights, bias, precision)
        return _diagonal_of(moment)[:, None] * columns

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
        raise ValueError(
            f"The input factor of an embedding must be Diagonal(), got {factor.structure}."
        )
    weights = _or_ones(weights, indices)
    counts = DiagonalMatrix(_sums(indices, weights, size))
    if isinstance(factor, StructuredMatrix):
        return factor.gram(precision=precision).multiply(counts, precision=precision), weights.sum()
    return counts, weights.sum()


def _or_ones(weights: jax.Array | None, indices: jax.Array) -> jax.Array:
    return jnp.ones(indices.shape) if weights is None else weights  # float64 where that is on


def _sums(indices: jax.Array, weights: jax.Array, size: int) -> jax.Array:
    """Sums of weights by index, (size,)."""
    return jnp.zeros(size, weights.dtype).at[indices.reshape(-1)].add(weights.reshape(-1))


def _equals(indices: jax.Array, dtype: DTypeLike) -> jax.Array:
    """1 where two positions of an example have one index, (batch, shared, shared)."""
    return (indices[:, :, None] == indices[:, None, :]).astype(dtype)


def _diagonal_of(matrix: StructuredMatrix) -> jax.Array:
    if not isinstance(matrix, DiagonalMatrix):
        raise ValueError(
            f"The input matrix of an embedding must be Diagonal(), got {matrix.structure}."
        )
    return matrix.diagonal


def _form_of(matrix: StructuredMatrix, is_root: bool) -> jax.Array:
    """The diagonal of M, or of M Mᵀ."""
    diagonal = _diagonal_of(matrix)
    return diagonal**2 if is_root else diagonal


def _by_index(
    indices: jax.Array, squares: jax.Array, size: int, basis: StructuredMatrix | None
) -> jax.Array:
    """Sums of rows by index, (size, outputs), times squares of a diagonal basis."""
    rows = squares.reshape(-1, squares.shape[-1])
    table = jnp.zeros((size, rows.shape[-1]), rows.dtype).at[indices.reshape(-1)].add(rows)
    if basis is None:
        return table
    return table * (_diagonal_of(basis).astype(rows.dtype) ** 2)[:, None]
