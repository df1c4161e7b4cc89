"""Inverses and eigenvectors of structured matrices that have them in their own structure."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg
from jax import lax

from singd_optax.rules._roots import eigh
from singd_optax.structures import (
    BlockDiagonal,
    BlockDiagonalMatrix,
    Dense,
    DenseMatrix,
    Diagonal,
    DiagonalMatrix,
    Structure,
    StructuredMatrix,
)
from singd_optax.structures._in_turn import decomposed

#: The structures whose inverses are symmetric, and in the same structure.
INVERTIBLE = (Dense, Diagonal, BlockDiagonal)


class Eigen(NamedTuple):
    """The decomposition M = V diag(values) Vᵀ of a symmetric matrix.

    Attributes:
      vectors: V, the eigenvectors, in the structure of M.
      values: The eigenvalues, (..., dim).
    """

    vectors: StructuredMatrix
    values: jax.Array


def check_invertible(structure: Structure, path: str) -> None:
    """Raise unless matrices of this structure have inverses in the same structure.

    Args:
      structure: The structure of a factor.
      path: The path of its layer, for the message.

    Raises:
      ValueError: The structure has no inverses in it.
    """
    if not isinstance(structure, INVERTIBLE):
        raise ValueError(
            "The rule inverts its factors, or finds their eigenvectors, so that structures must be "
            f"'dense', 'diagonal' or 'block_diagonal:k' with a size k, got {structure!r} for layer "
            f"{path!r}. Use layers.replace({path!r}, structures='dense'), or singd, which inverts "
            "nothing."
        )


def inverse(matrix: StructuredMatrix) -> StructuredMatrix:
    """The inverse of a symmetric positive definite matrix, by Cholesky, block by block.

    Args:
      matrix: A dense, block-diagonal or diagonal matrix.

    Returns:
      The inverse, in the same structure; NaN if the matrix is not positive definite.

    Raises:
      TypeError: The matrix has another structure.
    """
    if isinstance(matrix, DiagonalMatrix):
        return DiagonalMatrix(1 / matrix.diagonal)
    _check_blocks(matrix)
    return jax.tree.map(_inverse_of_blocks, matrix)


def inverse_of_small(blocks: jax.Array) -> jax.Array:
    """Inverses of many small symmetric positive definite matrices (..., k, k), all at once.

    By Gauss-Jordan elimination, which needs no pivoting for these: k steps, each of operations on
    all entries of all matrices. So it has no call of a library, which would take them one by one.
    A matrix that is not positive definite has an inverse of NaN.

    >>> inverse_of_small(jnp.array([[[2.0, 1.0], [1.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]]))
    Array([[[ 1., -1.],
            [-1.,  2.]],
    <BLANKLINE>
           [[nan, nan],
            [nan, nan]]], dtype=float32)
    """
    indices = jnp.arange(blocks.shape[-1])

    def eliminate(index: jax.Array, matrix: jax.Array) -> jax.Array:
        at = lambda array, axis: lax.dynamic_index_in_dim(array, index, axis)
        row, column = at(matrix, -2), at(matrix, -1)
        pivot = at(row, -1)
        here = indices == index
        row = jnp.where(here, 1, row) / jnp.where(pivot > 0, pivot, jnp.nan)
        rest = jnp.where(here, 0, matrix) - column * row
        return jnp.where(here[:, None], row, rest)

    inverted: jax.Array = lax.fori_loop(0, blocks.shape[-1], eliminate, blocks)
    return inverted


def inverse_factor(matrix: StructuredMatrix) -> StructuredMatrix:
    """F with F Fᵀ = M^-1, upper triangular in each block; arguments are those of ``inverse``.

    >>> inverse_factor(DiagonalMatrix(jnp.array([4.0]))).diagonal
    Array([0.5], dtype=float32)
    """
    if isinstance(matrix, DiagonalMatrix):
        return DiagonalMatrix(jnp.sqrt(1 / matrix.diagonal))
    _check_blocks(matrix)
    return jax.tree.map(lambda blocks: jnp.swapaxes(_half_of_blocks(blocks), -1, -2), matrix)


def eigen(matrix: StructuredMatrix) -> Eigen:
    """The eigenvectors and eigenvalues of a symmetric matrix, block by block.

    Args:
      matrix: A dense, block-diagonal or diagonal matrix.

    Raises:
      TypeError: The matrix has another structure.
    """
    if isinstance(matrix, DiagonalMatrix):
        return Eigen(DiagonalMatrix(jnp.ones_like(matrix.diagonal)), matrix.diagonal)
    _check_blocks(matrix)
    blocks, treedef = jax.tree.flatten(matrix)
    pairs = [eigh(block) for block in blocks]
    stack = matrix.batch_shape
    values = [each.reshape(*stack, -1) for each, _ in pairs]
    vectors = jax.tree.unflatten(treedef, [each for _, each in pairs])
    return Eigen(vectors, jnp.concatenate(values, axis=-1))


def _check_blocks(matrix: StructuredMatrix) -> None:
    if not isinstance(matrix, DenseMatrix | BlockDiagonalMatrix):
        raise TypeError(
            "A matrix must be dense, block-diagonal or diagonal to have an inverse in its own "
            f"structure, got a {type(matrix).__name__}. To make it dense, write "
            "DenseMatrix(matrix.to_dense())."
        )


def _half_of_blocks(blocks: jax.Array) -> jax.Array:
    """The inverse of the lower Cholesky factor; on a CPU one by one, see ``in_turn``."""
    return decomposed(_half_of_each, blocks)


def _half_of_each(blocks: jax.Array) -> jax.Array:
    lower = jnp.linalg.cholesky(blocks)
    eye = jnp.broadcast_to(jnp.eye(blocks.shape[-1], dtype=blocks.dtype), blocks.shape)
    return jax.scipy.linalg.solve_triangular(lower, eye, lower=True)


def _inverse_of_blocks(blocks: jax.Array) -> jax.Array:
    half = _half_of_blocks(blocks)
    return jnp.einsum("...ki,...kj->...ij", half, half, precision="highest")
