"""All matrices: the structure of INGD, IKFAC and KFAC."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from singd_optax.structures._base import Structure, StructuredMatrix, expand_scale
from singd_optax.structures._columns import Columns
from singd_optax.structures._numerics import HIGHEST, Precision, accumulation_dtype, contract


@dataclasses.dataclass(frozen=True)
class Dense(Structure):
    """All matrices: d² numbers for d rows, and Π(M) = M.

    The gram of n rows costs O(n d² + d³), a product with (d, n) costs O(d² n).

    >>> Dense().project_gram(jnp.ones((3, 2))).to_dense()
    Array([[3., 3.],
           [3., 3.]], dtype=float32)
    """

    def eye(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "DenseMatrix":
        """The identity of size ``dim``, repeated over ``batch_shape``."""
        return DenseMatrix(jnp.broadcast_to(jnp.eye(dim, dtype=dtype), (*batch_shape, dim, dim)))

    def zeros(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "DenseMatrix":
        """The zero matrix of size ``dim``, repeated over ``batch_shape``."""
        return DenseMatrix(jnp.zeros((*batch_shape, dim, dim), dtype))

    def project(self, symmetric: jax.Array) -> "DenseMatrix":
        """The projection Π of a symmetric matrix (..., dim, dim): the matrix itself."""
        return DenseMatrix(symmetric)

    def project_gram(self, rows: jax.Array, *, precision: Precision = HIGHEST) -> "DenseMatrix":
        """The gram rowsᵀ rows of rows (..., n, dim), at least float32."""
        return DenseMatrix(contract("...ni,...nj->...ij", rows, rows, precision=precision))


@flax.struct.dataclass
class DenseMatrix(StructuredMatrix):
    """A dense matrix, or a batch of them.

    Attributes:
      entries: The entries, (..., dim, dim).
    """

    entries: jax.Array

    @property
    def structure(self) -> Dense:
        """The structure: ``Dense()``."""
        return Dense()

    @property
    def dim(self) -> int:
        """The number of rows, which is that of columns."""
        return self.entries.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading batch axes, ``()`` for a single matrix."""
        return self.entries.shape[:-2]

    def to_dense(self) -> jax.Array:
        """The entries, (..., dim, dim)."""
        return self.entries

    def multiply(self, other: "DenseMatrix", *, precision: Precision = HIGHEST) -> "DenseMatrix":
        """The product A B with a matrix of the same structure."""
        return DenseMatrix(self.matmul(other.entries, precision=precision))

    def matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product A X with an array X of shape (..., dim, n)."""
        return contract("...ij,...jk->...ik", self.entries, x, precision=precision)

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product Aᵀ X with an array X of shape (..., dim, n)."""
        return contract("...ji,...jk->...ik", self.entries, x, precision=precision)

    def gram(
        self, rows: jax.Array | None = None, *, precision: Precision = HIGHEST
    ) -> "DenseMatrix":
        """The gram Aᵀ rowsᵀ rows A of rows (..., n, dim); if they are None, AᵀA.

        The products are taken in the order that is cheaper for this many rows.
        """
        if rows is None:
            return Dense().project_gram(self.entries, precision=precision)
        if rows.shape[-2] <= 2 * self.dim:
            turned = contract("...ni,...ij->...nj", rows, self.entries, precision=precision)
            return Dense().project_gram(turned, precision=precision)
        return self._turn(Dense().project_gram(rows, precision=precision), precision)

    def gram_by_columns(self, columns: Columns, *, precision: Precision = HIGHEST) -> "DenseMatrix":
        """The gram Aᵀ rowsᵀ rows A of rows that are formed on demand."""
        if columns.shape[0] <= 2 * self.dim:
            return super().gram_by_columns(columns, precision=precision)
        return self._turn(Dense().project_columns(columns, precision=precision), precision)

    def _turn(self, moment: StructuredMatrix, precision: Precision) -> "DenseMatrix":
        half = moment.matmul(self.entries, precision=precision)
        return DenseMatrix(self.transpose_matmul(half, precision=precision))

    def add_identity(self, scale: ArrayLike) -> "DenseMatrix":
        """The sum A + scale I, with one scale, or one for each matrix of the batch."""
        eye = jnp.eye(self.dim, dtype=self.dtype)
        return DenseMatrix(self.entries + expand_scale(scale, self.entries) * eye)

    def average_trace(self) -> jax.Array:
        """The mean of the diagonal, Tr A / dim, of shape ``batch_shape``."""
        # A sum of everything is a call of a library on CPUs; to gather the diagonal is code.
        diagonal = jnp.where(jnp.eye(self.dim, dtype=bool), self.entries, 0)
        return diagonal.sum((-2, -1), dtype=accumulation_dtype(self.entries)) / self.dim

    def frobenius_norm(self) -> jax.Array:
        """The Frobenius norm, of shape ``batch_shape``, at least float32."""
        return jnp.sqrt(contract("...ij,...ij->...", self.entries, self.entries))
