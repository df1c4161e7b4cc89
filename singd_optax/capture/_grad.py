"""One differentiation for value, gradients and curvature."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from singd_optax._validate import check_choice
from singd_optax.capture._fisher import (
    FISHERS,
    Fisher,
    Sampling,
    common_loss_average,
    differentiate,
)
from singd_optax.capture._linen import tapped
from singd_optax.capture._loss_scale import check_loss_scale, scaled_loss, unscaled
from singd_optax.capture._mistakes import check_accumulation, check_not_deleted
from singd_optax.capture._params import insert_entries, split_path
from singd_optax.capture._reached import Reached
from singd_optax.capture._tag import tags, tap_tagged
from singd_optax.capture._tap import Tap
from singd_optax.layers import (
    Curvature,
    CurvatureState,
    Layers,
    LayerSpec,
    Leaves,
    Statistics,
    check_factors,
    check_layers,
    check_params,
    curvature_states,
    gathered,
    whitens_late,
)
from singd_optax.structures import Precision


def value_and_grad(
    loss_fn: Callable[..., Any],
    layers: Layers,
    *,
    has_aux: bool = False,
    precision: Precision = "highest",
    fisher: Fisher = "empirical",
    seed: int = 0,
) -> Callable[..., tuple[Any, Any, Curvature]]:
    """``jax.value_and_grad`` that also returns the curvature of the Kronecker layers.

    One forward and one backward pass. Statistics are formed only on steps on which the optimizer
    refreshes its factors, which its state says; on all others curvature is zeros, at no cost.

    Args:
      loss_fn: ``loss_fn(params, *args, **kwargs)`` returns a scalar, or (scalar, aux) if
        ``has_aux``. It is differentiated with respect to ``params``.
      layers: From ``find_layers``, for the same loss function.
      has_aux: Whether ``loss_fn`` returns a pair.
      precision: Of the products that form statistics.
      fisher: Of which output gradients the curvature is made. ``"empirical"``: those of the loss,
        which one backward pass gives for nothing; at a good fit, they are small where the model
        is right, and so is the curvature. ``"mc"``: those at labels drawn from the model's own
        prediction, an unbiased estimate of the Fisher information (here the Gauss-Newton matrix),
        for one more backward pass on refresh steps only; worth its price with few updates
        between, noisy labels, or curvature that is used for itself (Laplace approximations).
        ``"ggn"``: that matrix exactly, for one backward pass for each output of a position; for
        tests and very small models. Both need ``tag_distribution`` in the loss function.
      seed: Of the labels that ``"mc"`` draws.

    Returns:
      ``grad_fn(params, *args, opt_state=opt_state, loss_scale=None, **kwargs)`` ->
      ``(value, grads, curvature)``, with ``(value, aux)`` for value if ``has_aux``. ``curvature``
      maps paths to ``Statistics``; hand it to
      ``tx.update(grads, opt_state, params, curvature=curvature)`` with the same ``opt_state``.
      With a ``loss_scale``, for models that compute in float16, the backward pass is that of
      the loss (which is to be float32) times this number, which may be traced; value, gradients
      and statistics come out as without it, unless gradients overflow: then they are not finite.

    Raises:
      TypeError: ``layers`` is something else.
      ValueError: ``fisher`` is none of the three. When called: ``params`` or ``opt_state`` do not
        match ``layers``, or no distribution was named.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> tx = singd_optax.singd(1e-2, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      >>> updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      >>> curvature["params"].H_K.to_dense().shape
      (6, 6)
    """
    check_layers(layers)
    check_choice("fisher", fisher, FISHERS)

    @functools.wraps(loss_fn)
    def value_grad_and_curvature(
        params: Any, *args: Any, opt_state: Any = None, loss_scale: Any = None, **kwargs: Any
    ) -> tuple[Any, Any, Curvature]:
        check_loss_scale(loss_scale)
        check_not_deleted(params, "params")
        check_not_deleted(opt_state, "opt_state")
        check_accumulation(opt_state)
        states = states_by_layer(layers, opt_state)
        specs = {path: layers[path] for path in states}
        check_params(specs.values(), Leaves(params), "params")
        slots = {path: Statistics.zeros(spec) for path, spec in specs.items()}
        reached = Reached()

        def tapped_loss(params: Any, slots: dict[str, Statistics]) -> Any:
            slots = reached.watch(slots)
            taps = [make_tap(specs[path], slots[path], states[path], precision) for path in slots]
            beside: dict[str, tuple[Tap, ...]] = {}
            for tap in taps:
                group, _ = split_path(tap.spec.kernel_path)
                beside[group] = (*beside.get(group, ()), tap)
            entries = insert_entries(params, lambda path, _: beside.get(path))
            by_kernel = {tap.spec.kernel_path: tap for tap in taps}
            with tapped(), tags(params, tap_tagged(by_kernel)):
                result = loss_fn(entries, *args, **kwargs)
            return scaled_loss(result, has_aux, loss_scale)

        sampling = _sampling(states, specs, seed, fisher)._replace(loss_scale=loss_scale)
        value, grads, statistics = unscaled(
            *differentiate(tapped_loss, params, slots, has_aux, fisher, sampling),
            has_aux,
            loss_scale,
        )
        reached.warn_of_others(slots)
        counts = {path: state.curvature_count for path, state in states.items()}
        return value, grads, Curvature(statistics, counts)

    return value_grad_and_curvature


def _sampling(
    states: dict[str, CurvatureState], specs: dict[str, LayerSpec], seed: int, fisher: Fisher
) -> Sampling:
    due = [state.refresh_due for state in states.values()]
    count = next((state.curvature_count for state in states.values()), jnp.zeros([], jnp.int32))
    return Sampling(
        due=functools.reduce(jnp.logical_or, due, jnp.zeros([], bool)),
        key=jax.random.fold_in(jax.random.key(seed), count),
        loss_average=None if fisher == "empirical" else common_loss_average(specs.values()),
    )


def make_tap(spec: LayerSpec, slot: Statistics, state: CurvatureState, precision: Precision) -> Tap:
    """What rides beside the kernel of a layer."""
    number = jnp.where(state.refresh_due > 0, state.curvature_count + 1, 0)
    refresh = jnp.broadcast_to(number, spec.scan_shape)
    factors = state.factors[spec.path]
    riding = (slot, () if whitens_late(spec, factors) else gathered(factors), refresh)
    slot, whitening, refresh = spec.stacking.spread(riding)
    return Tap(slot, whitening, refresh, spec, precision)


def states_by_layer(layers: Layers, opt_state: Any) -> dict[str, CurvatureState]:
    """Path of a layer -> the curvature state that holds its factors."""
    states = curvature_states(opt_state)
    if not states:
        got = "no opt_state" if opt_state is None else f"a {type(opt_state).__name__}"
        raise ValueError(
            f"The gradient function needs the optimizer's state, which has the factors: got {got} "
            "without Kronecker factors. Call grad_fn(params, batch, opt_state=opt_state) with the "
            "state from tx.init(params), where tx is one of singd_optax's optimizers."
        )
    owners: dict[str, CurvatureState] = {}
    for state in states:
        for path, factors in state.factors.items():
            if path in owners:
                raise ValueError(
                    f"Two transformations in this optimizer state hold factors for layer {path!r}. "
                    "Give each of them its own layers, with layers.without(...)."
                )
            if path not in layers:
                raise ValueError(
                    f"`opt_state` has factors for layer {path!r}, which `layers` have not: "
                    f"{list(layers)}. Use the same layers for the optimizer and for "
                    "value_and_grad, and a state made by tx.init."
                )
            check_factors(layers[path], factors)
            owners[path] = state
    return {path: owners[path] for path in layers if path in owners}
