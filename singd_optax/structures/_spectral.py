"""The spectral norm of a matrix that is known by its products only."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from singd_optax.structures._numerics import Precision, accumulation_dtype

if TYPE_CHECKING:
    from singd_optax.structures._base import StructuredMatrix

_ITERATIONS = 8
_COLUMNS = 4
_MARGIN = 1.1


def power_iteration_bound(matrix: "StructuredMatrix", precision: Precision) -> jax.Array:
    """The largest singular value to about ten percent, from above, of shape ``batch_shape``.

    Power iteration on AᵀA from a few fixed random columns approaches the norm from below;
    a margin of ten percent is added, and the Frobenius norm (a bound at any rate) caps it.
    """
    accumulate = accumulation_dtype(*jax.tree.leaves(matrix))
    shape = (*matrix.batch_shape, matrix.dim, _COLUMNS)
    start = jax.random.normal(jax.random.key(0), shape[-2:], accumulate)

    def normalize(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        norm = jnp.sqrt(jnp.sum(x * x, axis=-2, keepdims=True))
        return x / jnp.where(norm > 0, norm, 1), norm

    def iterate(_: int, x: jax.Array) -> jax.Array:
        image, _norm = normalize(matrix.matmul(x, precision=precision))
        back, _norm = normalize(matrix.transpose_matmul(image, precision=precision))
        return back

    x, _norm = normalize(jnp.broadcast_to(start, shape))
    x = jax.lax.fori_loop(0, _ITERATIONS, iterate, x)
    _, norms = normalize(matrix.matmul(x, precision=precision))
    return jnp.minimum(_MARGIN * norms.max(axis=(-2, -1)), matrix.frobenius_norm())
