"""Inverses and eigenvectors of the structured matrices that have them in their own structure."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg

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
    if blocks.shape[-1] == 1:
        return jnp.where(blocks > 0, 1 / blocks, jnp.nan)
    half = _half_of_blocks(blocks)
    return jnp.einsum("...ki,...kj->...ij", half, half, precision="highest")
