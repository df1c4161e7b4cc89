"""Grafting: the direction of one optimizer, at the length of another's step."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from singd_optax.layers import MatrixSpec
from singd_optax.rules import choose

Grafting = Literal["sgd", "rmsprop", "adam"] | None

GRAFTINGS: tuple[Grafting, ...] = (None, "sgd", "rmsprop", "adam")

_B1, _B2, _EPS = 0.9, 0.999, 1e-8


class GraftMoments(NamedTuple):
    """Moving averages of a gradient that the grafted optimizer needs.

    Attributes:
      graft_mean: Of the gradient, as a matrix; None where only the square is needed.
      graft_square: Of its square.
      graft_weights: The sums of the weights of both, (..., 2), by which they are divided.
    """

    graft_mean: jax.Array | None
    graft_square: jax.Array
    graft_weights: jax.Array


def init_graft(grafting: Grafting, spec: MatrixSpec) -> GraftMoments | None:
    """Moments of zero, or None where none are needed."""
    if grafting not in ("rmsprop", "adam"):
        return None
    shape, dtype = (*spec.stack_shape, *spec.dims), spec.statistics_dtype
    return GraftMoments(
        graft_mean=jnp.zeros(shape, dtype) if grafting == "adam" else None,
        graft_square=jnp.zeros(shape, dtype),
        graft_weights=jnp.zeros((*spec.stack_shape, 2), dtype),
    )


def graft(
    grafting: Grafting,
    moments: GraftMoments | None,
    gradient: jax.Array,
    direction: jax.Array,
    finite: jax.Array,
) -> tuple[jax.Array, GraftMoments | None]:
    """The direction, scaled to the Frobenius norm of the grafted optimizer's step.

    Args:
      grafting: None leaves the direction as it is; "sgd" is the gradient, "rmsprop" the gradient
        over the root of its mean square (decay 0.999), "adam" with momentum 0.9 too, both with
        corrected bias.
      moments: As ``init_graft`` or the last call returned them.
      gradient: (*stack_shape, rows, columns).
      direction: The same shape; a direction of zeros stays zeros.
      finite: Whether the gradient is finite; where it is not, the moments stay as they are.

    Returns:
      The scaled direction and the new moments.
    """
    if grafting is None:
        return direction, moments
    step = gradient
    if moments is not None:
        moments = choose(finite, _averaged(moments, gradient), moments)
        step = _adaptive_step(moments, gradient)
    length, wanted = (
        jnp.sqrt(jnp.sum(x**2, axis=(-2, -1), keepdims=True)) for x in (direction, step)
    )
    scale = wanted / jnp.where(length > 0, length, 1)
    # A finite step whose squares overflow is let go: a momentum would keep it for ever.
    return direction * jnp.where(jnp.isfinite(scale), scale, 0), moments


def _averaged(moments: GraftMoments, gradient: jax.Array) -> GraftMoments:
    mean, square, weights = moments
    decays = jnp.array([_B1, _B2], weights.dtype)
    return GraftMoments(
        None if mean is None else _B1 * mean + (1 - _B1) * gradient,
        _B2 * square + (1 - _B2) * gradient**2,
        decays * weights + (1 - decays),
    )


def _adaptive_step(moments: GraftMoments, gradient: jax.Array) -> jax.Array:
    mean, square, weights = moments
    scales = 1 / jnp.where(weights > 0, weights, 1)
    first, second = scales[..., 0, None, None], scales[..., 1, None, None]
    numerator = gradient if mean is None else mean * first
    return numerator / (jnp.sqrt(square * second) + _EPS)
