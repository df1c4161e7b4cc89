"""The leading eigenvectors of large moments, from products with a few columns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from singd_optax.rules._roots import eigh
from singd_optax.structures import Precision, contract
from singd_optax.structures._in_turn import decomposed


class Leading(NamedTuple):
    """The approximation M ≈ V diag(values) Vᵀ.

    Attributes:
      vectors: V, (..., dim, rank); a column may be zero where the rank of M is smaller.
      values: The eigenvalues, descending and >= 0, (..., rank).
    """

    vectors: jax.Array
    values: jax.Array


def leading_of(
    matrix: jax.Array, columns: jax.Array, rank: int, iterations: int, precision: Precision
) -> Leading:
    """The leading eigenvectors of a matrix, found by subspace iteration.

    Args:
      matrix: M, (..., dim, dim), symmetric positive semi-definite.
      columns: The columns to begin with, (dim, rank or more), the same for all matrices.
      rank: The number of eigenvectors that are wanted.
      iterations: The number of products with M before the last one. Each makes small eigenvalues
        smaller beside large ones.
      precision: The precision of the products.
    """
    multiply = lambda x: contract("...ij,...jk->...ik", matrix, x, precision=precision)
    start = jnp.broadcast_to(columns, (*matrix.shape[:-1], columns.shape[-1]))
    Q = lax.fori_loop(0, iterations, lambda _, Q: orthonormal(multiply(Q)), orthonormal(start))
    Q = orthonormal(multiply(Q))
    small = contract("...ik,...il->...kl", Q, multiply(Q), precision=precision)
    values, turn = eigh((small + jnp.swapaxes(small, -1, -2)) / 2)
    vectors = contract("...ik,...kl->...il", Q, turn[..., ::-1][..., :rank], precision=precision)
    vectors = _with_signs(vectors, columns, precision)
    return Leading(vectors, jnp.maximum(values[..., ::-1][..., :rank], 0))


def leading_of_sketch(sketch: jax.Array, columns: jax.Array, precision: Precision) -> Leading:
    """The leading eigenvectors of M ≈ (M Ω) (Ωᵀ M Ω)^-1 (M Ω)ᵀ, which is Nyström's method.

    It is exact if Ω has as many columns as the rank of M, or more.

    Args:
      sketch: M Ω, (..., dim, rank).
      columns: Ω, (dim, rank), orthonormal.
      precision: The precision of the products.

    References:
      Tropp et al., Fixed-Rank Approximation of a Positive-Semidefinite Matrix from Streaming Data,
      NeurIPS 2017, arXiv 1706.05736, algorithm 3.
    """
    eps = jnp.finfo(sketch.dtype).eps
    size = jnp.abs(sketch).max((-2, -1), keepdims=True)
    scaled = sketch / jnp.where(size > 0, size, 1)
    shift = 4 * eps * sketch.shape[-2] ** 0.5
    shifted = scaled + shift * columns
    core = contract("ik,...il->...kl", columns, shifted, precision=precision)
    values, turn = eigh((core + jnp.swapaxes(core, -1, -2)) / 2)
    # Roots of the inverse are formed from eigenvalues, as Cholesky's method may fail.
    roots = jnp.where(values > shift / 4, 1 / jnp.sqrt(jnp.maximum(values, shift / 4)), 0)
    half = contract("...ik,...kl->...il", shifted, turn, precision=precision)
    half = half * roots[..., None, :]
    gram = contract("...ik,...il->...kl", half, half, precision=precision)
    squares, turn = eigh(gram)
    squares, turn = squares[..., ::-1], turn[..., ::-1]
    good = squares > 10 * eps * squares[..., :1]
    lengths = jnp.where(good, 1 / jnp.sqrt(jnp.where(good, squares, 1)), 0)
    vectors = contract("...ik,...kl->...il", half, turn, precision=precision)
    found = jnp.where(good, jnp.maximum(squares - shift, 0), 0) * size[..., 0]
    vectors = _with_signs(vectors * lengths[..., None, :], columns, precision)
    return Leading(vectors, found)


def _with_signs(vectors: jax.Array, columns: jax.Array, precision: Precision) -> jax.Array:
    """Eigenvectors whose signs go by a fixed column, as decompositions leave them to chance."""
    along = contract("i,...ik->...k", columns[:, 0], vectors, precision=precision)
    return jnp.where(along[..., None, :] < 0, -vectors, vectors)


def orthonormal(columns: jax.Array) -> jax.Array:
    """Q of a QR decomposition; on a CPU one matrix after the other, see ``in_turn``."""
    return decomposed(lambda x: jnp.linalg.qr(x)[0], columns)
