"""Contractions and roundings whose dtype and precision never depend on global settings."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

#: Anything that ``jax.numpy.einsum`` takes as its ``precision``.
Precision = str | lax.Precision | None

HIGHEST: Precision = "highest"

_TINY = 2.0**-64
_FEW = 8192


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
    """The ``einsum`` of arrays, which accumulates in, and returns, at least float32.

    Operands of one low-precision dtype stay in it (their products are exact in float32 and
    that is what matrix units are fast at); operands of several dtypes are promoted first.

    Args:
      subscripts: What ``jax.numpy.einsum`` takes, such as ``"...ij,...jk->...ik"``.
      *operands: The arrays.
      precision: What ``jax.numpy.einsum`` takes, by default "highest".

    Returns:
      The contraction, in float32, or in float64 if an operand is.
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


def is_finite(x: jax.Array, leading: int) -> jax.Array:
    """Whether all numbers are finite, for each index of the first axes.

    By a sum of numbers that are scaled down so far that it cannot overflow: it is finite if and
    only if they are. For XLA's compiler for CPUs a sum of many numbers, as a product, is a call of
    a library; a test of each number is code, which took 40 to 60 ms to make, here 1 to 10.

    Args:
      x: An array of floats.
      leading: How many of its first axes are kept.

    >>> is_finite(jnp.array([[1e38, 3e38], [1.0, jnp.inf]]), 1)
    Array([ True, False], dtype=bool)
    """
    accumulate = accumulation_dtype(x)
    if x.size > _FEW:
        total = jnp.sum(x.astype(accumulate) * _TINY, axis=tuple(range(leading, x.ndim)))
        return jnp.isfinite(total)
    # Of few numbers a sum is code, too, and so is a product with one column.
    numbers = x.reshape(*x.shape[:leading], -1).astype(accumulate)
    tiny = jnp.full((numbers.shape[-1], 2), _TINY, accumulate)
    return jnp.isfinite(contract("...i,ik->...k", numbers, tiny)[..., 0])


def stochastic_round(x: jax.Array, dtype: DTypeLike, key: jax.Array) -> jax.Array:
    """Round to a narrower dtype, up or down at random, so that the expected value is ``x``.

    Rounding to nearest loses every update below half a unit in the last place (2^-9 of an entry
    in bfloat16), step after step; rounded at random they survive in the mean.

    Args:
      x: A float32 or float64 array.
      dtype: The dtype to round to. Only bfloat16 is rounded to at random; numbers are cast to the
        nearest one of any other dtype.
      key: A random key, as ``jax.random.key`` makes it.

    Returns:
      ``x`` in ``dtype``, of the same shape; entries that are not finite are kept.

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
