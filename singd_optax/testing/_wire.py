"""Arrays on their way to the host and back.

A call to the host that is needed has an effect, so that no two are taken for one. JAX's callbacks
run in threads of their own, in which ``jax.enable_x64`` of the caller's thread is not in force:
float64 would be cut to float32 there. So it travels as pairs of uint32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental import io_callback

from singd_optax._types import PyTree


def ask(
    host: Callable[..., PyTree],
    shapes: tuple[tuple[int, ...], ...],
    dtype: PyTree,
    arrays: tuple[jax.Array, ...],
    is_needed: bool = True,
) -> list[jax.Array]:
    """Arrays of these shapes from the host, which gets others.

    Args:
      host: Called with the arrays in numpy, real numbers in float64. Each ``vmap`` around adds a
        leading axis to all of them and to what is returned: of size 1 to those that it does not
        map, and of its own size to all others, and to what is returned.
      shapes: The shapes of what is returned, without these axes.
      dtype: The dtype of what comes back.
      arrays: The arrays that are sent.
      is_needed: Whether the host is called though nothing depends on what it returns.
    """
    dtypes = [array.dtype for array in arrays]

    def hear(*sent: PyTree) -> PyTree:
        got = [_arrived(array, of) for array, of in zip(sent, dtypes, strict=True)]
        return tuple(_answer(part, dtype) for part in host(*got))

    def along(lanes: tuple[int, ...]) -> PyTree:
        types = tuple(_answer_type(lanes + shape, dtype) for shape in shapes)

        @custom_vmap
        def send(*packed: jax.Array) -> PyTree:
            call = io_callback if is_needed else jax.pure_callback
            return call(hear, types, *packed)

        @send.def_vmap
        def _(size: int, batched: list[bool], *packed: jax.Array) -> PyTree:
            wide = [x if b else x[None] for x, b in zip(packed, batched, strict=True)]
            return along((size, *lanes))(*wide), (True,) * len(shapes)

        return send

    return [_unpacked(part, dtype) for part in along(())(*map(_packed, arrays))]


def _packed(array: PyTree) -> PyTree:
    """An array as it travels to the host."""
    if array.dtype == np.float64:
        return jax.lax.bitcast_convert_type(array, jnp.uint32)
    if array.dtype in (np.int64, np.uint64):
        return array.astype(jnp.int32)  # indices
    return array


def _arrived(array: PyTree, dtype: PyTree) -> np.ndarray:
    """What was packed, on the host: real numbers in float64, integers as they are."""
    array = np.asarray(array)
    if jnp.issubdtype(dtype, jnp.floating):
        return _as_float64(array) if dtype == np.float64 else array.astype(np.float64)
    return array


def _answer(array: np.ndarray, dtype: PyTree) -> np.ndarray:
    """A result, in float64, as it travels back."""
    if dtype != np.float64:
        return array.astype(dtype)
    return np.ascontiguousarray(array)[..., None].view(np.uint32)


def _answer_type(shape: tuple[int, ...], dtype: PyTree) -> jax.ShapeDtypeStruct:
    """What an answer of this shape is while it travels."""
    if dtype != np.float64:
        return jax.ShapeDtypeStruct(shape, dtype)
    return jax.ShapeDtypeStruct((*shape, 2), jnp.uint32)


def _unpacked(array: jax.Array, dtype: PyTree) -> jax.Array:
    """The answer, where it arrived."""
    return jax.lax.bitcast_convert_type(array, dtype) if dtype == np.float64 else array


def _as_float64(pairs: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pairs).view(np.float64)[..., 0]
