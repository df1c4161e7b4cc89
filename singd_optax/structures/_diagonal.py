"""Diagonal matrices: AdamW's memory."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from singd_optax.structures._base import Structure, StructuredMatrix, expand_scale
from singd_optax.structures._columns import Columns
from singd_optax.structures._numerics import HIGHEST, Precision, accumulation_dtype, contract


@dataclasses.dataclass(frozen=True)
class Diagonal(Structure):
    """Diagonal matrices: d numbers, Π(M) = Diag(M).

    Costs O(n d) for the gram of n rows and for a product with (d, n).

    >>> Diagonal().project_gram(jnp.ones((3, 2))).to_dense()
    Array([[3., 0.],
           [0., 3.]], dtype=float32)
    """

    def eye(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "DiagonalMatrix":
        """The identity."""
        return DiagonalMatrix(jnp.ones((*batch_shape, dim), dtype))

    def zeros(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "DiagonalMatrix":
        """The zero matrix."""
        return DiagonalMatrix(jnp.zeros((*batch_shape, dim), dtype))

    def project(self, symmetric: jax.Array) -> "DiagonalMatrix":
        """The diagonal."""
        return DiagonalMatrix(jnp.diagonal(symmetric, axis1=-2, axis2=-1))

    def project_gram(self, rows: jax.Array, *, precision: Precision = HIGHEST) -> "DiagonalMatrix":
        """The sums of squares of the columns."""
        return DiagonalMatrix(contract("...ni,...ni->...i", rows, rows, precision=precision))

    def project_columns(
        self, columns: Columns, *, precision: Precision = HIGHEST
    ) -> "DiagonalMatrix":
        """The same, which needs no rows at all."""
        return DiagonalMatrix(columns.squares(precision=precision))


@flax.struct.dataclass
class DiagonalMatrix(StructuredMatrix):
    """Diagonal entries (..., dim)."""

    diagonal: jax.Array

    @property
    def structure(self) -> Diagonal:
        """``Diagonal()``."""
        return Diagonal()

    @property
    def dim(self) -> int:
        """The number of rows."""
        return self.diagonal.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes."""
        return self.diagonal.shape[:-1]

    def to_dense(self) -> jax.Array:
        """The diagonal, with zeros around it."""
        return self.diagonal[..., :, None] * jnp.eye(self.dim, dtype=self.dtype)

    def multiply(
        self, other: "DiagonalMatrix", *, precision: Precision = HIGHEST
    ) -> "DiagonalMatrix":
        """A B, entry by entry."""
        return DiagonalMatrix(
            contract("...i,...i->...i", self.diagonal, other.diagonal, precision=precision)
        )

    def matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """A X: the rows of X, scaled."""
        return contract("...i,...ik->...ik", self.diagonal, x, precision=precision)

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """Aᵀ X = A X."""
        return self.matmul(x, precision=precision)

    def gram(
        self, rows: jax.Array | None = None, *, precision: Precision = HIGHEST
    ) -> "DiagonalMatrix":
        """Squares of the diagonal, times the sums of squares of the rows' columns."""
        squares = self.multiply(self, precision=precision)
        if rows is None:
            return squares
        return squares.multiply(
            Diagonal().project_gram(rows, precision=precision), precision=precision
        )

    def gram_by_columns(
        self, columns: Columns, *, precision: Precision = HIGHEST
    ) -> "DiagonalMatrix":
        """Squares of the diagonal, times the sums of squares of the columns."""
        squares = Diagonal().project_columns(columns, precision=precision)
        return self.multiply(self, precision=precision).multiply(squares, precision=precision)

    def add_identity(self, scale: ArrayLike) -> "DiagonalMatrix":
        """A + scale I."""
        return DiagonalMatrix(self.diagonal + expand_scale(scale, self.diagonal))

    def average_trace(self) -> jax.Array:
        """The mean of the diagonal."""
        return jnp.mean(self.diagonal.astype(accumulation_dtype(self.diagonal)), axis=-1)

    def frobenius_norm(self) -> jax.Array:
        """The root of the sum of squares."""
        return jnp.sqrt(contract("...i,...i->...", self.diagonal, self.diagonal))

    def spectral_norm_bound(self, *, precision: Precision = HIGHEST) -> jax.Array:
        """The largest absolute entry, which is exact."""
        del precision
        return self.max_abs().astype(accumulation_dtype(self.diagonal))
