"""Directions between the gradient and those of a rule."""

import dataclasses

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax._validate import check_number
from singd_optax.layers import MatrixView
from singd_optax.rules._numbers import Hyperparameter, hyperparameter_at
from singd_optax.rules._wrapped import Wrapped


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixed(Wrapped):
    """Wrap a rule so that its directions are mixed with the gradient (or the momentum).

    If d is what the rule makes of a matrix v, the momentum or the gradient, the direction is::

        share · d + (1 - share) · (‖d‖ / ‖v‖) v

    A preconditioner helps where there is little noise, and the gradient where there is more
    (arXiv 2006.10732). A schedule that is 0 for some steps and 1 afterwards makes plain steps while
    statistics build up, which is the cold start of ACKTR. For a power of the preconditioner see
    ``EKFAC.exponent``.

    Attributes:
      rule: The rule to wrap.
      share: The share of the rule's direction, a number from 0 (the gradient) to 1 (the rule), or a
        schedule.

    Raises:
      TypeError: ``rule`` is no rule, or ``share`` is no number.
      ValueError: ``share`` is out of range.

    Example:
      >>> from singd_optax.optimizers import KFAC
      >>> mixed = Mixed(KFAC(), share=0.8)
      >>> cold = Mixed(KFAC(), share=lambda count: jnp.where(count < 10, 0.0, 1.0))
    """

    share: Hyperparameter = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("share", self.share, maximum=1)

    def direction(
        self,
        view: MatrixView,
        state: PyTree,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, PyTree]:
        """The rule's direction, mixed with the vector."""
        found, new = super().direction(view, state, vector, gradient, count)
        share = hyperparameter_at(self.share, count, found.dtype)
        sizes = [_size(x) for x in (found, vector)]
        ratio = sizes[0] / jnp.where(sizes[1] > 0, sizes[1], 1)
        return share * found + (1 - share) * ratio * vector, new


def _size(matrix: jax.Array) -> jax.Array:
    """The Frobenius norm of each matrix, which no size of entries makes over- or underflow."""
    largest = jnp.abs(matrix).max((-2, -1), keepdims=True)
    scaled = matrix / jnp.where(largest > 0, largest, 1)
    return jnp.sqrt((scaled**2).sum((-2, -1), keepdims=True)) * largest
