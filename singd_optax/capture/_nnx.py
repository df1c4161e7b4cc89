"""One differentiation of an NNX model for value, gradients and curvature."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from singd_optax.capture._grad import make_tap, states_by_layer
from singd_optax.capture._loss_scale import check_loss_scale, scaled_loss, unscaled
from singd_optax.capture._mistakes import check_accumulation, check_not_deleted
from singd_optax.capture._nnx_find import check_model, split_arguments
from singd_optax.capture._nnx_kinds import multiplied, read
from singd_optax.capture._nnx_riders import riders_of, riding, variables_by_path, without_riders
from singd_optax.capture._reached import Reached
from singd_optax.capture._tag import tags, tap_tagged
from singd_optax.capture._tap import Tap
from singd_optax.capture._use import Use
from singd_optax.layers import (
    Curvature,
    Layers,
    Leaves,
    Statistics,
    check_layers,
    check_params,
)
from singd_optax.structures import Precision


def value_and_grad(
    loss_fn: Callable[..., Any],
    layers: Layers,
    *,
    has_aux: bool = False,
    precision: Precision = "highest",
    wrt: Any = nnx.Param,
) -> Callable[..., tuple[Any, nnx.State, Curvature]]:
    """``nnx.value_and_grad`` that also returns the curvature of the Kronecker layers.

    One forward and one backward pass. Statistics are formed only on steps on which the optimizer
    refreshes its factors. Whatever the loss function changes (batch statistics, random states,
    caches, metrics) is changed, as by ``nnx.value_and_grad``; nothing else is.

    Args:
      loss_fn: ``loss_fn(model, *args, **kwargs)`` returns a scalar, or (scalar, aux) if
        ``has_aux``. It is differentiated with respect to the model's parameters.
      layers: From ``singd_optax.nnx.find_layers``, for the same loss function.
      has_aux: Whether ``loss_fn`` returns a pair.
      precision: Of the products that form statistics.
      wrt: Which variables are parameters, as for ``nnx.Optimizer``.

    Returns:
      ``grad_fn(model, *args, optimizer=optimizer, **kwargs)`` -> ``(value, grads, curvature)``,
      with ``(value, aux)`` for value if ``has_aux``. ``optimizer`` is the ``nnx.Optimizer``; or
      pass ``opt_state=``, its ``opt_state`` or one of an optax transformation. ``grads`` is what
      ``nnx.value_and_grad`` returns; hand both to
      ``optimizer.update(model, grads, curvature=curvature)``. ``loss_scale=`` is as for
      ``singd_optax.value_and_grad``.

    Raises:
      TypeError: ``layers`` is something else; when called, ``model`` is no NNX module.
      ValueError: When called: the model or the optimizer's state do not match ``layers``.

    Example:
      >>> from flax import nnx
      >>> import jax.numpy as jnp, singd_optax
      >>> model = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
      >>> x = jnp.ones((8, 5))
      >>> loss_fn = lambda model, x: jnp.mean(model(x) ** 2)
      >>> layers = singd_optax.nnx.find_layers(loss_fn, model, x)
      >>> optimizer = nnx.Optimizer(model, singd_optax.singd(1e-2, layers), wrt=nnx.Param)
      >>> grad_fn = singd_optax.nnx.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(model, x, optimizer=optimizer)
      >>> updates = optimizer.update(model, grads, curvature=curvature)
      >>> curvature[""].H_K.to_dense().shape
      (6, 6)
    """
    check_layers(layers)

    @functools.wraps(loss_fn)
    def value_grad_and_curvature(
        model: Any,
        *args: Any,
        opt_state: Any = None,
        optimizer: Any = None,
        loss_scale: Any = None,
        **kwargs: Any,
    ) -> tuple[Any, Any, Curvature]:
        check_model(model)
        if optimizer is not None:
            opt_state = optimizer.opt_state
        if opt_state is None:
            raise ValueError(
                "The gradient function needs the optimizer's state, which has the factors. Call "
                "grad_fn(model, batch, optimizer=optimizer), where optimizer is nnx.Optimizer("
                "model, tx, wrt=nnx.Param) with one of singd_optax's optimizers as tx."
            )
        opt_state = nnx.as_pure(opt_state)
        check_loss_scale(loss_scale)
        check_not_deleted(nnx.as_pure(nnx.state(model, wrt, graph=True)), "model")
        check_not_deleted(opt_state, "opt_state")
        check_accumulation(opt_state)
        states = states_by_layer(layers, opt_state)
        specs = {path: layers[path] for path in states}
        params = Leaves(nnx.as_pure(nnx.state(model, wrt, graph=True)))
        check_params(specs.values(), params, "model")
        slots = {path: Statistics.zeros(spec) for path, spec in specs.items()}
        args, kwargs = _positional(loss_fn, model, args, kwargs)
        reached = Reached()

        def tapped_loss(model: Any, slots: dict[str, Statistics], *args: Any) -> Any:
            slots = reached.watch(slots)
            taps = {
                spec.kernel_path: make_tap(spec, slots[path], states[path], precision)
                for path, spec in specs.items()
            }
            variables = variables_by_path(model)
            arrays = {path: variables[path].get_value() for path in params if path in variables}
            with tags(arrays, tap_tagged(taps)), riding(model, taps, _tap_call):
                result = without_riders(loss_fn(model, *args, **kwargs))
            return scaled_loss(result, has_aux, loss_scale)

        value, (grads, statistics) = nnx.value_and_grad(
            tapped_loss,
            argnums=(nnx.DiffState(0, wrt), 1),
            has_aux=has_aux,
            graph=True,
            graph_updates=True,
        )(model, slots, *args)
        value, grads, statistics = unscaled(value, grads, statistics, has_aux, loss_scale)
        reached.warn_of_others(slots)
        counts = {path: state.curvature_count for path, state in states.items()}
        return value, grads, Curvature(statistics, counts)

    return value_grad_and_curvature


def _positional(
    loss_fn: Callable[..., Any], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by place where they can be: NNX propagates what the loss changes in these."""
    if not kwargs:
        return args, kwargs
    bound = inspect.signature(loss_fn).bind(model, *args, **kwargs)
    bound.apply_defaults()
    return bound.args[1:], bound.kwargs


def _tap_call(
    module: Any,
    method: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """The outputs of a call, tapped if it uses the kernel of a layer."""
    riders = riders_of(module)
    if not riders or not (args or kwargs):
        return function(module, *args, **kwargs)
    inputs, (others, named) = split_arguments(args, kwargs)
    use = read(module, method, function, inputs, (others, named))
    tap = riders.get(use.kernel) if isinstance(use, Use) else None
    if not isinstance(use, Use) or not isinstance(tap, Tap):
        return function(module, *args, **kwargs)
    inputs = multiplied(module, use, jnp.asarray(inputs))
    outputs = function(module, inputs, *others, **named)
    return use.attach(tap, inputs, outputs, type(module).__name__)
