"""Curvature for wrappers that drop arguments which they do not know."""

import optax

from singd_optax._types import PyTree
from singd_optax.measures import Statistics


def bind_curvature(
    tx: optax.GradientTransformation, curvature: dict[str, Statistics] | None, **extra_args: PyTree
) -> optax.GradientTransformation:
    """Give a transformation its ``curvature`` beforehand, for one step.

    Curvature is the statistics of each layer that ``value_and_grad`` returns. ``optax.lookahead``
    and ``optax.contrib.sam`` call ``update(updates, state, params)`` without extra arguments. Wrap
    the bound transformation inside of the training step instead; states do not depend on what was
    bound.

    Args:
      tx: The optimizer.
      curvature: The curvature that ``value_and_grad`` returned; None where only ``init`` is called.
      **extra_args: More arguments for the optimizer's ``update``.

    Returns:
      A transformation with the same ``init``, whose ``update`` takes no extra arguments.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> tx = singd_optax.singd(0.1, layers)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def lookahead(curvature=None):
      ...   return optax.lookahead(singd_optax.training.bind_curvature(tx, curvature), 5, 0.5)
      >>> params = optax.LookaheadParams.init_synced(params)
      >>> opt_state = lookahead().init(params)
      >>> value, grads, curvature = grad_fn(params.fast, x, opt_state=opt_state)
      >>> updates, opt_state = lookahead(curvature).update(grads, opt_state, params)
      >>> params = optax.apply_updates(params, updates)
    """
    # An object with `init` and `update`, as MultiSteps is, takes all arguments.
    plain = isinstance(tx, optax.GradientTransformation)
    update = optax.with_extra_args_support(tx).update if plain else tx.update

    def update_fn(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        return update(updates, state, params, curvature=curvature, **extra_args)

    return optax.GradientTransformation(tx.init, update_fn)
