"""A bound on how far one step may change the model's predictions."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from singd_optax._validate import check_number
from singd_optax.rules import Hyperparameter
from singd_optax.rules import hyperparameter_at as at


@dataclasses.dataclass(frozen=True)
class KLClip:
    """The trust region of ACKTR (arXiv 1708.05144, section 3.3).

    A step of η times the natural gradient P ∇ changes the predictions by about η² ∇ᵀ P ∇ / 2 in
    KL divergence. So all natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))).

    Attributes:
      bound: δ > 0, a number or a schedule.
      learning_rate: η > 0, what the scaled gradients are multiplied with afterwards.

    >>> clip = KLClip(1e-3, learning_rate=0.1)
    >>> g = {"w": jnp.full(4, 10.0)}
    >>> clip.scale(g, g, jnp.int32(0)).round(4)  # √(1e-3 / (0.1² 400))
    Array(0.0158, dtype=float32)
    """

    bound: Hyperparameter
    learning_rate: Hyperparameter = 1.0

    def __post_init__(self) -> None:
        check_number("kl_clip", self.bound, strict=True)
        check_number("kl_learning_rate", self.learning_rate, strict=True)

    def scale(
        self,
        gradients: Mapping[str, jax.Array],
        natural: Mapping[str, jax.Array],
        count: jax.Array,
    ) -> jax.Array:
        """The factor for all natural gradients, from both by path."""
        products = [
            jnp.vdot(gradients[path], natural[path], preferred_element_type=jnp.float32)
            for path in natural
        ]
        change = at(self.learning_rate, count) ** 2 * sum(products)
        tiny = jnp.finfo(jnp.float32).tiny
        return jnp.minimum(1, jnp.sqrt(at(self.bound, count) / jnp.maximum(change, tiny)))
