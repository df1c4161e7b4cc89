"""Contractions and roundings whose dtype and precision never depend on global settings."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

#: Anything that ``jax.numpy.einsum`` takes as its ``precision``.
Precision = str | lax.Precision | None

HIGHEST: Precision = "highest"


def accumulation_dtype(*arrays: ArrayLike) -> jnp.dtype:
    """The dtype in which products of these arrays are summed: float32, or float64 if one is.

    >>> accumulation_dtype(jnp.ones(2, jnp.bfloat16)).name
    'float32'
    """
    dtype = jnp.dtype(jnp.float32)
    for array in arrays:
        dtype = jnp.promote_types(dtype, jnp.asarray(array).dtype)
    return dtype


def contract(subscripts: str, *operands: jax.Array, precision: Precision = HIGHEST) -> jax.Array:
    """``einsum`` that accumulates, and returns, at least float32.

    Operands of one low-precision dtype stay in it (their products are exact in float32 and
    that is what matrix units are fast at); operands of several dtypes are promoted first.
    """
    accumulate = accumulation_dtype(*operands)

    def product(*operands: jax.Array) -> jax.Array:
        return jnp.einsum(
            subscripts, *operands, precision=precision, preferred_element_type=accumulate
        )

    def promoted(*operands: jax.Array) -> jax.Array:
        return product(*(operand.astype(accumulate) for operand in operands))

    dtypes = {operand.dtype for operand in operands}
    if dtypes == {accumulate}:
        return product(*operands)
    if len(dtypes) > 1:
        return promoted(*operands)
    # XLA promotes these on CPUs, but loses it where it merges the product with a transposition of
    # the result, and then fails as the program runs ("Unsupported element type for DotThunk").
    return lax.platform_dependent(*operands, cpu=promoted, default=product)


def stochastic_round(x: jax.Array, dtype: DTypeLike, key: jax.Array) -> jax.Array:
    """Round to a narrower dtype, up or down at random, so that the expected value is ``x``.

    Rounding to nearest loses every update below half a unit in the last place (2^-9 of an entry
    in bfloat16), step after step; rounded at random they survive in the mean.

    Args:
      x: A float32 or float64 array.
      dtype: The target. Only bfloat16 is rounded at random; other dtypes are cast to nearest.
      key: A random key, as ``jax.random.key`` makes it.

    Returns:
      ``x`` in ``dtype``; non-finite entries are kept.

    >>> x = jnp.full(20_000, 1 + 2.0**-10)
    >>> rounded = stochastic_round(x, jnp.bfloat16, jax.random.key(0)).astype(jnp.float32)
    >>> sorted({float(v) for v in rounded})
    [1.0, 1.0078125]
    >>> abs(float(rounded.mean()) - (1 + 2.0**-10)) < 1e-4
    True
    """
    target = jnp.dtype(dtype)
    if target != jnp.dtype(jnp.bfloat16) or x.dtype == target:
        return x.astype(target)
    # bfloat16 is the upper half of a float32: noise below the cut carries into it.
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    upper = ((bits + noise) >> 16).astype(jnp.uint16)
    rounded = lax.bitcast_convert_type(upper, jnp.bfloat16)
    return jnp.where(jnp.isfinite(x), rounded, x.astype(jnp.bfloat16))
