"""The two contracts: a structure makes matrices, a structured matrix computes with itself."""

import abc
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from singd_optax.structures._columns import Columns
from singd_optax.structures._fallback import read_entries, warn_dense
from singd_optax.structures._numerics import HIGHEST, Precision, accumulation_dtype, contract
from singd_optax.structures._spectral import power_iteration_bound


class Structure(abc.ABC):
    """A set of square matrices, closed under addition and multiplication.

    A structure is a frozen, hashable description without arrays, such as ``Dense()``. Sub-classes
    are frozen dataclasses that validate their arguments and print as the call that makes them.
    Every method takes leading batch axes (written ... in shapes), for layers that are stacked.

    A structure of your own needs ``project``, and a matrix class with ``structure`` and
    ``to_dense``. All else then works by dense arithmetic, which warns with a
    ``PerformanceWarning`` that names the method to override. Test it by
    ``singd_optax.testing.check_structure``.

    Example:
      Multiples of the identity, which share one number among all entries of the diagonal:

      >>> import dataclasses, flax.struct
      >>> from singd_optax.structures import Structure, StructuredMatrix
      >>> @dataclasses.dataclass(frozen=True)
      ... class Scalar(Structure):
      ...     def project(self, symmetric):
      ...         diagonal = jnp.diagonal(symmetric, axis1=-2, axis2=-1)
      ...         return ScalarMatrix(diagonal.mean(-1), symmetric.shape[-1])
      >>> @flax.struct.dataclass
      ... class ScalarMatrix(StructuredMatrix):
      ...     value: jax.Array
      ...     size: int = flax.struct.field(pytree_node=False)
      ...     @property
      ...     def structure(self):
      ...         return Scalar()
      ...     def to_dense(self):
      ...         return self.value[..., None, None] * jnp.eye(self.size, dtype=self.value.dtype)
      >>> import warnings
      >>> with warnings.catch_warnings(record=True) as caught:
      ...     warnings.simplefilter("always")
      ...     (Scalar().eye(3) * 2.0).gram().value
      Array(4., dtype=float32)
      >>> print(caught[-1].message)
      ScalarMatrix.gram falls back on dense arithmetic, with dim x dim entries. ...
    """

    @abc.abstractmethod
    def project(self, symmetric: jax.Array) -> "StructuredMatrix":
        """The projection Π of a symmetric matrix (..., dim, dim) onto this structure.

        Π is the one of the SINGD paper (arXiv 2312.05705, Table 1): where one stored number
        stands for two entries of the symmetric matrix it is doubled, and Tr Π(M) = Tr M.
        """

    def eye(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "StructuredMatrix":
        """The identity of size ``dim``, repeated over ``batch_shape``."""
        warn_dense(self, "eye")
        eye = jnp.broadcast_to(jnp.eye(dim, dtype=dtype), (*batch_shape, dim, dim))
        return self.project(eye).astype(dtype)

    def zeros(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "StructuredMatrix":
        """The zero matrix of size ``dim``, repeated over ``batch_shape``."""
        warn_dense(self, "zeros")
        return self.project(jnp.zeros((*batch_shape, dim, dim), dtype)).astype(dtype)

    def project_gram(
        self, rows: jax.Array, *, precision: Precision = HIGHEST
    ) -> "StructuredMatrix":
        """The gram Π(rowsᵀ rows) of rows (..., n, dim), projected onto this structure.

        The matrix rowsᵀ rows itself is formed only where this structure is dense. The sum over
        rows accumulates, and is returned, in float32 (float64 for float64 rows).
        """
        warn_dense(self, "project_gram")
        return self.project(contract("...ni,...nj->...ij", rows, rows, precision=precision))

    def project_columns(
        self, columns: Columns, *, precision: Precision = HIGHEST
    ) -> "StructuredMatrix":
        """The gram Π(rowsᵀ rows), as ``project_gram``, of rows that are formed on demand."""
        return columns.accumulate(lambda rows: self.project_gram(rows, precision=precision))

    def from_dense(self, dense: jax.Array) -> "StructuredMatrix":
        """The matrix with these entries (..., dim, dim), which must lie in this structure.

        Unlike ``project`` it takes matrices that are not symmetric, such as products, and
        ``from_dense(A.to_dense())`` is A; entries outside of the structure are ignored. It is
        derived from ``to_dense``, whose every entry must be zero, or one stored number times a
        constant. Override it for a structure whose entries are sums of stored numbers.
        """
        return read_entries(self.project(jnp.zeros_like(dense)), dense)

    def resolve(self, dim: int, *, bias: bool = False) -> "Structure":
        """The structure that a factor of this size gets: this one, unless it chooses, as ``Auto``.

        Args:
          dim: The number of rows of the factor.
          bias: Whether one of these rows is a layer's bias, which a choice by size should not
            count.
        """
        del dim, bias
        return self


class StructuredMatrix(abc.ABC):
    """A square matrix (or a batch of them) that stores what its structure needs, and no more.

    Sub-classes are frozen pytree dataclasses whose fields are arrays with the same leading batch
    axes (None, where a small dim leaves a part without entries); each structure has one class.
    Element-wise operations work on the stored numbers and are written once, here. Contractions
    return at least float32, whatever the dtype of the stored numbers: ``astype`` narrows the
    result for storage.

    Below, A is this matrix, and Π the projection onto its structure (``Structure.project``).
    ``precision`` is that of ``jax.numpy.einsum``, "highest" by default.
    """

    # -- what a structure must say ---------------------------------------------------------

    @property
    @abc.abstractmethod
    def structure(self) -> Structure:
        """The structure that this matrix belongs to."""

    @abc.abstractmethod
    def to_dense(self) -> jax.Array:
        """The entries as an array (..., dim, dim), linear in the stored numbers."""

    # -- what it should say: here it is dense arithmetic -------------------------------------

    @property
    def dim(self) -> int:
        """The number of rows, which is that of columns."""
        return self._dense_shape()[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading batch axes, ``()`` for a single matrix."""
        return self._dense_shape()[:-2]

    def multiply(self, other: Self, *, precision: Precision = HIGHEST) -> Self:
        """The product A B with a matrix of the same structure; also written ``A @ B``."""
        warn_dense(self, "multiply")
        entries = self.to_dense(), other.to_dense()
        product = contract("...ij,...jk->...ik", *entries, precision=precision)
        return self._like(self.structure.from_dense(product))

    def matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product A X with an array X of shape (..., dim, n); also written ``A @ X``."""
        warn_dense(self, "matmul")
        return contract("...ij,...jk->...ik", self.to_dense(), x, precision=precision)

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product Aᵀ X with an array X of shape (..., dim, n)."""
        warn_dense(self, "transpose_matmul")
        return contract("...ji,...jk->...ik", self.to_dense(), x, precision=precision)

    def gram(self, rows: jax.Array | None = None, *, precision: Precision = HIGHEST) -> Self:
        """The gram Π(Aᵀ rowsᵀ rows A) of rows (..., n, dim); if they are None, Π(Aᵀ A)."""
        warn_dense(self, "gram")
        turned = self.to_dense()
        if rows is not None:
            turned = contract("...ni,...ij->...nj", rows, turned, precision=precision)
        gram = contract("...ni,...nj->...ij", turned, turned, precision=precision)
        return self._like(self.structure.project(gram))

    def average_trace(self) -> jax.Array:
        """The mean of the diagonal, Tr A / dim, of shape ``batch_shape``, at least float32."""
        warn_dense(self, "average_trace")
        diagonal = jnp.diagonal(self.to_dense(), axis1=-2, axis2=-1)
        return jnp.mean(diagonal.astype(accumulation_dtype(diagonal)), axis=-1)

    def frobenius_norm(self) -> jax.Array:
        """The Frobenius norm, of shape ``batch_shape``, at least float32."""
        warn_dense(self, "frobenius_norm")
        entries = self.to_dense()
        return jnp.sqrt(contract("...ij,...ij->...", entries, entries))

    # -- what follows ----------------------------------------------------------------------

    def gram_by_columns(self, columns: Columns, *, precision: Precision = HIGHEST) -> Self:
        """The gram Π(Aᵀ rowsᵀ rows A) of rows that are formed on demand, for a single matrix A."""
        return columns.accumulate(lambda rows: self.gram(rows, precision=precision))

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the stored numbers."""
        return jax.tree.leaves(self)[0].dtype

    @property
    def nbytes(self) -> int:
        """The number of bytes stored, over the whole batch."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self))

    def astype(self, dtype: DTypeLike) -> Self:
        """The same matrix with its stored numbers cast to ``dtype``."""
        return jax.tree.map(lambda leaf: leaf.astype(dtype), self)

    def add_identity(self, scale: ArrayLike) -> Self:
        """The sum A + scale I, with one scale, or one for each matrix of the batch."""
        eye = self.structure.eye(self.dim, self.dtype, self.batch_shape)
        return self + self._like(eye * scale)

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

        It is found by power iteration with a few thin products, which cost next to nothing beside
        a refresh of factors.
        """
        return power_iteration_bound(self, precision)

    def __add__(self, other: Self) -> Self:
        """The sum A + B with a matrix of the same structure."""
        if not self._matches(other):
            return NotImplemented
        return jax.tree.map(jnp.add, self, other)

    def __sub__(self, other: Self) -> Self:
        """The difference A - B from a matrix of the same structure."""
        if not self._matches(other):
            return NotImplemented
        return jax.tree.map(jnp.subtract, self, other)

    def __mul__(self, scale: ArrayLike) -> Self:
        """The product with one scalar, or with one for each matrix of the batch."""
        if isinstance(scale, StructuredMatrix):
            return NotImplemented
        return jax.tree.map(lambda leaf: leaf * expand_scale(scale, leaf), self)

    __rmul__ = __mul__

    def __matmul__(self, other: Any) -> Any:
        """A B for a matrix B of the same structure, or A X for an array X (..., dim, n)."""
        if isinstance(other, StructuredMatrix):
            return self.multiply(other) if self._matches(other) else NotImplemented
        return self.matmul(other)

    def _matches(self, other: object) -> bool:
        return isinstance(other, StructuredMatrix) and other.structure == self.structure

    def _dense_shape(self) -> tuple[int, ...]:
        return jax.eval_shape(lambda matrix: matrix.to_dense(), self).shape

    def _like(self, other: "StructuredMatrix") -> Self:
        if not isinstance(other, type(self)):
            raise TypeError(
                f"{self.structure!r} must make matrices of one class, got {type(other).__name__} "
                f"where {type(self).__name__} was expected. Let `project` and `from_dense` of "
                f"{type(self.structure).__name__} return {type(self).__name__}."
            )
        return other


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


def drop_empty(part: jax.Array, axes: int) -> jax.Array | None:
    """A part with its last ``axes`` axes not empty; else None, as orbax refuses empty arrays."""
    return None if 0 in part.shape[part.ndim - axes :] else part
