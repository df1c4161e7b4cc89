"""Losses that are scaled for a backward pass in float16, and statistics that are not.

With the loss times s, every gradient is s times larger, and G = Σ g gᵀ even s² times. Squared first
and divided afterwards, that overflows. So the division goes into the factor that whitens:
Π((C/s)ᵀ (s² G) (C/s)) = Π(Cᵀ G C), whose products see g/s and no square of s.
"""

from typing import Any

import jax
import jax.numpy as jnp

from singd_optax._validate import check_number
from singd_optax.layers import CurvatureState, Statistics


def check_loss_scale(loss_scale: Any) -> None:
    """Raise unless this is None, or a positive number (which may be traced).

    Args:
      loss_scale: What the user passed.

    Raises:
      ValueError: It is not positive, or not finite.
      TypeError: It is no number.
    """
    if loss_scale is not None:
        check_number("loss_scale", loss_scale, strict=True, schedule=False)


def with_scaled_factors(
    states: dict[str, CurvatureState], loss_scale: Any
) -> dict[str, CurvatureState]:
    """The states with C/s in place of C, in at least float32."""
    if loss_scale is None:
        return states
    inverse = 1 / jnp.asarray(loss_scale, jnp.float32)
    scaled = {}
    for path, state in states.items():
        pair = state.factors[path]
        C = pair.C.astype(jnp.promote_types(pair.C.dtype, jnp.float32)) * inverse
        scaled[path] = state._replace(factors=state.factors | {path: pair._replace(C=C)})
    return scaled


def scaled_loss(result: Any, has_aux: bool, loss_scale: Any) -> Any:
    """What the loss function returned, with the loss times s."""
    if loss_scale is None:
        return result
    value, aux = result if has_aux else (result, None)
    scaled = value * jnp.asarray(loss_scale, jnp.result_type(value))
    return (scaled, aux) if has_aux else scaled


def unscaled(
    value: Any, grads: Any, statistics: dict[str, Statistics], has_aux: bool, loss_scale: Any
) -> tuple[Any, Any, dict[str, Statistics]]:
    """Value, gradients and statistics as if the loss had not been scaled.

    Only the traces of G are still s² times too large: they are sums in float32, so that they
    overflow later than any gradient in float16 does.
    """
    if loss_scale is None:
        return value, grads, statistics

    def divide(leaf: jax.Array) -> jax.Array:
        wide = jnp.promote_types(leaf.dtype, jnp.float32)
        return (leaf.astype(wide) / jnp.asarray(loss_scale, wide)).astype(leaf.dtype)

    value = (divide(value[0]), value[1]) if has_aux else divide(value)
    statistics = {
        path: measured._replace(mean_G=divide(divide(measured.mean_G)))
        for path, measured in statistics.items()
    }
    return value, jax.tree.map(divide, grads), statistics
