"""Inverses and eigenvectors of the structured matrices that have them in their own structure."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg
from jax import lax

from singd_optax.rules._dealing import one_by_one
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

#: Structures whose inverses are in the structure again, and symmetric.
INVERTIBLE = (Dense, Diagonal, BlockDiagonal)


class Eigen(NamedTuple):
    """M = V diag(values) Vᵀ."""

    vectors: StructuredMatrix
    values: jax.Array


def check_invertible(structure: Structure, path: str) -> None:
    """Raise unless matrices of this structure have symmetric inverses in it.

    Args:
      structure: Of a factor.
      path: Of its layer.

    Raises:
      ValueError: They have not.
    """
    if not isinstance(structure, INVERTIBLE):
        raise ValueError(
            f"KFAC inverts its factors, which {structure!r} of layer {path!r} does not allow: its "
            "structure must be 'dense', 'diagonal' or 'block_diagonal:k'. Use "
            "layers.replace(..., structures=...), or singd, which inverts nothing."
        )


def inverse(matrix: StructuredMatrix) -> StructuredMatrix:
    """The inverse of a symmetric positive definite matrix, by Cholesky, block by block.

    A matrix that is not positive definite has an inverse of NaN.
    """
    if isinstance(matrix, DiagonalMatrix):
        return DiagonalMatrix(1 / matrix.diagonal)
    _check_blocks(matrix)
    return jax.tree.map(_inverse_of_blocks, matrix)


def inverse_in_turn(matrix: StructuredMatrix) -> StructuredMatrix:
    """As ``inverse``; on CPUs of one block after the other.

    There XLA hands a batch of Cholesky decompositions to the threads on which it runs the program
    itself, and waits for them: with two batches on two threads, seen with jaxlib 0.10.2, for ever.
    """
    if isinstance(matrix, DiagonalMatrix):
        return inverse(matrix)
    _check_blocks(matrix)

    def each(blocks: jax.Array) -> jax.Array:
        flat = blocks.reshape(-1, *blocks.shape[-2:])
        found: jax.Array = lax.map(one_by_one(_inverse_of_blocks), flat)
        return found.reshape(blocks.shape)

    def of(blocks: jax.Array) -> jax.Array:
        inverted: jax.Array = lax.platform_dependent(blocks, cpu=each, default=_inverse_of_blocks)
        return inverted

    return jax.tree.map(of, matrix)


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
    """F with F Fᵀ = M^-1, upper triangular in each block; likewise.

    >>> inverse_factor(DiagonalMatrix(jnp.array([4.0]))).diagonal
    Array([0.5], dtype=float32)
    """
    if isinstance(matrix, DiagonalMatrix):
        return DiagonalMatrix(jnp.sqrt(1 / matrix.diagonal))
    _check_blocks(matrix)
    return jax.tree.map(lambda blocks: jnp.swapaxes(_half_of_blocks(blocks), -1, -2), matrix)


def eigen(matrix: StructuredMatrix) -> Eigen:
    """Eigenvectors and eigenvalues (..., dim) of a symmetric matrix, block by block."""
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
        raise TypeError(f"No inverse of {type(matrix).__name__} in its own structure.")


def _half_of_blocks(blocks: jax.Array) -> jax.Array:
    """The inverse of the Cholesky factor."""
    lower = jnp.linalg.cholesky(blocks)
    eye = jnp.broadcast_to(jnp.eye(blocks.shape[-1], dtype=blocks.dtype), blocks.shape)
    return jax.scipy.linalg.solve_triangular(lower, eye, lower=True)


def _inverse_of_blocks(blocks: jax.Array) -> jax.Array:
    half = _half_of_blocks(blocks)
    return jnp.einsum("...ki,...kj->...ij", half, half, precision="highest")
