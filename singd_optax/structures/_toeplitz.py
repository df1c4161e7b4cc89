"""Triangular Toeplitz matrices: convolutions."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax._validate import check_flag
from singd_optax.structures._base import Structure, StructuredMatrix
from singd_optax.structures._fft import convolve, correlate, fast_length
from singd_optax.structures._numerics import HIGHEST, Precision, accumulation_dtype


@dataclasses.dataclass(frozen=True)
class TriangularToeplitz(Structure):
    """Triangular matrices that are constant along each diagonal.

    A matrix A of d rows has d numbers a: a lower one is A[i, j] = a[i - j], an upper one
    A[i, j] = a[j - i]. Π(M) has a[0] = the mean
    of the diagonal of M, and a[j] = 2 x the mean of its j-th diagonal (arXiv 2312.05705,
    table 1). All products are convolutions, done by FFTs in at least float32: the gram of n rows
    costs O(n d log d), as does a product with (d, n). No d x d array is formed. ``precision``
    has no effect on FFTs.

    Attributes:
      lower: Whether the numbers lie below the diagonal, which is the default, or above it.

    Raises:
      TypeError: ``lower`` is not a bool.

    >>> TriangularToeplitz().project(jnp.array([[1.0, 5, 7], [5, 3, 6], [7, 6, 8]])).to_dense()
    Array([[ 4.,  0.,  0.],
           [11.,  4.,  0.],
           [14., 11.,  4.]], dtype=float32)
    """

    _: dataclasses.KW_ONLY
    lower: bool = True

    def __post_init__(self) -> None:
        check_flag("lower", self.lower)

    def eye(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "TriangularToeplitzMatrix":
        """The identity of size ``dim``, repeated over ``batch_shape``: a = (1, 0, ...)."""
        unit = (jnp.arange(dim) == 0).astype(dtype)
        return TriangularToeplitzMatrix(jnp.broadcast_to(unit, (*batch_shape, dim)), self.lower)

    def zeros(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "TriangularToeplitzMatrix":
        """The zero matrix of size ``dim``, repeated over ``batch_shape``."""
        return TriangularToeplitzMatrix(jnp.zeros((*batch_shape, dim), dtype), self.lower)

    def project(self, symmetric: jax.Array) -> "TriangularToeplitzMatrix":
        """The projection Π of a symmetric matrix (..., dim, dim): means of its diagonals."""
        *batch, dim, _ = symmetric.shape
        wide = symmetric.astype(accumulation_dtype(symmetric))
        # Rows of length 2 d read as rows of length 2 d - 1 move one further each: diagonals of
        # the flipped rows become columns.
        padded = jnp.pad(wide[..., ::-1, :], [(0, 0)] * (len(batch) + 1) + [(0, dim)])
        skewed = padded.reshape(*batch, 2 * dim * dim)[..., : dim * (2 * dim - 1)]
        sums = skewed.reshape(*batch, dim, 2 * dim - 1).sum(-2)[..., dim - 1 :]
        return self._from_sums(sums).astype(symmetric.dtype)

    def project_gram(
        self, rows: jax.Array, *, precision: Precision = HIGHEST
    ) -> "TriangularToeplitzMatrix":
        """The gram Π(rowsᵀ rows) of rows (..., n, dim), from the autocorrelation of the rows.

        That is the sums of the diagonals of rowsᵀ rows.
        """
        del precision
        rows = rows.astype(accumulation_dtype(rows))
        dim = rows.shape[-1]
        length = fast_length(2 * dim - 1)
        spectrum = jnp.fft.rfft(rows, length)
        power = (spectrum.real**2 + spectrum.imag**2).sum(-2)
        return self._from_sums(jnp.fft.irfft(power, length)[..., :dim])

    def _from_sums(self, sums: jax.Array) -> "TriangularToeplitzMatrix":
        """From the sums of the diagonals of a symmetric matrix."""
        dim = sums.shape[-1]
        lengths = jnp.arange(dim, 0, -1, dtype=sums.dtype)
        means = sums / lengths
        return TriangularToeplitzMatrix(means.at[..., 1:].multiply(2), self.lower)


@flax.struct.dataclass
class TriangularToeplitzMatrix(StructuredMatrix):
    """A triangular Toeplitz matrix, or a batch of them.

    Attributes:
      coefficients: The first column of a lower matrix, the first row of an upper one, (..., dim).
      lower: Whether the numbers lie below the diagonal, or above it.
    """

    coefficients: jax.Array
    lower: bool = flax.struct.field(pytree_node=False)

    @property
    def structure(self) -> TriangularToeplitz:
        """The structure: ``TriangularToeplitz(lower=lower)``."""
        return TriangularToeplitz(lower=self.lower)

    @property
    def dim(self) -> int:
        """The number of rows, which is that of columns."""
        return self.coefficients.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading batch axes, ``()`` for a single matrix."""
        return self.coefficients.shape[:-1]

    def to_dense(self) -> jax.Array:
        """The entries (..., dim, dim): each number along its diagonal."""
        index = jnp.arange(self.dim)
        offset = index[:, None] - index[None, :] if self.lower else index[None, :] - index[:, None]
        entries = self.coefficients[..., jnp.maximum(offset, 0)]
        return jnp.where(offset >= 0, entries, jnp.zeros([], self.dtype))

    def multiply(
        self, other: "TriangularToeplitzMatrix", *, precision: Precision = HIGHEST
    ) -> "TriangularToeplitzMatrix":
        """The product A B with a matrix of the same structure: the convolution of their numbers."""
        del precision
        product = convolve(self.coefficients, other.coefficients)
        return TriangularToeplitzMatrix(product, self.lower)

    def matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product A X with X of shape (..., dim, n).

        Each column of X is convolved (lower) or correlated (upper) with the numbers.
        """
        del precision
        return jnp.swapaxes(self._filter(jnp.swapaxes(x, -1, -2), self.lower), -1, -2)

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product Aᵀ X with X of shape (..., dim, n).

        Each column of X is correlated (lower) or convolved (upper) with the numbers.
        """
        del precision
        return jnp.swapaxes(self._filter(jnp.swapaxes(x, -1, -2), not self.lower), -1, -2)

    def gram(
        self, rows: jax.Array | None = None, *, precision: Precision = HIGHEST
    ) -> "TriangularToeplitzMatrix":
        """The gram Π(Aᵀ rowsᵀ rows A) of rows (..., n, dim); if they are None, Π(AᵀA).

        AᵀA is not Toeplitz. A product a[u] a[u + j] occurs d - (u + j) times on its j-th
        diagonal, so that the sums are the correlation of a with (d - v) a[v].
        """
        if rows is not None:
            turned = self._filter(rows, not self.lower)
            return self.structure.project_gram(turned, precision=precision)
        a = self.coefficients.astype(accumulation_dtype(self.coefficients))
        weights = jnp.arange(self.dim, 0, -1, dtype=a.dtype)
        return self.structure._from_sums(correlate(a, weights * a))

    def average_trace(self) -> jax.Array:
        """The mean of the diagonal, which is its one number, of shape ``batch_shape``."""
        return self.coefficients[..., 0].astype(accumulation_dtype(self.coefficients))

    def frobenius_norm(self) -> jax.Array:
        """The Frobenius norm, of shape ``batch_shape``, at least float32."""
        a = self.coefficients.astype(accumulation_dtype(self.coefficients))
        return jnp.sqrt((jnp.arange(self.dim, 0, -1, dtype=a.dtype) * a**2).sum(-1))

    def _filter(self, signals: jax.Array, causal: bool) -> jax.Array:
        """The lower matrix of these numbers (if causal, else its transpose) on (..., n, dim)."""
        return (convolve if causal else correlate)(self.coefficients[..., None, :], signals)
