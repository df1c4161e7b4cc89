"""The spectral norm of a matrix that is known by its products only."""

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from singd_optax.structures._numerics import Precision, accumulation_dtype, contract

if TYPE_CHECKING:
    from singd_optax.structures._base import StructuredMatrix

_ITERATIONS = 8
_COLUMNS = 4
_MARGIN = 1.1
_EXPONENT = 120  # 2^-120 and 2^120 are normal numbers of float32


@functools.partial(jax.jit, static_argnums=1)  # so that factors of one size are traced once
def power_iteration_bound(matrix: "StructuredMatrix", precision: Precision) -> jax.Array:
    """The largest singular value to about ten percent, from above, of shape ``batch_shape``.

    Power iteration on AᵀA from a few fixed random columns approaches the norm from below;
    a margin of ten percent is added, and the Frobenius norm (a bound at any rate) caps it.

    Entries may be of any size: a power of two, which rounds nothing, is taken out first. A matrix
    that is not finite has a bound that is not.
    """
    accumulate = accumulation_dtype(*jax.tree.leaves(matrix))
    largest = matrix.max_abs().astype(accumulate)
    power = _power_of_two(largest)
    bound = _bound(matrix * (1 / power), precision, accumulate) * power
    return jnp.where(jnp.isfinite(largest), bound, largest)


def _power_of_two(x: jax.Array) -> jax.Array:
    """The largest power of two up to x, by its exponent's bits; within 2^-120 and 2^120.

    A function that takes a number apart in general is twice the work of the whole bound for the
    compiler.
    """
    exponent = jnp.asarray(jnp.inf, x.dtype).view(f"int{8 * x.dtype.itemsize}")
    power = (x.view(exponent.dtype) & exponent).view(x.dtype)
    return jnp.clip(power, 2.0**-_EXPONENT, 2.0**_EXPONENT)


def _bound(matrix: "StructuredMatrix", precision: Precision, accumulate: DTypeLike) -> jax.Array:
    """The bound of a matrix whose squares neither over- nor underflow."""
    shape = (*matrix.batch_shape, matrix.dim, _COLUMNS)
    # A constant, since a generator for each factor would take most of the compiler's time.
    start = jnp.asarray(np.random.default_rng(0).standard_normal(shape[-2:]), accumulate)
    frobenius = matrix.frobenius_norm()
    squared = jnp.where(frobenius > 0, frobenius, 1)[..., None, None] ** 2
    # The norm is in [‖A‖_F / √d, ‖A‖_F]: scaled by the middle, nothing over- or underflows.
    scale = matrix.dim**0.5 / squared

    def iterate(_: int, x: jax.Array) -> jax.Array:
        image = matrix.matmul(x, precision=precision) * scale
        return matrix.transpose_matmul(image, precision=precision)

    x = jax.lax.fori_loop(0, _ITERATIONS, iterate, jnp.broadcast_to(start, shape))
    image = matrix.matmul(x, precision=precision)
    # All columns as one vector: those that found the largest singular value are the longest. The
    # diagonal of a product is less work for the compiler than a sum over two axes.
    length, image_length = (
        jnp.trace(contract("...ik,...il->...kl", y, y), axis1=-2, axis2=-1) for y in (x, image)
    )
    ratio = image_length / jnp.where(length > 0, length, 1)
    bound = jnp.minimum(_MARGIN * jnp.sqrt(ratio), frobenius)
    # The mean of the squared singular values is below the largest one.
    return jnp.maximum(bound, frobenius / matrix.dim**0.5)
