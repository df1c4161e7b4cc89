"""Triangular matrices that are diagonal but for a few dense rows or columns."""

import dataclasses
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax._validate import check_choice, check_flag, check_size
from singd_optax.structures._base import Structure, StructuredMatrix, drop_empty
from singd_optax.structures._numerics import HIGHEST, Precision, accumulation_dtype, contract


@dataclasses.dataclass(frozen=True)
class TriangularLowRank(Structure):
    """Block-triangular matrices with one dense k x k block and one diagonal block.

    With k = ``rank``, the dense block A, and the diagonal block D at the bottom right::

        lower  [[A, 0],    upper  [[A, B],
                [B, D]]            [0, D]]

    and with the diagonal at the top left the dense block A is at the bottom right. Off its
    diagonal such a matrix has rank k: the rank-k triangular structure of arXiv 2312.05705,
    table 1. For d rows it stores k² + k (d - k) + d - k numbers. Π(M) keeps A = M_AA and
    Diag(M_DD), and B = 2 M_B, as B stands for two blocks of M. The gram of n rows costs O(n k d), a
    product with (d, n) costs O(k d n). For d <= k this is dense.

    Attributes:
      rank: The number k of rows of the dense block, >= 1.
      lower: Whether B lies below the diagonal, which is the default, or above it.
      diagonal: Where the diagonal block is, ``"bottom_right"`` (the default) or ``"top_left"``.

    Raises:
      TypeError: ``rank`` is not an int, or ``lower`` not a bool.
      ValueError: ``rank`` is not positive, or ``diagonal`` unknown.

    >>> TriangularLowRank(1).project_gram(jnp.ones((4, 3))).to_dense()
    Array([[4., 0., 0.],
           [8., 4., 0.],
           [8., 0., 4.]], dtype=float32)
    """

    rank: int
    _: dataclasses.KW_ONLY
    lower: bool = True
    diagonal: Literal["bottom_right", "top_left"] = "bottom_right"

    def __post_init__(self) -> None:
        check_size("rank", self.rank)
        check_flag("lower", self.lower)
        check_choice("diagonal", self.diagonal, ("bottom_right", "top_left"))

    def eye(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "TriangularLowRankMatrix":
        """The identity of size ``dim``, repeated over ``batch_shape``."""
        k = min(self.rank, dim)
        return self._make(
            jnp.broadcast_to(jnp.eye(k, dtype=dtype), (*batch_shape, k, k)),
            jnp.zeros((*batch_shape, k, dim - k), dtype),
            jnp.ones((*batch_shape, dim - k), dtype),
        )

    def zeros(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "TriangularLowRankMatrix":
        """The zero matrix of size ``dim``, repeated over ``batch_shape``."""
        k = min(self.rank, dim)
        shapes = (k, k), (k, dim - k), (dim - k,)
        return self._make(*(jnp.zeros(batch_shape + shape, dtype) for shape in shapes))

    def project(self, symmetric: jax.Array) -> "TriangularLowRankMatrix":
        """The projection Π of a symmetric matrix (..., dim, dim): M_AA, 2 M_B and Diag(M_DD)."""
        dense, rest = self._split(symmetric, -2)
        corner, border = self._split(dense, -1)
        square = self._split(rest, -1)[1]
        return self._make(corner, 2 * border, jnp.diagonal(square, axis1=-2, axis2=-1))

    def project_gram(
        self, rows: jax.Array, *, precision: Precision = HIGHEST
    ) -> "TriangularLowRankMatrix":
        """The gram Π(rowsᵀ rows) of rows (..., n, dim), from the columns of each block."""
        dense, rest = self._split(rows, -1)
        return self._make(
            contract("...ni,...nj->...ij", dense, dense, precision=precision),
            2 * contract("...ni,...nj->...ij", dense, rest, precision=precision),
            contract("...nj,...nj->...j", rest, rest, precision=precision),
        )

    def _split(self, x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
        """The indices of the dense block, and those of the diagonal block."""
        dim = x.shape[axis]
        k = min(self.rank, dim)
        if self.diagonal == "bottom_right":
            dense, rest = jnp.split(x, [k], axis)
        else:
            rest, dense = jnp.split(x, [dim - k], axis)
        return dense, rest

    def _join(self, dense: jax.Array, rest: jax.Array, axis: int) -> jax.Array:
        """The inverse of ``_split``."""
        pair = (dense, rest) if self.diagonal == "bottom_right" else (rest, dense)
        return jnp.concatenate(pair, axis)

    def _make(
        self, corner: jax.Array, border: jax.Array, diagonal: jax.Array
    ) -> "TriangularLowRankMatrix":
        return TriangularLowRankMatrix(corner, drop_empty(border, 2), drop_empty(diagonal, 1), self)


@flax.struct.dataclass
class TriangularLowRankMatrix(StructuredMatrix):
    """A triangular matrix with one dense and one diagonal block, or a batch of them.

    Attributes:
      corner: The dense block A, (..., k, k).
      border: The block B, (..., k, dim - k), or its transpose: entry [i, j] couples index i of the
        dense block with index j of the diagonal one, whichever is the row. None for dim <= k.
      diagonal: The diagonal of D, (..., dim - k); None for dim <= k.
      kind: The structure, ``TriangularLowRank(rank, ...)``.
    """

    corner: jax.Array
    border: jax.Array | None
    diagonal: jax.Array | None
    kind: TriangularLowRank = flax.struct.field(pytree_node=False)

    @property
    def structure(self) -> TriangularLowRank:
        """The structure: ``TriangularLowRank(rank, ...)``."""
        return self.kind

    @property
    def dim(self) -> int:
        """The number of rows, which is that of columns."""
        return self.corner.shape[-1] + (0 if self.diagonal is None else self.diagonal.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading batch axes, ``()`` for a single matrix."""
        return self.corner.shape[:-2]

    def to_dense(self) -> jax.Array:
        """The entries (..., dim, dim): the blocks, with zeros around them."""
        corner, border, diagonal = self._parts()
        square = diagonal[..., :, None] * jnp.eye(diagonal.shape[-1], dtype=self.dtype)
        beside, below = border, jnp.zeros_like(jnp.swapaxes(border, -1, -2))
        if not self._is_wide:
            beside, below = jnp.zeros_like(border), jnp.swapaxes(border, -1, -2)
        return self.kind._join(
            self.kind._join(corner, beside, -1), self.kind._join(below, square, -1), -2
        )

    def multiply(
        self, other: "TriangularLowRankMatrix", *, precision: Precision = HIGHEST
    ) -> "TriangularLowRankMatrix":
        """The product A B with a matrix of the same structure, by blocks."""
        S1, W1, d1 = self._parts()
        S2, W2, d2 = other._parts()
        if self._is_wide:
            border = contract("...ij,...jr->...ir", S1, W2, precision=precision)
            border += contract("...ir,...r->...ir", W1, d2, precision=precision)
        else:
            border = contract("...ji,...jr->...ir", S2, W1, precision=precision)
            border += contract("...ir,...r->...ir", W2, d1, precision=precision)
        return self.kind._make(
            contract("...ij,...jk->...ik", S1, S2, precision=precision),
            border,
            contract("...r,...r->...r", d1, d2, precision=precision),
        )

    def matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product A X with an array X of shape (..., dim, n), by blocks."""
        return self._apply(x, "ij", self._is_wide, precision)

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product Aᵀ X with an array X of shape (..., dim, n), by blocks."""
        return self._apply(x, "ji", not self._is_wide, precision)

    def gram(
        self, rows: jax.Array | None = None, *, precision: Precision = HIGHEST
    ) -> "TriangularLowRankMatrix":
        """The gram Π(Aᵀ rowsᵀ rows A) of rows (..., n, dim); if they are None, Π(AᵀA) by blocks."""
        if rows is not None:
            turned = self.transpose_matmul(jnp.swapaxes(rows, -1, -2), precision=precision)
            return self.kind.project_gram(jnp.swapaxes(turned, -1, -2), precision=precision)
        S, W, d = self._parts()
        corner = contract("...ji,...jk->...ik", S, S, precision=precision)
        diagonal = contract("...r,...r->...r", d, d, precision=precision)
        if self._is_wide:
            border = contract("...ji,...jr->...ir", S, W, precision=precision)
            diagonal += contract("...ir,...ir->...r", W, W, precision=precision)
        else:
            border = contract("...ir,...r->...ir", W, d, precision=precision)
            corner += contract("...ir,...jr->...ij", W, W, precision=precision)
        return self.kind._make(corner, 2 * border, diagonal)

    def average_trace(self) -> jax.Array:
        """The mean of the diagonal, Tr A / dim, of shape ``batch_shape``, at least float32."""
        return self.trace() / self.dim

    def frobenius_norm(self) -> jax.Array:
        """The Frobenius norm, of shape ``batch_shape``, at least float32."""
        return jnp.sqrt(self.sum_of_squares())

    def trace(self) -> jax.Array:
        """The trace Tr A, of shape ``batch_shape``, at least float32; 0 for a matrix of no rows."""
        corner, _, diagonal = self._parts()
        ends = jnp.diagonal(corner, axis1=-2, axis2=-1), diagonal
        first, second = (end.astype(accumulation_dtype(corner)).sum(-1) for end in ends)
        return first + second

    def sum_of_squares(self) -> jax.Array:
        """The square of the Frobenius norm, of shape ``batch_shape``; it has a gradient at zero."""
        corner, border, diagonal = self._parts()
        squares = contract("...ij,...ij->...", corner, corner)
        squares += contract("...ij,...ij->...", border, border)
        return squares + contract("...r,...r->...", diagonal, diagonal)

    @property
    def _is_wide(self) -> bool:
        """Whether the border is rows beside the dense block, and not columns above or below it."""
        return self.kind.lower == (self.kind.diagonal == "top_left")

    def _parts(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Corner, border and diagonal, empty ones as arrays."""
        if self.border is None or self.diagonal is None:
            return self.corner, self.corner[..., :0], self.corner.sum(-1)[..., :0]
        return self.corner, self.border, self.diagonal

    def _apply(self, x: jax.Array, corner: str, wide: bool, precision: Precision) -> jax.Array:
        S, W, d = self._parts()
        dense, rest = self.kind._split(x, -2)
        above = contract(f"...{corner},...jk->...ik", S, dense, precision=precision)
        below = contract("...r,...rk->...rk", d, rest, precision=precision)
        if wide:
            above += contract("...ir,...rk->...ik", W, rest, precision=precision)
        else:
            below += contract("...ir,...ik->...rk", W, dense, precision=precision)
        return self.kind._join(above, below, -2)
