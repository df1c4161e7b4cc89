"""flax's TrainState, which hands on curvature."""

from collections.abc import Callable, Mapping
from typing import Self

from flax.training import train_state

from singd_optax._types import PyTree
from singd_optax.measures import Statistics
from singd_optax.training._bind import bind_curvature
from singd_optax.training._check_refreshes import check_refreshes


class TrainState(train_state.TrainState):
    """Flax's ``TrainState`` with an ``apply_gradients`` that forwards ``curvature``.

    Curvature is the statistics of layers that ``value_and_grad`` returns; flax's own class drops
    extra arguments of the optimizer. All else is as there: ``create``, ``replace``, more fields by
    sub-classing, serialization.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)["params"]
      >>> loss_fn = lambda params, x: jnp.mean(model.apply({"params": params}, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> state = singd_optax.training.TrainState.create(
      ...     apply_fn=model.apply, params=params, tx=singd_optax.singd(0.1, layers))
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(state.params, x, opt_state=state.opt_state)
      >>> state = state.apply_gradients(grads=grads, curvature=curvature)
      >>> int(state.step)
      1
    """

    def apply_gradients(
        self,
        *,
        grads: PyTree,
        curvature: dict[str, Statistics] | None = None,
        extra_args: Mapping[str, PyTree] | None = None,
        **kwargs: PyTree,
    ) -> Self:
        """Take one step of the optimizer.

        Args:
          grads: The gradients, a tree like ``params``.
          curvature: The curvature that ``singd_optax.value_and_grad`` returned, called with
            ``opt_state=state.opt_state``; None for optimizers without layers.
          extra_args: Other arguments of the optimizer's ``update``, such as ``{"value": value}``
            for ``optax.contrib.reduce_on_plateau``.
          **kwargs: Fields of the state to replace, such as ``batch_stats``.

        Returns:
          The next state.

        Raises:
          ValueError: ``curvature`` is missing, of other layers, or of another step.
        """
        bound = self.replace(tx=bind_curvature(self.tx, curvature, **(extra_args or {})))
        # The stock method on a copy: what else it does is done as there.
        stepped = train_state.TrainState.apply_gradients(bound, grads=grads, **kwargs)
        return stepped.replace(tx=self.tx)


def train_step(
    grad_fn: Callable[..., PyTree], state: TrainState, *args: PyTree, **kwargs: PyTree
) -> tuple[TrainState, PyTree]:
    """Take one step of training: gradients and curvature, then the optimizer.

    Args:
      grad_fn: The gradient function, from ``singd_optax.value_and_grad``.
      state: The state of training, a ``singd_optax.training.TrainState``.
      *args: The arguments of the loss function after its params: the batch.
      **kwargs: The arguments of the loss function by name; ``loss_scale`` too.

    Returns:
      The next state, and the value of the loss, or (value, aux).

    Raises:
      TypeError: ``state`` is of another class, for example flax's own.
      ValueError: The state does not match the layers of ``grad_fn``.

    ::

        step = jax.jit(functools.partial(train_step, grad_fn), donate_argnums=0)
        state, value = step(state, batch)

    In eager mode it warns of layers that are not refreshed any more. A jitted step cannot: call
    ``check_refreshes(state.opt_state)`` now and then, where the loss is printed.
    """
    if not isinstance(state, TrainState):
        raise TypeError(
            "`state` must be a singd_optax.training.TrainState, got a "
            f"{type(state).__module__}.{type(state).__name__}. flax's own drops the curvature: "
            "write singd_optax.training.TrainState.create(apply_fn=..., params=..., tx=...), or "
            "derive your class from it."
        )
    value, grads, curvature = grad_fn(state.params, *args, opt_state=state.opt_state, **kwargs)
    state = state.apply_gradients(grads=grads, curvature=curvature)
    check_refreshes(state.opt_state)
    return state, value
