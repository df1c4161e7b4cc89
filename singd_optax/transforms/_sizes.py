"""What sets the size of updates: one root mean square, a bound on predictions, or another step.

A size is set where updates are matrices. All are frozen dataclasses with the same two methods.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax._validate import check_number
from singd_optax.layers import MatrixView
from singd_optax.rules import Hyperparameter, hyperparameter_at
from singd_optax.transforms._running_size import scaled_to

Matrices = Mapping[str, jax.Array]


class Directions(NamedTuple):
    """What became of the gradients of a step, each by path.

    Attributes:
      views: The parameters, as matrices.
      gradients: The gradients of this step, as matrices (*stack, rows, columns).
      vectors: What became the directions, of the same shapes: the momentum, or the gradient.
      directions: The preconditioned vectors, of the same shapes.
      states: What is kept to set sizes, from ``Size.init`` or the last step.
      finite: Whether the gradient is finite, for each matrix of a stack.
      at_step: The number of updates made before this one, int32.
    """

    views: Mapping[str, MatrixView]
    gradients: Matrices
    vectors: Matrices
    directions: Matrices
    states: Mapping[str, PyTree]
    finite: Matrices
    at_step: jax.Array


class Size(Protocol):
    """How the size of updates is set: what ``UpdateRMS``, ``KLClip`` and ``Grafting`` have.

    Attributes:
      is_last: Whether the size is set after the momentum, where this is one of updates: that of
        the update; or before it: that of the direction.
      drops_lost: Whether it makes zeros of directions that are not finite though their vectors are.
    """

    is_last: ClassVar[bool]
    drops_lost: ClassVar[bool]

    def init(self, view: MatrixView) -> PyTree:
        """What is kept of one parameter from step to step, or None.

        Args:
          view: The parameter, as a matrix.
        """

    def scaled(self, step: Directions) -> tuple[dict[str, jax.Array], dict[str, PyTree]]:
        """The directions at the right size and what is kept, both by path.

        Args:
          step: What became of this step's gradients.
        """


@dataclasses.dataclass(frozen=True)
class UpdateRMS:
    """Give each matrix's update one root mean square, so that learning rates of AdamW suit it.

    AdamW's updates have a root mean square of about 0.2 to 0.4 before the learning rate, whatever
    the layer's size. Kernel and bias of a layer are scaled together, those of a stack one by one.

    The size is constant as long as gradients come. Where they vanish (an expert that is not used,
    batches of padding, a loss of 0), what momentum is left of the update shrinks, and is not
    scaled up again: far below its running size, an update fades.

    Attributes:
      rms: The root mean square of an update before the learning rate, > 0.
      decay: The decay of the running mean square, in [0, 1). After momentum m, √m is a good one:
        the running size then shrinks at a quarter of momentum's pace.
    """

    rms: float = 0.8
    decay: Hyperparameter = 0.9

    is_last: ClassVar[bool] = True
    drops_lost: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("update_rms", self.rms, strict=True, schedule=False)
        check_number("decay", self.decay, maximum=1, strict_maximum=True, schedule=False)

    def init(self, view: MatrixView) -> jax.Array:
        """The running size of one parameter, (*stack,), 0 at first."""
        return jnp.zeros(view.stack_shape, view.statistics_dtype)

    def scaled(self, step: Directions) -> tuple[dict[str, jax.Array], dict[str, PyTree]]:
        """The directions at the size and the running sizes, both by path.

        Args:
          step: What became of this step's gradients.
        """
        decay = hyperparameter_at(self.decay, step.at_step)
        pairs = {
            path: scaled_to(direction, step.states[path], self.rms, decay, step.vectors[path])
            for path, direction in step.directions.items()
        }
        return {p: pair[0] for p, pair in pairs.items()}, {p: pair[1] for p, pair in pairs.items()}


@dataclasses.dataclass(frozen=True)
class KLClip:
    """The trust region of ACKTR (arXiv 1708.05144, section 3.3), over all parameters together.

    A step of η times the natural gradient P ∇ changes the predictions by about η² ∇ᵀ P ∇ / 2 in
    KL divergence. So all natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))).

    Attributes:
      bound: The bound δ > 0 on the change of the predictions, a number or a schedule.
      learning_rate: The learning rate η that the scaled gradients are multiplied with afterwards, a
        number >= 0 or a schedule; 1 by default.

    >>> from singd_optax.layers import find_matrices
    >>> views = find_matrices({"w": jnp.ones((2, 2))}, structures="dense")
    >>> g = {"w": jnp.full((2, 2), 10.0)}
    >>> clip = KLClip(1e-3, learning_rate=0.1)
    >>> step = Directions(views, g, g, g, {}, {}, jnp.int32(0))
    >>> clip.scaled(step)[0]["w"][0, 0].round(3)  # √(1e-3 / 4) 10
    Array(0.158, dtype=float32)
    """

    bound: Hyperparameter
    learning_rate: Hyperparameter = 1.0

    is_last: ClassVar[bool] = False
    drops_lost: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number("kl_clip", self.bound, strict=True)
        check_number("learning_rate", self.learning_rate)

    def init(self, view: MatrixView) -> None:
        """None, as nothing is kept."""
        del view

    def scaled(self, step: Directions) -> tuple[dict[str, jax.Array], dict[str, PyTree]]:
        """All directions, scaled by one number, and what is kept, which is None.

        Args:
          step: What became of this step's gradients.
        """
        products = [
            jnp.vdot(step.vectors[path], direction, preferred_element_type=jnp.float32)
            for path, direction in step.directions.items()
        ]
        change = hyperparameter_at(self.learning_rate, step.at_step) ** 2 * sum(products)
        bound = hyperparameter_at(self.bound, step.at_step)
        scale = jnp.sqrt(bound / jnp.maximum(change, jnp.finfo(jnp.float32).tiny))
        scale = jnp.minimum(1, scale)
        clipped = {path: d * scale.astype(d.dtype) for path, d in step.directions.items()}
        return clipped, dict(step.states)
