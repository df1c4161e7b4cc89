"""Hierarchical matrices: dense at both ends, diagonal between."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax._validate import check_size
from singd_optax.structures._base import Structure, StructuredMatrix, drop_empty
from singd_optax.structures._numerics import HIGHEST, Precision, accumulation_dtype, contract
from singd_optax.structures._triangular_low_rank import TriangularLowRank, TriangularLowRankMatrix


@dataclasses.dataclass(frozen=True)
class Hierarchical(Structure):
    """Matrices of dense rows at the top, a diagonal, and dense rows at the bottom.

    With A of k1 x k1, C diagonal and E of k2 x k2::

        [[A, B1, B2],
         [0, C,  0 ],
         [0, D,  E ]]

    For d rows it stores k1² + k1 (d - k1) + (1 + k2)(d - k1 - k2) + k2² numbers. Π(M) keeps A,
    Diag(C) and E, and doubles B and D, which stand for two blocks of M (arXiv 2312.05705, table
    1). The gram of n rows costs O(n k d), a product with (d, n) costs O(k d n), where k = k1 + k2.
    Small dims fill A first, then E (with B2), then the diagonal: for d <= k1 this is dense.

    Attributes:
      k1: The number of rows of A, >= 1.
      k2: The number of rows of E, >= 1.

    Raises:
      TypeError: ``k1`` or ``k2`` is not an int.
      ValueError: ``k1`` or ``k2`` is not positive.

    >>> Hierarchical(1, 1).project_gram(jnp.ones((2, 4))).to_dense()
    Array([[2., 4., 4., 4.],
           [0., 2., 0., 0.],
           [0., 0., 2., 0.],
           [0., 4., 4., 2.]], dtype=float32)
    """

    k1: int
    k2: int

    def __post_init__(self) -> None:
        check_size("k1", self.k1)
        check_size("k2", self.k2)

    def eye(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "HierarchicalMatrix":
        """The identity of size ``dim``, repeated over ``batch_shape``."""
        k = min(self.k1, dim)
        return self._make(
            jnp.broadcast_to(jnp.eye(k, dtype=dtype), (*batch_shape, k, k)),
            jnp.zeros((*batch_shape, k, dim - k), dtype),
            self._rest.eye(dim - k, dtype, batch_shape),
        )

    def zeros(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "HierarchicalMatrix":
        """The zero matrix of size ``dim``, repeated over ``batch_shape``."""
        k = min(self.k1, dim)
        return self._make(
            jnp.zeros((*batch_shape, k, k), dtype),
            jnp.zeros((*batch_shape, k, dim - k), dtype),
            self._rest.zeros(dim - k, dtype, batch_shape),
        )

    def project(self, symmetric: jax.Array) -> "HierarchicalMatrix":
        """The projection Π of a symmetric matrix (..., dim, dim): its blocks, with 2 B and 2 D."""
        k = min(self.k1, symmetric.shape[-1])
        return self._make(
            symmetric[..., :k, :k],
            2 * symmetric[..., :k, k:],
            self._rest.project(symmetric[..., k:, k:]),
        )

    def project_gram(
        self, rows: jax.Array, *, precision: Precision = HIGHEST
    ) -> "HierarchicalMatrix":
        """The gram Π(rowsᵀ rows) of rows (..., n, dim), from the columns of each block."""
        first, others = jnp.split(rows, [min(self.k1, rows.shape[-1])], axis=-1)
        return self._make(
            contract("...ni,...nj->...ij", first, first, precision=precision),
            2 * contract("...ni,...nj->...ij", first, others, precision=precision),
            self._rest.project_gram(others, precision=precision),
        )

    @property
    def _rest(self) -> TriangularLowRank:
        """The structure of [[C, 0], [D, E]]."""
        return TriangularLowRank(self.k2, lower=True, diagonal="top_left")

    def _make(
        self, top: jax.Array, border: jax.Array, rest: StructuredMatrix
    ) -> "HierarchicalMatrix":
        assert isinstance(rest, TriangularLowRankMatrix)
        return HierarchicalMatrix(top, drop_empty(border, 2), rest if rest.dim else None, self)


@flax.struct.dataclass
class HierarchicalMatrix(StructuredMatrix):
    """A hierarchical matrix, or a batch of them.

    Attributes:
      top: The block A, (..., k1, k1).
      border: The blocks B = [B1, B2], (..., k1, dim - k1); None for dim <= k1.
      rest: The blocks [[C, 0], [D, E]], as a triangular matrix of rank k2; None for dim <= k1.
      kind: The structure, ``Hierarchical(k1, k2)``.
    """

    top: jax.Array
    border: jax.Array | None
    rest: TriangularLowRankMatrix | None
    kind: Hierarchical = flax.struct.field(pytree_node=False)

    @property
    def structure(self) -> Hierarchical:
        """The structure: ``Hierarchical(k1, k2)``."""
        return self.kind

    @property
    def dim(self) -> int:
        """The number of rows, which is that of columns."""
        return self.top.shape[-1] + (0 if self.border is None else self.border.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading batch axes, ``()`` for a single matrix."""
        return self.top.shape[:-2]

    def to_dense(self) -> jax.Array:
        """The entries (..., dim, dim): the blocks, with zeros around them."""
        top, border, rest = self._parts()
        upper = jnp.concatenate([top, border], axis=-1)
        left = jnp.zeros_like(jnp.swapaxes(border, -1, -2))
        lower = jnp.concatenate([left, rest.to_dense()], axis=-1)
        return jnp.concatenate([upper, lower], axis=-2)

    def multiply(
        self, other: "HierarchicalMatrix", *, precision: Precision = HIGHEST
    ) -> "HierarchicalMatrix":
        """The product A B with a matrix of the same structure, by blocks."""
        top, border, rest = self._parts()
        other_top, other_border, other_rest = other._parts()
        turned = other_rest.transpose_matmul(jnp.swapaxes(border, -1, -2), precision=precision)
        return self.kind._make(
            contract("...ij,...jk->...ik", top, other_top, precision=precision),
            contract("...ij,...jk->...ik", top, other_border, precision=precision)
            + jnp.swapaxes(turned, -1, -2),
            rest.multiply(other_rest, precision=precision),
        )

    def matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product A X with an array X of shape (..., dim, n), by blocks."""
        top, border, rest = self._parts()
        first, others = jnp.split(x, [top.shape[-1]], axis=-2)
        above = contract("...ij,...jk->...ik", top, first, precision=precision)
        above += contract("...ij,...jk->...ik", border, others, precision=precision)
        return jnp.concatenate([above, rest.matmul(others, precision=precision)], axis=-2)

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product Aᵀ X with an array X of shape (..., dim, n), by blocks."""
        top, border, rest = self._parts()
        first, others = jnp.split(x, [top.shape[-1]], axis=-2)
        above = contract("...ji,...jk->...ik", top, first, precision=precision)
        below = contract("...ji,...jk->...ik", border, first, precision=precision)
        below += rest.transpose_matmul(others, precision=precision)
        return jnp.concatenate([above, below], axis=-2)

    def gram(
        self, rows: jax.Array | None = None, *, precision: Precision = HIGHEST
    ) -> "HierarchicalMatrix":
        """The gram Π(Aᵀ rowsᵀ rows A) of rows (..., n, dim); if they are None, Π(AᵀA) by blocks."""
        if rows is not None:
            turned = self.transpose_matmul(jnp.swapaxes(rows, -1, -2), precision=precision)
            return self.kind.project_gram(jnp.swapaxes(turned, -1, -2), precision=precision)
        top, border, rest = self._parts()
        return self.kind._make(
            contract("...ji,...jk->...ik", top, top, precision=precision),
            2 * contract("...ji,...jk->...ik", top, border, precision=precision),
            rest.gram(precision=precision)
            + rest.structure.project_gram(border, precision=precision),
        )

    def average_trace(self) -> jax.Array:
        """The mean of the diagonal, Tr A / dim, of shape ``batch_shape``, at least float32."""
        top, _, rest = self._parts()
        diagonal = jnp.diagonal(top, axis1=-2, axis2=-1)
        return (diagonal.astype(accumulation_dtype(top)).sum(-1) + rest.trace()) / self.dim

    def frobenius_norm(self) -> jax.Array:
        """The Frobenius norm, of shape ``batch_shape``, at least float32."""
        top, border, rest = self._parts()
        squares = contract("...ij,...ij->...", top, top)
        squares += contract("...ij,...ij->...", border, border)
        return jnp.sqrt(squares + rest.sum_of_squares())

    def _parts(self) -> tuple[jax.Array, jax.Array, TriangularLowRankMatrix]:
        """A, B and the rest, empty ones as arrays."""
        if self.border is None or self.rest is None:
            empty = self.kind._rest.zeros(0, self.dtype, self.batch_shape)
            return self.top, self.top[..., :0], empty
        return self.top, self.border, self.rest
