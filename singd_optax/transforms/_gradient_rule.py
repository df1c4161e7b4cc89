"""Any rule that sees gradients only, as an optax transformation."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_choice, check_interval, check_seed
from singd_optax.layers import (
    GradientRuleState,
    Leaves,
    MatrixAxes,
    MatrixSpec,
    RuleName,
    as_count,
    check_form,
    check_matrix_axes,
    matrix_specs,
    parse_options,
)
from singd_optax.placement import laid_out_like, partitions_of
from singd_optax.rules import GradientRule, choose
from singd_optax.structures import Structure
from singd_optax.transforms._check import check_rule
from singd_optax.transforms._grafting import (
    GRAFTINGS,
    Grafting,
    graft,
    init_graft,
)
from singd_optax.transforms._interval import Interval, is_due
from singd_optax.transforms._params import check_some_params
from singd_optax.transforms._refresh import Carry, all_finite

#: What a state keeps of each parameter, in the order of ``initial_form``.
KEPT = ("gradient_factors", "gradient_memory", "graft_memory")


def scale_by_gradient_rule(
    rule: GradientRule,
    *,
    structures: str | Structure | tuple[str | Structure, str | Structure] = "auto",
    factor_dtype: Any = None,
    matrix_axes: Mapping[str, MatrixAxes | None] | None = None,
    refresh_every: Interval = 1,
    grafting: Grafting = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Precondition matrix-shaped gradients by a rule; pass scalars and vectors through.

    Every array of two axes or more is a matrix: leading axes are merged to rows and trailing
    ones to columns, cut where the larger side is smallest (``(3, 3, 64, 128)`` becomes 576 x 128,
    ``(768, 12, 64)`` 768 x 768). A parameter of a stack of layers (``nn.scan``) looks like any
    other array of that shape, so say which axes are whose by ``matrix_axes``; the layers of the
    stack are then preconditioned apart.

    Args:
      rule: What to do for each parameter, for example ``Shampoo()``.
      structures: Of the factors of (rows, columns), or one for both, as ``parse_structure`` takes.
      factor_dtype: Of the factors, one or a pair; None for float32 (float64 for float64).
      matrix_axes: Regular expression on a parameter's path -> (axes of rows, axes of columns),
        as ``{"blocks/.*kernel": ((1,), (2,))}``, or None for a parameter that passes through.
        Axes in neither run over separate matrices.
      refresh_every: The interval between refreshes, or a schedule step -> interval. A refresh
        happens on steps with ``count % refresh_every == 0``, step 0 included.
      grafting: The length of each parameter's update: None for the rule's own, or the norm of
        the step of "sgd", "rmsprop" or "adam".
      seed: Of the random bits with which bfloat16 factors are rounded.

    Returns:
      A transformation of any tree of parameters; ``update`` ignores extra arguments. A gradient
      that is not finite passes on, and changes no factor and no moment. One that is finite, but
      so large that its preconditioned form is not, gives an update of zeros.

    Raises:
      ValueError: An option is out of range. From ``init`` and ``update``: axes do not fit, or
        gradients do not match the parameters that the state is of.
      TypeError: An option is of another type.
    """
    if not isinstance(rule, GradientRule):
        raise TypeError(f"`rule` must be a singd_optax.rules.GradientRule, got {rule!r}.")
    parse_options("float32", structures=structures, factor_dtype=factor_dtype)
    check_matrix_axes(matrix_axes)
    check_interval("refresh_every", refresh_every)
    check_choice("grafting", grafting, GRAFTINGS)
    check_seed("seed", seed)
    name = RuleName(type(rule).__name__)

    def specs_of(leaves: Leaves) -> dict[str, MatrixSpec]:
        return matrix_specs(
            leaves, structures=structures, factor_dtype=factor_dtype, matrix_axes=matrix_axes
        )

    def no_failures(specs: dict[str, MatrixSpec]) -> dict[str, jax.Array]:
        return {path: jnp.zeros(spec.stack_shape, jnp.int32) for path, spec in specs.items()}

    @functools.cache
    def initial_form(spec: MatrixSpec) -> Any:
        return jax.eval_shape(lambda: (*rule.init(spec), init_graft(grafting, spec)))

    def init_fn(params: optax.Params) -> GradientRuleState:
        check_some_params(params)
        leaves = Leaves(params)
        count = jnp.zeros([], jnp.int32)
        if leaves.is_placeholder:
            # optax inits with a placeholder to find what is shaped like parameters: nothing here
            # is, and one leaf for each field says so whatever the parameters are.
            nothing: Any = jnp.zeros([])
            return GradientRuleState(count, nothing, nothing, nothing, nothing, nothing, name)
        specs = specs_of(leaves)
        initial = {path: rule.init(spec) for path, spec in specs.items()}
        return GradientRuleState(
            gradient_count=count,
            gradient_factors={path: factors for path, (factors, _) in initial.items()},
            gradient_memory={path: memory for path, (_, memory) in initial.items()},
            graft_memory={path: init_graft(grafting, spec) for path, spec in specs.items()},
            failed_refreshes=no_failures(specs),
            failed_in_a_row=no_failures(specs),
            gradient_rule=name,
        )

    def update_fn(
        updates: optax.Updates,
        state: GradientRuleState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GradientRuleState]:
        del params, extra_args
        leaves = Leaves(updates)
        if leaves.is_placeholder:
            return updates, state
        state = jax.tree.map(as_count, state)
        check_rule(rule, state.gradient_rule)
        specs = specs_of(leaves)
        _check_state(specs, state)
        for path, spec in specs.items():
            for name, wanted in zip(KEPT, initial_form(spec), strict=True):
                check_form(getattr(state, name)[path], wanted, f"`{name}` of {path!r}")
        gradients = {path: leaves[path] for path in specs}
        like = partitions_of((gradients, state))
        changed, new_state = laid_out_like(
            functools.partial(preconditioned, specs), like, gradients, state
        )
        return leaves.replaced(changed), new_state

    def preconditioned(
        specs: dict[str, MatrixSpec], updates: dict[str, jax.Array], state: GradientRuleState
    ) -> tuple[dict[str, jax.Array], GradientRuleState]:
        count = state.gradient_count
        gradients = {
            path: spec.to_matrix(updates[path]).astype(spec.statistics_dtype)
            for path, spec in specs.items()
        }
        whole = {path: jnp.isfinite(g).all((-2, -1)) for path, g in gradients.items()}
        finite = dict(whole)
        memory = {}
        for path, spec in specs.items():
            old = state.gradient_memory[path]
            new = rule.observe(spec, old, gradients[path], count)
            finite[path] &= all_finite(new, finite[path].ndim)  # squares may overflow
            memory[path] = choose(finite[path], new, old)
        key = jax.random.fold_in(jax.random.key(seed), count)

        def refresh(carry: Carry) -> Carry:
            return _refresh_all(rule, specs, carry, gradients, finite, count, key)

        carry = Carry(state.gradient_factors, memory, state.failed_refreshes, state.failed_in_a_row)
        carry = jax.lax.cond(is_due(refresh_every, count), refresh, lambda x: x, carry)
        factors, memory = carry.factors, carry.memory
        changed, graft_memory = {}, {}
        for path, spec in specs.items():
            direction, graft_memory[path] = graft(
                grafting,
                state.graft_memory[path],
                gradients[path],
                rule.precondition(factors[path], gradients[path]),
                finite[path],
            )
            if grafting is None:
                # What overflows of a finite gradient is let go: a momentum would keep it for ever.
                lost = whole[path] & jnp.logical_not(all_finite(direction, whole[path].ndim))
                direction = choose(lost, jnp.zeros_like(direction), direction)
            changed[path] = spec.from_matrix(direction).astype(updates[path].dtype)
        return changed, GradientRuleState(
            gradient_count=optax.safe_increment(count),
            gradient_factors=factors,
            gradient_memory=memory,
            graft_memory=graft_memory,
            failed_refreshes=carry.skipped,
            failed_in_a_row=carry.in_a_row,
            gradient_rule=state.gradient_rule,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _check_state(specs: dict[str, MatrixSpec], state: GradientRuleState) -> None:
    known = state.gradient_factors
    if set(specs) != set(known):
        raise ValueError(
            f"The gradients have matrices at {sorted(specs)}, the optimizer state is of "
            f"{sorted(known)}. Call tx.init again with the parameters that you train."
        )
    for path, spec in specs.items():
        factors = known[path]
        got = tuple(factor.dim for factor in factors), factors.K.batch_shape
        if got != (spec.dims, spec.stack_shape):
            raise ValueError(
                f"The gradient at {path!r} makes matrices of {spec.dims}, stacked "
                f"{spec.stack_shape}; the optimizer state has factors for {got[0]}, stacked "
                f"{got[1]}. Call tx.init again with the parameters that you train."
            )


def _refresh_all(
    rule: GradientRule,
    specs: dict[str, MatrixSpec],
    carry: Carry,
    gradients: dict[str, jax.Array],
    finite: dict[str, jax.Array],
    count: jax.Array,
    key: jax.Array,
) -> Carry:
    factors, memory, failed, in_a_row = (dict(part) for part in carry)
    results = rule.refresh_all(specs, factors, memory, gradients, count, key)
    for path, (*new, good) in results.items():
        usable = finite[path] & all_finite(new, finite[path].ndim)
        old = factors[path], memory[path]
        factors[path], memory[path] = choose(usable, tuple(new), old)
        failed[path] = failed[path] + jnp.logical_not(good & usable)
        in_a_row[path] = jnp.where(good & usable, 0, in_a_row[path] + 1)
    return Carry(factors, memory, failed, in_a_row)
