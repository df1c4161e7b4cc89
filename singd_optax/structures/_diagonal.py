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
    """Diagonal matrices: d numbers for d rows, and Π(M) = Diag(M).

    The gram of n rows costs O(n d), and so does a product with (d, n).

    >>> Diagonal().project_gram(jnp.ones((3, 2))).to_dense()
    Array([[3., 0.],
           [0., 3.]], dtype=float32)
    """

    def eye(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "DiagonalMatrix":
        """The identity of size ``dim``, repeated over ``batch_shape``."""
        return DiagonalMatrix(jnp.ones((*batch_shape, dim), dtype))

    def zeros(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "DiagonalMatrix":
        """The zero matrix of size ``dim``, repeated over ``batch_shape``."""
        return DiagonalMatrix(jnp.zeros((*batch_shape, dim), dtype))

    def project(self, symmetric: jax.Array) -> "DiagonalMatrix":
        """The projection Π of a symmetric matrix (..., dim, dim): its diagonal."""
        return DiagonalMatrix(jnp.diagonal(symmetric, axis1=-2, axis2=-1))

    def project_gram(self, rows: jax.Array, *, precision: Precision = HIGHEST) -> "DiagonalMatrix":
        """The gram Π(rowsᵀ rows) of rows (..., n, dim): the sums of squares of their columns."""
        return DiagonalMatrix(contract("...ni,...ni->...i", rows, rows, precision=precision))

    def project_columns(
        self, columns: Columns, *, precision: Precision = HIGHEST
    ) -> "DiagonalMatrix":
        """The gram of rows on demand: sums of squares, for which no row is formed."""
        return DiagonalMatrix(columns.squares(precision=precision))


@flax.struct.dataclass
class DiagonalMatrix(StructuredMatrix):
    """A diagonal matrix, or a batch of them.

    Attributes:
      diagonal: The entries of the diagonal, (..., dim).
    """

    diagonal: jax.Array

    @property
    def structure(self) -> Diagonal:
        """The structure: ``Diagonal()``."""
        return Diagonal()

    @property
    def dim(self) -> int:
        """The number of rows, which is that of columns."""
        return self.diagonal.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading batch axes, ``()`` for a single matrix."""
        return self.diagonal.shape[:-1]

    def to_dense(self) -> jax.Array:
        """The entries (..., dim, dim): the diagonal, with zeros around it."""
        return self.diagonal[..., :, None] * jnp.eye(self.dim, dtype=self.dtype)

    def multiply(
        self, other: "DiagonalMatrix", *, precision: Precision = HIGHEST
    ) -> "DiagonalMatrix":
        """The product A B with a diagonal matrix, entry by entry."""
        return DiagonalMatrix(
            contract("...i,...i->...i", self.diagonal, other.diagonal, precision=precision)
        )

    def matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product A X with X of shape (..., dim, n): the rows of X, scaled."""
        return contract("...i,...ik->...ik", self.diagonal, x, precision=precision)

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product Aᵀ X = A X with an array X of shape (..., dim, n)."""
        return self.matmul(x, precision=precision)

    def gram(
        self, rows: jax.Array | None = None, *, precision: Precision = HIGHEST
    ) -> "DiagonalMatrix":
        """The gram Π(Aᵀ rowsᵀ rows A) of rows (..., n, dim); if they are None, AᵀA.

        It has the squares of the diagonal, times the sums of squares of the rows' columns.
        """
        squares = self.multiply(self, precision=precision)
        if rows is None:
            return squares
        return squares.multiply(
            Diagonal().project_gram(rows, precision=precision), precision=precision
        )

    def gram_by_columns(
        self, columns: Columns, *, precision: Precision = HIGHEST
    ) -> "DiagonalMatrix":
        """The gram Π(Aᵀ rowsᵀ rows A) of rows that are formed on demand, from sums of squares."""
        squares = Diagonal().project_columns(columns, precision=precision)
        return self.multiply(self, precision=precision).multiply(squares, precision=precision)

    def add_identity(self, scale: ArrayLike) -> "DiagonalMatrix":
        """The sum A + scale I, with one scale, or one for each matrix of the batch."""
        return DiagonalMatrix(self.diagonal + expand_scale(scale, self.diagonal))

    def average_trace(self) -> jax.Array:
        """The mean of the diagonal, Tr A / dim, of shape ``batch_shape``."""
        return jnp.mean(self.diagonal.astype(accumulation_dtype(self.diagonal)), axis=-1)

    def frobenius_norm(self) -> jax.Array:
        """The Frobenius norm, of shape ``batch_shape``, at least float32."""
        return jnp.sqrt(contract("...i,...i->...", self.diagonal, self.diagonal))

    def spectral_norm_bound(self, *, precision: Precision = HIGHEST) -> jax.Array:
        """The largest absolute entry, which is the spectral norm itself."""
        del precision
        return self.max_abs().astype(accumulation_dtype(self.diagonal))
