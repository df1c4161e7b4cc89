"""Losses that are scaled for a backward pass in float16, and statistics that are not.

With the loss times s, every gradient g is s times larger. G = Σ g gᵀ is formed in float32 whatever
the dtype of g, so that of gradients that fit into float16 (below 2^16) it is far from overflow; it
is then divided by s twice.
"""

from typing import Any

import jax
import jax.numpy as jnp

from singd_optax._validate import check_number
from singd_optax.measures import Statistics


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
    """Value, gradients and statistics as if the loss had not been scaled."""
    if loss_scale is None:
        return value, grads, statistics

    def divide(leaf: jax.Array) -> jax.Array:
        wide = jnp.promote_types(leaf.dtype, jnp.float32)
        return (leaf.astype(wide) / jnp.asarray(loss_scale, wide)).astype(leaf.dtype)

    value = (divide(value[0]), value[1]) if has_aux else divide(value)
    inverse = 1 / jnp.asarray(loss_scale, jnp.float32)
    statistics = {
        path: measured.scaled(gradients=inverse).scaled(gradients=inverse)
        for path, measured in statistics.items()
    }
    return value, jax.tree.map(divide, grads), statistics
