"""Gradients without what the last one had in common with them, as the KL divergence has it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._types import PyTree
from singd_optax._validate import check_number
from singd_optax.rules import Hyperparameter, hyperparameter_at


class KLDCorrectionState(NamedTuple):
    """The state of ``kld_correction``.

    Attributes:
      corrections: The number of gradients so far, int32.
      last_gradient: The last gradient, a tree like the parameters; zeros before the first.
    """

    corrections: jax.Array
    last_gradient: PyTree


def kld_correction(
    learning_rate: Hyperparameter, decay: Hyperparameter = 0.99
) -> optax.GradientTransformation:
    """Correct gradients as a model of moving averages of the curvature asks for.

    With g the gradient, η the learning rate and ρ = ``decay``::

        g_k <- g_k - ρ (η_(k-1) / η_k) g_(k-1)

    A curvature that is a moving average is that of a sum of quadratic models of all steps so far,
    each weighed by ρ less than the next, and the step that minimizes this sum is the natural
    gradient of the corrected gradient: the method "SO-KLD-WRM" of the paper, for any optimizer
    with averaged curvature. Put it in front: ``optax.chain(kld_correction(schedule),
    scale_by_kfac(layers), optax.scale_by_learning_rate(schedule))``.

    Args:
      learning_rate: The learning rate η of the optimizer, a number >= 0 or a schedule; where it is
        0, there is no correction.
      decay: The decay ρ of the curvature's moving average, from 0 (no correction) to 1, or a
        schedule.

    Returns:
      An optax transformation of gradients.

    Raises:
      ValueError: A number is out of range.
      TypeError: An argument is neither a number nor a schedule.

    References:
      Puiu, Rethinking Exponential Averaging of the Fisher, ECML 2022, arXiv 2204.04718.

    Example:
      >>> import singd_optax
      >>> tx = kld_correction(0.1, decay=0.5)
      >>> params = {"w": jnp.ones(2)}
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...   updates, state = tx.update({"w": jnp.ones(2)}, state)
      >>> updates["w"]
      Array([0.5, 0.5], dtype=float32)
    """
    check_number("learning_rate", learning_rate)
    check_number("decay", decay, maximum=1)

    def init(params: PyTree) -> KLDCorrectionState:
        return KLDCorrectionState(jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(
        updates: PyTree, state: KLDCorrectionState, params: PyTree = None
    ) -> tuple[PyTree, KLDCorrectionState]:
        del params
        count = state.corrections
        before = jnp.maximum(count - 1, 0)
        now, last = (hyperparameter_at(learning_rate, at, jnp.float32) for at in (count, before))
        ratio = jnp.where(now > 0, last / jnp.where(now > 0, now, 1), 0)
        weight = hyperparameter_at(decay, count, jnp.float32) * ratio

        def correct(gradient: jax.Array, old: jax.Array) -> jax.Array:
            # What is not finite is handed on, and not kept.
            return gradient - weight.astype(gradient.dtype) * old.astype(gradient.dtype)

        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(updates)]
        usable = jnp.stack(finite).all() if finite else jnp.asarray(True)
        corrected = jax.tree.map(correct, updates, state.last_gradient)

        def keep(new: jax.Array, old: jax.Array) -> jax.Array:
            return jax.lax.select(jnp.broadcast_to(usable, old.shape), new.astype(old.dtype), old)

        kept = jax.tree.map(keep, updates, state.last_gradient)
        return corrected, KLDCorrectionState(optax.safe_increment(count), kept)

    return optax.GradientTransformation(init, update)
