"""Block-diagonal matrices: every block is a small dense matrix of its own."""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax._validate import check_flag, check_size
from singd_optax.structures._base import Structure, StructuredMatrix
from singd_optax.structures._block_sizes import Groups, balanced_blocks, full_blocks_first
from singd_optax.structures._columns import Columns
from singd_optax.structures._numerics import HIGHEST, Precision, accumulation_dtype, contract


@dataclasses.dataclass(frozen=True)
class BlockDiagonal(Structure):
    """Dense blocks of about k x k along the diagonal, all of about the same size.

    With k = ``block_size`` and d rows it stores about k d numbers; Π(M) keeps the blocks of M
    (arXiv 2312.05705, table 1). The gram of n rows costs O(n k d), a product with (d, n) costs
    O(k d n). For d <= k this is dense.

    Blocks of one size are one array, and every operation is one batched operation. Where k does not
    divide d, as with a bias's row, full blocks would leave a last one that needs an operation of
    its own, of 1 x 1 for d = 1025 and k = 256. So the least number of blocks from ⌈(d - 1) / k⌉ to
    4 d / 3 k is taken that divides d, here 5 blocks of 205 rows; and if none does, ⌈(d - 1) / k⌉
    blocks whose sizes differ by at most one, which are two arrays: 256, 256, 257 for d = 769. So
    blocks have at most k rows, but for one with k + 1, and that only if k >= 8
    (``benchmarks/blocks.py``). A mesh splits an array of blocks by blocks, if their number allows.

    Attributes:
      block_size: The number k of rows of a block, >= 1.
      balanced: Whether the sizes of blocks are as said, which is the default. False is the rule of
        the authors' package, and of its names (``"block30diagonal"``): full blocks, and one block
        for the rows that are left.

    Raises:
      TypeError: ``block_size`` is not an int, or ``balanced`` not a bool.
      ValueError: ``block_size`` is not positive.

    >>> BlockDiagonal(2).project_gram(jnp.ones((4, 3))).to_dense()
    Array([[4., 0., 0.],
           [0., 4., 4.],
           [0., 4., 4.]], dtype=float32)
    """

    block_size: int
    balanced: bool = dataclasses.field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        check_size("block_size", self.block_size)
        check_flag("balanced", self.balanced)

    def __repr__(self) -> str:
        """The call that makes it."""
        rule = "" if self.balanced else ", balanced=False"
        return f"{type(self).__name__}(block_size={self.block_size}{rule})"

    def eye(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "BlockDiagonalMatrix":
        """The identity of size ``dim``, repeated over ``batch_shape``."""
        return self._from_groups(
            [
                jnp.broadcast_to(jnp.eye(size, dtype=dtype), (*batch_shape, count, size, size))
                for count, size in self._sizes(dim)
            ]
        )

    def zeros(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> "BlockDiagonalMatrix":
        """The zero matrix of size ``dim``, repeated over ``batch_shape``."""
        return self._from_groups(
            [
                jnp.zeros((*batch_shape, count, size, size), dtype)
                for count, size in self._sizes(dim)
            ]
        )

    def project(self, symmetric: jax.Array) -> "BlockDiagonalMatrix":
        """The projection Π of a symmetric matrix (..., dim, dim): its blocks."""
        groups, start = [], 0
        for count, size in self._sizes(symmetric.shape[-1]):
            stop = start + count * size
            part = symmetric[..., start:stop, start:stop]
            part = part.reshape(*part.shape[:-2], count, size, count, size)
            # The blocks are a diagonal, over the two axes that count blocks.
            groups.append(jnp.moveaxis(jnp.diagonal(part, axis1=-4, axis2=-2), -1, -3))
            start = stop
        return self._from_groups(groups)

    def project_gram(
        self, rows: jax.Array, *, precision: Precision = HIGHEST
    ) -> "BlockDiagonalMatrix":
        """The gram Π(rowsᵀ rows) of rows (..., n, dim), from each block's columns alone."""
        groups, start = [], 0
        for count, size in self._sizes(rows.shape[-1]):
            stop = start + count * size
            part = rows[..., start:stop].reshape(*rows.shape[:-1], count, size)
            groups.append(contract("...nbi,...nbj->...bij", part, part, precision=precision))
            start = stop
        return self._from_groups(groups)

    def project_columns(
        self, columns: Columns, *, precision: Precision = HIGHEST
    ) -> "BlockDiagonalMatrix":
        """The gram of rows that are formed on demand, from the columns of one block at a time."""
        groups, start = [], 0
        for count, size in self._sizes(columns.shape[1]):
            form = functools.partial(_gram, precision=precision)
            each = functools.partial(columns.accumulate, form, size=size)
            groups.append(jax.lax.map(each, start + size * jnp.arange(count)))
            start += count * size
        return self._from_groups(groups)

    def _sizes(self, dim: int) -> Groups:
        """One group of equal blocks, or two."""
        rule = balanced_blocks if self.balanced else full_blocks_first
        return rule(dim, self.block_size)

    def _from_groups(self, groups: list[jax.Array]) -> "BlockDiagonalMatrix":
        first, rest = (*groups, None)[:2]
        assert first is not None
        return BlockDiagonalMatrix(first, rest, self.block_size, self.balanced)


def _gram(rows: jax.Array, precision: Precision) -> jax.Array:
    return contract("ni,nj->ij", rows, rows, precision=precision)


@flax.struct.dataclass
class BlockDiagonalMatrix(StructuredMatrix):
    """A block-diagonal matrix, or a batch of them.

    Attributes:
      blocks: The blocks of the first size, (..., count, size, size).
      rest: The blocks of a second size, of such a shape; None if all blocks are of one size.
      block_size: The ``block_size`` of the structure.
      balanced: The ``balanced`` of the structure.
    """

    blocks: jax.Array
    rest: jax.Array | None
    block_size: int = flax.struct.field(pytree_node=False)
    balanced: bool = flax.struct.field(pytree_node=False, default=True)

    @property
    def structure(self) -> BlockDiagonal:
        """The structure: ``BlockDiagonal(block_size, balanced=balanced)``."""
        return BlockDiagonal(self.block_size, balanced=self.balanced)

    @property
    def dim(self) -> int:
        """The number of rows, which is that of columns."""
        return sum(group.shape[-3] * group.shape[-1] for group in self._groups())

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading batch axes, ``()`` for a single matrix."""
        return self.blocks.shape[:-3]

    def to_dense(self) -> jax.Array:
        """The entries (..., dim, dim): the blocks, with zeros around them."""
        dense = jnp.zeros((*self.batch_shape, self.dim, self.dim), self.dtype)
        start = 0
        for group in self._groups():
            count, size = group.shape[-3], group.shape[-1]
            apart = jnp.eye(count, dtype=self.dtype)[:, None, :, None]
            square = (group[..., :, :, None, :] * apart).reshape(
                *self.batch_shape, count * size, count * size
            )
            stop = start + count * size
            dense = dense.at[..., start:stop, start:stop].set(square)
            start = stop
        return dense

    def multiply(
        self, other: "BlockDiagonalMatrix", *, precision: Precision = HIGHEST
    ) -> "BlockDiagonalMatrix":
        """The product A B with a matrix of the same structure, block by block."""
        return self.structure._from_groups(
            [
                contract("...ij,...jk->...ik", a, b, precision=precision)
                for a, b in zip(self._groups(), other._groups(), strict=True)
            ]
        )

    def matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product A X with X of shape (..., dim, n): each block times its rows of X."""
        return self._each("...ij,...jk->...ik", x, precision)

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = HIGHEST) -> jax.Array:
        """The product Aᵀ X with X of shape (..., dim, n): each block transposed times its rows."""
        return self._each("...ji,...jk->...ik", x, precision)

    def gram(
        self, rows: jax.Array | None = None, *, precision: Precision = HIGHEST
    ) -> "BlockDiagonalMatrix":
        """The gram Π(Aᵀ rowsᵀ rows A) of rows (..., n, dim); if they are None, AᵀA.

        The products are taken in the order that is cheaper for this many rows.
        """
        if rows is not None and rows.shape[-2] <= 2 * self.blocks.shape[-1]:
            turned = self.transpose_matmul(jnp.swapaxes(rows, -1, -2), precision=precision)
            return self.structure.project_gram(jnp.swapaxes(turned, -1, -2), precision=precision)
        if rows is None:
            halves = self
        else:
            halves = self.structure.project_gram(rows, precision=precision).multiply(
                self, precision=precision
            )
        return self.structure._from_groups(
            [
                contract("...ji,...jk->...ik", block, half, precision=precision)
                for block, half in zip(self._groups(), halves._groups(), strict=True)
            ]
        )

    def gram_by_columns(
        self, columns: Columns, *, precision: Precision = HIGHEST
    ) -> "BlockDiagonalMatrix":
        """The gram Π(Aᵀ rowsᵀ rows A) of rows on demand, from the columns of a block at a time."""

        def block_gram(start_and_block: tuple[jax.Array, jax.Array]) -> jax.Array:
            start, block = start_and_block
            own = BlockDiagonalMatrix(block[None], None, self.block_size, self.balanced)

            def form(rows: jax.Array) -> jax.Array:
                return own.gram(rows, precision=precision).blocks[0]

            return columns.accumulate(form, start, block.shape[-1])

        groups, start = [], 0
        for group in self._groups():
            count, size = group.shape[-3], group.shape[-1]
            starts = start + size * jnp.arange(count)
            groups.append(jax.lax.map(block_gram, (starts, group)))
            start += count * size
        return self.structure._from_groups(groups)

    def average_trace(self) -> jax.Array:
        """The mean of the diagonal, Tr A / dim, of shape ``batch_shape``, at least float32."""
        diagonals = [jnp.diagonal(group, axis1=-2, axis2=-1) for group in self._groups()]
        wide = accumulation_dtype(self.blocks)
        traces = [diagonal.astype(wide).sum((-2, -1)) for diagonal in diagonals]
        return jnp.stack(traces).sum(0) / self.dim

    def frobenius_norm(self) -> jax.Array:
        """The Frobenius norm, of shape ``batch_shape``, at least float32."""
        squares = [contract("...bij,...bij->...", group, group) for group in self._groups()]
        return jnp.sqrt(jnp.stack(squares).sum(0))

    def _groups(self) -> list[jax.Array]:
        """Groups of equal blocks, each (..., count, size, size)."""
        return [self.blocks] if self.rest is None else [self.blocks, self.rest]

    def _each(self, subscripts: str, x: jax.Array, precision: Precision) -> jax.Array:
        parts, start = [], 0
        for group in self._groups():
            count, size = group.shape[-3], group.shape[-1]
            part = x[..., start : start + count * size, :]
            part = part.reshape(*x.shape[:-2], count, size, x.shape[-1])
            image = contract(subscripts, group, part, precision=precision)
            parts.append(image.reshape(*image.shape[:-3], count * size, x.shape[-1]))
            start += count * size
        return jnp.concatenate(parts, axis=-2)
