"""The identity: a side that has no factor."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from singd_optax.structures._base import Structure, StructuredMatrix
from singd_optax.structures._columns import Columns
from singd_optax.structures._numerics import HIGHEST, Precision


@dataclasses.dataclass(frozen=True)
class Identity(Structure):
    """The identity I alone: no numbers, for a side that is not preconditioned.

    One-sided methods (FOOF, one-sided Shampoo) have it on one side, and large dims of any method
    may have it: ``Auto(max_dense_dim=1024, otherwise=Identity())``. It is the group of the one
    element I, so whatever is done to its matrix leaves it as it is: sums, multiples, projections.
    Rules that need the trace of a second moment on this side take its mean, which is measured
    beside (``Statistics.mean_U`` and ``mean_G``).

    >>> eye = Identity().eye(3)
    >>> (eye @ jnp.ones((3, 1))).sum(), jax.tree.leaves(eye), (eye * 2.0).average_trace()
    (Array(3., dtype=float32), [], Array(1., dtype=float32))
    """

    def eye(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "IdentityMatrix":
        """The identity of size ``dim``; a batch of them is this one matrix."""
        del batch_shape
        return IdentityMatrix(dim, jnp.dtype(dtype).name)

    def zeros(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "IdentityMatrix":
        """The identity of size ``dim``, as this structure has no other matrix."""
        return self.eye(dim, dtype, batch_shape)

    def project(self, symmetric: jax.Array) -> "IdentityMatrix":
        """The identity of the size of ``symmetric``, whatever its entries."""
        return self.eye(symmetric.shape[-1], symmetric.dtype)

    def project_gram(self, rows: jax.Array, *, precision: Precision = HIGHEST) -> "IdentityMatrix":
        """The identity for rows (..., n, dim); no product is formed."""
        del precision
        return self.eye(rows.shape[-1], rows.dtype)

    def project_columns(
        self, columns: Columns, *, precision: Precision = HIGHEST
    ) -> "IdentityMatrix":
        """The identity for rows that are formed on demand; none is formed."""
        del precision
        return self.eye(columns.shape[1])


@flax.struct.dataclass
class IdentityMatrix(StructuredMatrix):
    """The identity I, without an array: size and dtype are static, and stacks share one matrix.

    Attributes:
      size: The number of rows.
      name: The name of the dtype.
    """

    size: int = flax.struct.field(pytree_node=False)
    name: str = flax.struct.field(pytree_node=False, default="float32")

    @property
    def structure(self) -> Identity:
        """The structure: ``Identity()``."""
        return Identity()

    @property
    def dim(self) -> int:
        """The number of rows, which is that of columns."""
        return self.size

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype that it was made with, in which ``to_dense`` writes it."""
        return jnp.dtype(self.name)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """``()``, also for a stack, whose matrices are this one."""
        return ()

    def to_dense(self) -> jax.Array:
        """The entries of the identity, (dim, dim)."""
        return jnp.eye(self.size, dtype=self.dtype)

    def astype(self, dtype: DTypeLike) -> "IdentityMatrix":
        """The identity of the same size, with another dtype."""
        return IdentityMatrix(self.size, jnp.dtype(dtype).name)

    def multiply(
        self, other: "IdentityMatrix", *, precision: Precision = HIGHEST
    ) -> "IdentityMatrix":
        """The product I I = I."""
        del other, precision
        return self

    def matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product I X = X with an array X of shape (..., dim, n)."""
        del precision
        return x

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product Iᵀ X = X with an array X of shape (..., dim, n)."""
        del precision
        return x

    def gram(
        self, rows: jax.Array | None = None, *, precision: Precision = HIGHEST
    ) -> "IdentityMatrix":
        """The identity, which is the projection of any gram."""
        del rows, precision
        return self

    def gram_by_columns(
        self, columns: Columns, *, precision: Precision = HIGHEST
    ) -> "IdentityMatrix":
        """The identity, which is the projection of any gram; no row is formed."""
        del columns, precision
        return self

    def __add__(self, other: "IdentityMatrix") -> "IdentityMatrix":
        """The identity, which is the projection of any sum."""
        return self

    def __sub__(self, other: "IdentityMatrix") -> "IdentityMatrix":
        """The identity, which is the projection of any difference."""
        return self

    def __mul__(self, scale: ArrayLike) -> "IdentityMatrix":
        """The identity, which is the projection of any multiple."""
        return self

    __rmul__ = __mul__

    def add_identity(self, scale: ArrayLike) -> "IdentityMatrix":
        """The identity, which is the projection of the sum."""
        del scale
        return self

    def average_trace(self) -> jax.Array:
        """The mean of the diagonal, which is 1."""
        return jnp.ones([])

    def max_abs(self) -> jax.Array:
        """The largest absolute entry, which is 1."""
        return jnp.ones([])

    def frobenius_norm(self) -> jax.Array:
        """The Frobenius norm, which is the root of the number of rows."""
        return jnp.sqrt(jnp.asarray(self.size, jnp.float32))

    def spectral_norm_bound(self, *, precision: Precision = HIGHEST) -> jax.Array:
        """The largest singular value, which is 1."""
        del precision
        return jnp.ones([])
