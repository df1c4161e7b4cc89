"""Any rule that sees gradients only, as an optax transformation."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_choice, check_interval
from singd_optax.layers import (
    Factors,
    Leaves,
    MatrixAxes,
    MatrixSpec,
    check_matrix_axes,
    laid_out_like,
    matrix_specs,
    parse_options,
    partitions_of,
)
from singd_optax.rules import GradientRule, choose
from singd_optax.structures import Structure
from singd_optax.transforms._curvature import Interval
from singd_optax.transforms._grafting import (
    GRAFTINGS,
    Grafting,
    GraftMoments,
    graft,
    init_graft,
)


class GradientRuleState(NamedTuple):
    """The optax state of every gradients-only ``scale_by_<rule>``.

    Attributes:
      gradient_count: Updates made so far, int32.
      gradient_factors: Path of a parameter -> its factors or roots (of rows, of columns).
      gradient_memory: Path -> whatever else the rule keeps (moments, momenta).
      graft_memory: Path -> what grafting keeps, or None.
      failed_refreshes: Path -> refreshes that failed, or were skipped because a gradient was not
        finite; int32, one for each matrix of a stack.
    """

    gradient_count: jax.Array
    gradient_factors: dict[str, Factors]
    gradient_memory: dict[str, Any]
    graft_memory: dict[str, GraftMoments | None]
    failed_refreshes: dict[str, jax.Array]


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
      that is not finite passes on, and changes no factor and no moment.

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

    def specs_of(leaves: Leaves) -> dict[str, MatrixSpec]:
        return matrix_specs(
            leaves, structures=structures, factor_dtype=factor_dtype, matrix_axes=matrix_axes
        )

    def init_fn(params: optax.Params) -> GradientRuleState:
        leaves = Leaves(params)
        count = jnp.zeros([], jnp.int32)
        if leaves.is_placeholder:
            # optax inits with a placeholder to find what is shaped like parameters: nothing here
            # is, and one leaf for each field says so whatever the parameters are.
            nothing: Any = jnp.zeros([])
            return GradientRuleState(count, nothing, nothing, nothing, nothing)
        specs = specs_of(leaves)
        initial = {path: rule.init(spec) for path, spec in specs.items()}
        return GradientRuleState(
            gradient_count=count,
            gradient_factors={path: factors for path, (factors, _) in initial.items()},
            gradient_memory={path: memory for path, (_, memory) in initial.items()},
            graft_memory={path: init_graft(grafting, spec) for path, spec in specs.items()},
            failed_refreshes={
                path: jnp.zeros(spec.stack_shape, jnp.int32) for path, spec in specs.items()
            },
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
        specs = specs_of(leaves)
        _check_state(specs, state)
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
        finite = {path: jnp.isfinite(g).all((-2, -1)) for path, g in gradients.items()}
        memory = {}
        for path, spec in specs.items():
            old = state.gradient_memory[path]
            new = rule.observe(spec, old, gradients[path], count)
            finite[path] &= _all_finite(new, finite[path].ndim)  # squares may overflow
            memory[path] = choose(finite[path], new, old)
        key = jax.random.fold_in(jax.random.key(seed), count)

        def refresh(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            return _refresh_all(rule, specs, carry, gradients, finite, count, key)

        interval = refresh_every(count) if callable(refresh_every) else refresh_every
        due = count % jnp.asarray(interval, count.dtype) == 0
        carry = (state.gradient_factors, memory, state.failed_refreshes)
        factors, memory, failed = jax.lax.cond(due, refresh, lambda x: x, carry)
        changed, graft_memory = {}, {}
        for path, spec in specs.items():
            direction, graft_memory[path] = graft(
                grafting,
                state.graft_memory[path],
                gradients[path],
                rule.precondition(factors[path], gradients[path]),
                finite[path],
            )
            changed[path] = spec.from_matrix(direction).astype(updates[path].dtype)
        return changed, GradientRuleState(
            optax.safe_increment(count), factors, memory, graft_memory, failed
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
    carry: tuple[Any, Any, Any],
    gradients: dict[str, jax.Array],
    finite: dict[str, jax.Array],
    count: jax.Array,
    key: jax.Array,
) -> tuple[Any, Any, Any]:
    factors, memory, failed = (dict(part) for part in carry)
    results = rule.refresh_all(specs, factors, memory, gradients, count, key)
    for path, (*new, good) in results.items():
        usable = finite[path] & _all_finite(new, finite[path].ndim)
        old = factors[path], memory[path]
        factors[path], memory[path] = choose(usable, tuple(new), old)
        failed[path] = failed[path] + jnp.logical_not(good & usable)
    return factors, memory, failed


def _all_finite(tree: Any, stack: int) -> jax.Array:
    """Whether all numbers are finite, for each matrix of a stack."""
    finite = [
        jnp.isfinite(leaf).all(tuple(range(stack, leaf.ndim))) for leaf in jax.tree.leaves(tree)
    ]
    return jnp.stack(finite).all(axis=0)
