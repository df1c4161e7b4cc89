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
    """A rule whose directions are mixed with the gradient (or the momentum).

    With d the rule's direction of a vector v, for each matrix::

        share · d + (1 - share) · (‖d‖ / ‖v‖) v

    A preconditioner helps where there is little noise, and the gradient where there is more
    (arXiv 2006.10732). With a schedule that is 0 for some steps and 1 after, it is a cold start:
    plain steps while statistics build up, as ACKTR has. For a power of the preconditioner see
    ``EKFAC.exponent``.

    Attributes:
      rule: Any.
      share: A number from 0 (the gradient) to 1 (the rule), or a schedule.

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
        """As the docstring says."""
        found, new = super().direction(view, state, vector, gradient, count)
        share = hyperparameter_at(self.share, count, found.dtype)
        sizes = [_size(x) for x in (found, vector)]
        ratio = sizes[0] / jnp.where(sizes[1] > 0, sizes[1], 1)
        return share * found + (1 - share) * ratio * vector, new


def _size(matrix: jax.Array) -> jax.Array:
    """The Frobenius norm, whatever the size of entries."""
    largest = jnp.abs(matrix).max((-2, -1), keepdims=True)
    scaled = matrix / jnp.where(largest > 0, largest, 1)
    return jnp.sqrt((scaled**2).sum((-2, -1), keepdims=True)) * largest
