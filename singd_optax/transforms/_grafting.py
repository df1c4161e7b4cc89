"""Grafting: the direction of one optimizer, at the length of another's step."""

import dataclasses
from typing import ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax._validate import check_choice
from singd_optax.layers import MatrixView
from singd_optax.rules import choose
from singd_optax.transforms._sizes import Directions

#: The optimizers whose steps' lengths can be had.
GraftedStep = Literal["sgd", "rmsprop", "adam"]

_B1, _B2, _EPS = 0.9, 0.999, 1e-8


class GraftMoments(NamedTuple):
    """Moving averages of a gradient that the grafted optimizer needs.

    Attributes:
      graft_mean: The average of the gradient, as a matrix; None where only the square is needed.
      graft_square: The average of its square.
      graft_weights: The sums of the weights of both, (..., 2), by which they are divided.
    """

    graft_mean: jax.Array | None
    graft_square: jax.Array
    graft_weights: jax.Array


@dataclasses.dataclass(frozen=True)
class Grafting:
    """Scale each matrix's direction to the Frobenius norm of another optimizer's step.

    Attributes:
      step: The other optimizer. The step of "sgd" is the gradient; that of "rmsprop" (the default)
        is the gradient over the root of its mean square (decay 0.999); that of "adam" has a
        momentum of 0.9 in the gradient's place. Both have corrected bias.
    """

    step: GraftedStep = "rmsprop"

    is_last: ClassVar[bool] = False
    drops_lost: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choice("grafting", self.step, get_args(GraftedStep))

    def init(self, view: MatrixView) -> GraftMoments | None:
        """The moments that are kept of one parameter, zeros at first; None for "sgd"."""
        if self.step == "sgd":
            return None
        shape, dtype = (*view.stack_shape, *view.dims), view.statistics_dtype
        return GraftMoments(
            graft_mean=jnp.zeros(shape, dtype) if self.step == "adam" else None,
            graft_square=jnp.zeros(shape, dtype),
            graft_weights=jnp.zeros((*view.stack_shape, 2), dtype),
        )

    def scaled(self, step: Directions) -> tuple[dict[str, jax.Array], dict[str, PyTree]]:
        """The scaled directions, and the moments, which stay where squares are not finite.

        Args:
          step: What became of this step's gradients.
        """
        scaled, kept = {}, {}
        for path, direction in step.directions.items():
            gradient, moments = step.gradients[path], step.states[path]
            other = gradient
            if moments is not None:
                new = _averaged(moments, gradient)
                # Squares of a finite gradient may overflow.
                is_kept = step.finite[path] & jnp.isfinite(new.graft_square.sum((-2, -1)))
                moments = choose(is_kept, new, moments)
                other = _adaptive_step(moments, gradient)
            length, wanted = (
                jnp.sqrt(jnp.sum(x**2, axis=(-2, -1), keepdims=True)) for x in (direction, other)
            )
            scale = wanted / jnp.where(length > 0, length, 1)
            # A finite step whose squares overflow is let go: a momentum would keep it for ever.
            scaled[path] = direction * jnp.where(jnp.isfinite(scale), scale, 0)
            kept[path] = moments
        return scaled, kept


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
