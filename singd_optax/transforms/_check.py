"""What ``update`` gets is checked before anything is traced."""

from typing import Any

import jax
import jax.numpy as jnp

from singd_optax.layers import (
    Curvature,
    CurvatureState,
    Layers,
    LayerSpec,
    RuleName,
    Statistics,
    check_factors,
)


def checked_specs(layers: Layers, state: CurvatureState) -> list[LayerSpec]:
    """The layers that a state holds factors for.

    Args:
      layers: Of the optimizer.
      state: From its ``init``, or from a checkpoint.

    Raises:
      ValueError: The state is of other layers.
    """
    unknown = [path for path in state.factors if path not in layers]
    if unknown:
        raise ValueError(
            f"`opt_state` has factors for the layers {unknown}, which `layers` of this optimizer "
            f"have not: {list(layers)}. Use a state from tx.init(params), or from a checkpoint "
            "that was written with these layers."
        )
    specs = [layers[path] for path in sorted(state.factors)]
    for spec in specs:
        check_factors(spec, state.factors[spec.path])
    return specs


def checked_curvature(
    curvature: dict[str, Statistics] | None, specs: list[LayerSpec], state: CurvatureState
) -> Curvature:
    """The statistics of these layers, of this step.

    Args:
      curvature: What the user passed to ``update``.
      specs: The layers that the state holds factors for.
      state: The state.

    Raises:
      ValueError: There are none, they are of other layers, or of an earlier step and that can be
        seen, as their numbers are concrete. Under ``jax.jit`` refreshes with them are skipped.
    """
    if curvature is None and specs:
        raise ValueError(
            "Write tx.update(grads, opt_state, params, curvature=curvature), with value, grads, "
            "curvature = grad_fn(params, batch, opt_state=opt_state) and grad_fn = "
            "singd_optax.value_and_grad(loss_fn, layers): update() got no `curvature`, and these "
            "layers are preconditioned by statistics of the loss. Some wrappers drop "
            "arguments that they do not know: instead of flax's TrainState use "
            "singd_optax.training.TrainState and apply_gradients(grads=grads, "
            "curvature=curvature); inside of optax.lookahead and optax.contrib.sam use "
            "singd_optax.training.bind_curvature(tx, curvature)."
        )
    curvature = {} if curvature is None else curvature
    missing = [spec.path for spec in specs if spec.path not in curvature]
    if missing:
        raise ValueError(
            f"`curvature` has no statistics for the layers {missing}, only for {list(curvature)}. "
            "Use the same layers for the optimizer and for value_and_grad, and pass grad_fn the "
            "opt_state that update gets."
        )
    for spec in specs:
        _check_shapes(spec, curvature[spec.path])
    if not isinstance(curvature, Curvature):
        curvature = Curvature(curvature)
    for spec in specs:
        _check_step(curvature, spec.path, state.curvature_count)
    return curvature


def _check_shapes(spec: LayerSpec, got: Any) -> None:
    expected = jax.eval_shape(lambda: Statistics.zeros(spec))
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (got, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"`curvature` of layer {spec.path!r} does not match `layers`: got {shapes[0]}, "
            f"expected {shapes[1]}. Use the same layers for the optimizer and value_and_grad."
        )


def _check_step(curvature: Curvature, path: str, count: jax.Array) -> None:
    stale = curvature.is_stale(path, count)
    if not isinstance(stale, jax.core.Tracer) and stale:
        raise ValueError(
            f"`curvature` is of an earlier step: it was measured with an opt_state after "
            f"{curvature.counts[path]} updates, and update() got one after {count}. Hand on what "
            "grad_fn(params, batch, opt_state=opt_state) returned for this step, and pass both the "
            "same opt_state."
        )


def check_rule(rule: Any, name: RuleName) -> None:
    """Raise unless a state is of this rule.

    Args:
      rule: Of the optimizer.
      name: What the state says.

    Raises:
      ValueError: It is of another one.
    """
    own = type(rule).__name__
    if not isinstance(name, RuleName) or name.name != own:
        written = name.name if isinstance(name, RuleName) else name
        raise ValueError(
            f"`opt_state` is of the rule {written!r}, this optimizer has {own!r}. Use the "
            "optimizer that the state is of, or a new state from tx.init(params)."
        )
