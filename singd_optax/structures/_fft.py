"""Convolutions along the last axis by real FFTs, in at least float32."""

import jax
import jax.numpy as jnp

from singd_optax.structures._numerics import accumulation_dtype


def fast_length(minimum: int) -> int:
    """The smallest length from ``minimum`` on that is 1, 3, 5, 9 or 15 times a power of two.

    FFTs of such lengths are fast everywhere, and at most an eighth longer than needed.

    >>> [fast_length(n) for n in (1, 2, 7, 33, 8191)]
    [1, 2, 8, 36, 8192]
    """
    return min(m << max(0, (-(-minimum // m) - 1).bit_length()) for m in (1, 3, 5, 9, 15))


def convolve(a: jax.Array, x: jax.Array) -> jax.Array:
    """y[i] = Σ_u a[u] x[i - u], over (..., d), with zeros outside.

    >>> convolve(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).round(2)
    Array([1., 3.], dtype=float32)
    """
    return _filter(a, x, conjugate=False)


def correlate(a: jax.Array, x: jax.Array) -> jax.Array:
    """y[i] = Σ_u a[u] x[i + u], over (..., d), with zeros outside.

    >>> correlate(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).round(2)
    Array([3., 1.], dtype=float32)
    """
    return _filter(a, x, conjugate=True)


def _filter(a: jax.Array, x: jax.Array, conjugate: bool) -> jax.Array:
    dim = x.shape[-1]
    length = fast_length(2 * dim - 1)  # so that nothing wraps around into the first dim outputs
    wide = accumulation_dtype(a, x)
    spectrum = jnp.fft.rfft(a.astype(wide), length)
    spectrum = jnp.conj(spectrum) if conjugate else spectrum
    return jnp.fft.irfft(spectrum * jnp.fft.rfft(x.astype(wide), length), length)[..., :dim]
