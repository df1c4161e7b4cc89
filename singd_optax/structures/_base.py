"""The two contracts: a structure makes matrices, a structured matrix computes with itself."""

import abc
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from singd_optax.structures._numerics import HIGHEST, Precision, accumulation_dtype

_POWER_ITERATIONS = 8
_POWER_COLUMNS = 4
_POWER_MARGIN = 1.1

Matrix = TypeVar("Matrix", bound="StructuredMatrix")


class Structure(abc.ABC):
    """A class of square matrices, closed under addition and multiplication.

    A structure is a frozen, hashable description without arrays, such as ``Dense()``. Sub-classes
    are frozen dataclasses that validate their arguments and print as the call that makes them.
    Every method takes leading batch axes, for layers that are stacked.
    """

    @abc.abstractmethod
    def eye(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "StructuredMatrix":
        """The identity of size ``dim``, repeated over ``batch_shape``."""

    @abc.abstractmethod
    def zeros(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "StructuredMatrix":
        """The zero matrix of size ``dim``, repeated over ``batch_shape``."""

    @abc.abstractmethod
    def project(self, symmetric: jax.Array) -> "StructuredMatrix":
        """The projection Π of a symmetric matrix (..., dim, dim) onto this structure.

        Π is the one of the SINGD paper (arXiv 2312.05705, Table 1): where one stored number
        stands for two entries of the symmetric matrix it is doubled, and Tr Π(M) = Tr M.
        """

    @abc.abstractmethod
    def project_gram(
        self, rows: jax.Array, *, precision: Precision = HIGHEST
    ) -> "StructuredMatrix":
        """Π(rowsᵀ rows) for rows (..., n, dim), without forming it unless this is dense.

        The sum over rows accumulates, and is returned, in float32 (float64 for float64 rows).
        """


class StructuredMatrix(abc.ABC):
    """A square matrix (or a batch of them) that stores what its structure needs, and no more.

    Sub-classes are frozen pytree dataclasses whose fields are arrays with the same leading batch
    axes; there is one class a structure. Element-wise operations work on the stored numbers and
    are written once, here. Contractions return at least float32, whatever the dtype of the
    factors: ``astype`` narrows the result for storage.
    """

    # -- what a structure must say ---------------------------------------------------------

    @property
    @abc.abstractmethod
    def structure(self) -> Structure:
        """The structure that this matrix belongs to."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """The number of rows, and of columns."""

    @property
    @abc.abstractmethod
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes, ``()`` for a single matrix."""

    @abc.abstractmethod
    def to_dense(self) -> jax.Array:
        """The entries as an array (..., dim, dim)."""

    @abc.abstractmethod
    def multiply(self, other: Self, *, precision: Precision = HIGHEST) -> Self:
        """The product with a matrix of the same structure; ``A @ B``."""

    @abc.abstractmethod
    def matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """A X for an array (..., dim, n); ``A @ X``."""

    @abc.abstractmethod
    def transpose_matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """Aᵀ X for an array (..., dim, n)."""

    @abc.abstractmethod
    def gram(self, rows: jax.Array | None = None, *, precision: Precision = HIGHEST) -> Self:
        """Π(Aᵀ rowsᵀ rows A) for rows (..., n, dim); Π(Aᵀ A) without rows."""

    @abc.abstractmethod
    def add_identity(self, scale: ArrayLike) -> Self:
        """A + scale I, with one scale, or one for each matrix of the batch."""

    @abc.abstractmethod
    def average_trace(self) -> jax.Array:
        """Tr A / dim, of shape ``batch_shape``, at least float32."""

    @abc.abstractmethod
    def frobenius_norm(self) -> jax.Array:
        """The Frobenius norm, of shape ``batch_shape``, at least float32."""

    # -- what follows ----------------------------------------------------------------------

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the stored numbers."""
        return jax.tree.leaves(self)[0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes stored, over the whole batch."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self))

    def astype(self, dtype: DTypeLike) -> Self:
        """The same matrix with its numbers cast."""
        return jax.tree.map(lambda leaf: leaf.astype(dtype), self)

    def max_abs(self) -> jax.Array:
        """The largest stored absolute value, of shape ``batch_shape``."""
        axes = len(self.batch_shape)
        largest = [
            jnp.max(jnp.abs(leaf), axis=tuple(range(axes, leaf.ndim)), initial=0)
            for leaf in jax.tree.leaves(self)
        ]
        return jnp.stack(largest).max(axis=0)

    def spectral_norm_bound(self, *, precision: Precision = HIGHEST) -> jax.Array:
        """The largest singular value to about ten percent, from above, of shape ``batch_shape``.

        Power iteration on AᵀA from a few fixed random columns approaches the norm from below;
        a margin of ten percent is added, and the Frobenius norm (a bound at any rate) caps it.
        It costs a few products with thin matrices: next to nothing beside a refresh.
        """
        accumulate = accumulation_dtype(*jax.tree.leaves(self))
        shape = (*self.batch_shape, self.dim, _POWER_COLUMNS)
        start = jax.random.normal(jax.random.key(0), shape[-2:], accumulate)

        def normalize(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            norm = jnp.sqrt(jnp.sum(x * x, axis=-2, keepdims=True))
            return x / jnp.where(norm > 0, norm, 1), norm

        def iterate(_: int, x: jax.Array) -> jax.Array:
            image, _norm = normalize(self.matmul(x, precision=precision))
            back, _norm = normalize(self.transpose_matmul(image, precision=precision))
            return back

        x, _norm = normalize(jnp.broadcast_to(start, shape))
        x = jax.lax.fori_loop(0, _POWER_ITERATIONS, iterate, x)
        _, norms = normalize(self.matmul(x, precision=precision))
        return jnp.minimum(_POWER_MARGIN * norms.max(axis=(-2, -1)), self.frobenius_norm())

    def __add__(self, other: Self) -> Self:
        """The sum with a matrix of the same structure."""
        if not self._matches(other):
            return NotImplemented
        return jax.tree.map(jnp.add, self, other)

    def __sub__(self, other: Self) -> Self:
        """The difference from a matrix of the same structure."""
        if not self._matches(other):
            return NotImplemented
        return jax.tree.map(jnp.subtract, self, other)

    def __mul__(self, scale: ArrayLike) -> Self:
        """The product with one scalar, or one for each matrix of the batch."""
        if isinstance(scale, StructuredMatrix):
            return NotImplemented
        return jax.tree.map(lambda leaf: leaf * expand_scale(scale, leaf), self)

    __rmul__ = __mul__

    def __matmul__(self, other: Any) -> Any:
        """``A @ B`` for a matrix of the same structure, ``A @ X`` for an array (..., dim, n)."""
        if isinstance(other, StructuredMatrix):
            return self.multiply(other) if self._matches(other) else NotImplemented
        return self.matmul(other)

    def _matches(self, other: object) -> bool:
        return isinstance(other, StructuredMatrix) and other.structure == self.structure


def expand_scale(scale: ArrayLike, leaf: jax.Array) -> jax.Array:
    """A scale of shape () or ``batch_shape`` in the dtype of ``leaf``, ready to broadcast."""
    array = jnp.asarray(scale)
    if jnp.issubdtype(array.dtype, jnp.floating):
        dtype = leaf.dtype if array.weak_type else jnp.promote_types(array.dtype, leaf.dtype)
    else:
        dtype = leaf.dtype
    return array.astype(dtype).reshape(
        array.shape + (1,) * (leaf.ndim - array.ndim) * (array.ndim > 0)
    )
