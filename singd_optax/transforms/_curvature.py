"""Any rule as an optax transformation."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_interval, check_seed
from singd_optax.layers import (
    Curvature,
    CurvatureState,
    Layers,
    LayerSpec,
    Leaves,
    RuleName,
    Statistics,
    as_count,
    check_form,
    check_layers,
    check_params,
)
from singd_optax.placement import laid_out_like, partitions_of
from singd_optax.rules import Rule
from singd_optax.transforms._check import check_rule, checked_curvature, checked_specs
from singd_optax.transforms._interval import Interval, is_due
from singd_optax.transforms._kl_clip import KLClip
from singd_optax.transforms._params import present_layers, warn_of_params
from singd_optax.transforms._refresh import Carry, refresh_all
from singd_optax.transforms._sides import sides_of


def scale_by_curvature(
    rule: Rule,
    layers: Layers,
    *,
    refresh_every: Interval = 1,
    kl_clip: KLClip | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Precondition the gradients of Kronecker layers by a rule; pass all others through.

    The factors are refreshed on steps with ``count % refresh_every == 0``, step 0 included; then
    this step's gradient is preconditioned with the new factors. A refresh of a layer whose
    statistics are not finite, or empty, or would make its factors so, or are of an earlier step
    (which outside of ``jax.jit`` is an error), is skipped and counted.

    A layer of which a wrapper (``optax.masked``, ``partition``, ...) masks a parameter out has no
    state, and passes through.

    Args:
      rule: What to do for each layer, for example ``SINGD(damping=1e-3, ...)``.
      layers: From ``find_layers``.
      refresh_every: The interval T, or a schedule step -> T.
      kl_clip: A bound on what a step does to the predictions, for all layers together; or None.
      seed: Of the random bits with which bfloat16 factors are rounded.

    Returns:
      A transformation whose ``update`` takes ``curvature`` (from ``value_and_grad``) as an extra
      argument.

    Raises:
      ValueError: ``refresh_every`` is below 1. From ``init`` and ``update``: params or gradients
        do not match ``layers``, or ``curvature`` is missing.
      TypeError: ``layers`` or ``rule`` are something else.
    """
    check_layers(layers)
    if not isinstance(rule, Rule):
        raise TypeError(f"`rule` must be a singd_optax.rules.Rule, got {rule!r}.")
    check_interval("refresh_every", refresh_every)
    check_seed("seed", seed)
    initial_form = functools.cache(lambda spec: jax.eval_shape(lambda: rule.init(spec)))

    def due_at(count: jax.Array) -> jax.Array:
        return is_due(refresh_every, count).astype(jnp.int32)

    def init_fn(params: optax.Params) -> CurvatureState:
        specs = present_layers(layers, params)
        warn_of_params(layers, params)
        initial = {spec.path: rule.init(spec) for spec in specs}
        count = jnp.zeros([], jnp.int32)
        return CurvatureState(
            curvature_count=count,
            refresh_due=due_at(count),
            factors={path: factors for path, (factors, _) in initial.items()},
            factor_memory={path: memory for path, (_, memory) in initial.items()},
            skipped_refreshes={spec.path: jnp.zeros(spec.stack_shape, jnp.int32) for spec in specs},
            skipped_in_a_row={spec.path: jnp.zeros(spec.stack_shape, jnp.int32) for spec in specs},
            curvature_rule=RuleName(type(rule).__name__),
        )

    def update_fn(
        updates: optax.Updates,
        state: CurvatureState,
        params: optax.Params | None = None,
        *,
        curvature: dict[str, Statistics] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CurvatureState]:
        del params, extra_args
        state = jax.tree.map(as_count, state)
        check_rule(rule, state.curvature_rule)
        specs = checked_specs(layers, state)
        for spec in specs:
            kept = {"factors": state.factors, "factor_memory": state.factor_memory}
            for (name, own), wanted in zip(kept.items(), initial_form(spec), strict=True):
                check_form(own[spec.path], wanted, f"`{name}` of layer {spec.path!r}")
        statistics = checked_curvature(curvature, specs, state)
        leaves = Leaves(updates)
        check_params(specs, leaves, "updates")
        like = partitions_of((updates, state))
        return laid_out_like(
            update_layers, like, updates, state, dict(statistics), statistics.counts
        )

    def update_layers(
        updates: optax.Updates, state: CurvatureState, measured: Any, counts: Any
    ) -> tuple[optax.Updates, CurvatureState]:
        specs = checked_specs(layers, state)
        statistics = Curvature(measured, counts)
        leaves = Leaves(updates)
        key = jax.random.fold_in(jax.random.key(seed), state.curvature_count)

        def refresh(carry: Carry) -> Carry:
            return refresh_all(rule, specs, carry, statistics, state.curvature_count, key)

        carry = Carry(
            state.factors, state.factor_memory, state.skipped_refreshes, state.skipped_in_a_row
        )
        due = state.refresh_due.astype(bool)
        carry = jax.lax.cond(due, refresh, lambda x: x, carry)
        factors, memory = carry.factors, carry.memory
        changed: dict[str, jax.Array] = {}
        for spec in specs:
            changed |= _preconditioned(rule, spec, leaves, factors[spec.path], memory[spec.path])
        if kl_clip is not None:
            gradients = {path: leaves[path] for path in changed}
            scale = kl_clip.scale(gradients, changed, state.curvature_count)
            changed = {path: (g * scale).astype(g.dtype) for path, g in changed.items()}
        count = optax.safe_increment(state.curvature_count)
        new_state = CurvatureState(
            curvature_count=count,
            refresh_due=due_at(count),
            factors=factors,
            factor_memory=memory,
            skipped_refreshes=carry.skipped,
            skipped_in_a_row=carry.in_a_row,
            curvature_rule=state.curvature_rule,
        )
        return leaves.replaced(changed), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _preconditioned(
    rule: Rule, spec: LayerSpec, leaves: Leaves, factors: Any, memory: Any
) -> dict[str, jax.Array]:
    placement, sides = spec.placement, sides_of(factors)
    own = placement.constrained_parameters({path: leaves[path] for path in spec.shapes})
    placed = placement.placed(factors, sides)
    gradient = placement.gradient_to_factors(spec.to_matrix(*own.values()), placed, sides)
    changed = rule.precondition(placed, gradient, placement.placed(memory, sides_of(memory)))
    matrix = placement.gradient_from_factors(changed, placed, sides)
    return placement.constrained_parameters(
        {
            path: part.astype(leaves[path].dtype)
            for path, part in zip(spec.shapes, spec.from_matrix(matrix), strict=True)
        }
    )
