"""Condition numbers of structured matrices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from singd_optax._validate import check_size
from singd_optax.structures import StructuredMatrix
from singd_optax.structures._in_turn import decomposed

_ITERATIONS = 30
_COLUMNS = 4


def condition_number(matrix: StructuredMatrix, *, exact_dim: int = 256) -> jax.Array:
    """The condition number: the largest singular value of a matrix over the smallest.

    Matrices of up to ``exact_dim`` rows are decomposed. The condition number of larger ones is
    estimated from below, by products alone: with σ from power iteration on AᵀA, power iteration on
    σ² I - AᵀA finds σ² - σ_min². The smallest singular value so comes out too large, and the
    condition number too small: take it as a sign of growth. In float32 such an estimate ends at
    about 10³.

    Args:
      matrix: A structured matrix, for example a factor of a layer; it may be stacked.
      exact_dim: The largest number of rows of a matrix that is decomposed.

    Returns:
      An array of shape ``matrix.batch_shape``, at least float32. The condition number of the
      preconditioner K Kᵀ is the square of that of K.

    Raises:
      ValueError: ``exact_dim`` is below 1.

    >>> from singd_optax.structures import DiagonalMatrix
    >>> condition_number(DiagonalMatrix(jnp.array([1.0, -2.0, 8.0])))
    Array(8., dtype=float32)
    """
    check_size("exact_dim", exact_dim)
    matrix = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
    if matrix.dim <= exact_dim:
        values = _singular_values(matrix.to_dense())
        return values[..., 0] / values[..., -1]

    def product(x: jax.Array) -> jax.Array:
        return matrix.transpose_matmul(matrix.matmul(x))

    largest = _largest_eigenvalue(product, matrix)
    shift = largest[..., None, None]
    gap = _largest_eigenvalue(lambda x: shift * x - product(x), matrix)
    floor = largest * jnp.finfo(largest.dtype).eps
    return jnp.sqrt(largest / jnp.maximum(largest - gap, floor))


@jax.jit  # called without jit, the loop over matrices would be compiled on each call
def _singular_values(dense: jax.Array) -> jax.Array:
    """The singular values of (..., rows, columns), descending."""
    return decomposed(lambda each: jnp.linalg.svd(each, compute_uv=False), dense)


def _largest_eigenvalue(
    product: Callable[[jax.Array], jax.Array], matrix: StructuredMatrix
) -> jax.Array:
    """Of a positive semi-definite operator, by power iteration from fixed random columns."""
    shape = (*matrix.batch_shape, matrix.dim, _COLUMNS)
    start = jax.random.normal(jax.random.key(0), shape[-2:], matrix.dtype)

    def normalized(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        norm = jnp.sqrt(jnp.sum(x * x, axis=-2, keepdims=True))
        return x / jnp.where(norm > 0, norm, 1), norm

    def iterate(_: int, x: jax.Array) -> jax.Array:
        return normalized(product(x))[0]

    x, _ = normalized(jnp.broadcast_to(start, shape))
    x = jax.lax.fori_loop(0, _ITERATIONS, iterate, x)
    return normalized(product(x))[1].max(axis=(-2, -1))
