"""One refresh of the factors of all layers."""

from typing import Any

import jax
import jax.numpy as jnp

from singd_optax.layers import Curvature, LayerSpec, Statistics, constrained, whitened
from singd_optax.rules import Rule
from singd_optax.structures import contract

#: Factors, memory and skipped refreshes, each by path.
Carry = tuple[dict[str, Any], dict[str, Any], dict[str, jax.Array]]


def refresh_all(
    rule: Rule,
    specs: list[LayerSpec],
    carry: Carry,
    statistics: Curvature,
    count: jax.Array,
    key: jax.Array,
) -> Carry:
    """New factors and memory; those of layers whose statistics are of no use stay, and count.

    Layers of equal sizes are not stacked and refreshed together: measured on a transformer of 19
    layers, that took the compiler half as long again, for the copies in and out.
    """
    factors, memory, skipped = (dict(part) for part in carry)
    for index, spec in enumerate(specs):
        path = spec.path
        old = (factors[path], memory[path])
        measured = constrained(spec.placement, statistics[path].merged())
        measured = whitened(spec, factors[path], measured, rule.precision)
        fresh = jnp.logical_not(statistics.is_stale(path, count))
        own_key = jax.random.fold_in(key, index)
        new, good = _refreshed(rule, spec, old, measured, fresh, count, own_key)
        factors[path], memory[path] = constrained(spec.placement, new)
        skipped[path] = skipped[path] + jnp.logical_not(good)
    return factors, memory, skipped


def _refreshed(
    rule: Rule,
    spec: LayerSpec,
    old: tuple[Any, Any],
    statistics: Statistics,
    fresh: jax.Array,
    count: jax.Array,
    key: jax.Array,
) -> tuple[tuple[Any, Any], jax.Array]:
    """Factors and memory, new where the statistics are good; and where they are."""
    new = rule.refresh(spec, *old, statistics, count, key)
    good = fresh & (statistics.mean_U > 0) & (statistics.mean_G > 0)
    good &= jnp.isfinite(statistics.mean_U) & jnp.isfinite(statistics.mean_G)
    good &= _all_finite(new, len(spec.stack_shape))

    def choose(fresh: jax.Array, last: jax.Array) -> jax.Array:
        return jnp.where(good.reshape(good.shape + (1,) * (fresh.ndim - good.ndim)), fresh, last)

    return jax.tree.map(choose, new, old), good


def _all_finite(tree: Any, stack: int) -> jax.Array:
    """Whether all numbers are finite, for each layer of a stack.

    Told by sums of squares, which one product forms; so entries above 1e19 in float32 are taken
    for not finite, and could not be used for a preconditioner of second moments either.
    """
    axes = "abcdefgh"
    squares = [
        contract(f"...{own},...{own}->...", leaf, leaf)
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        for own in [axes[: leaf.ndim - stack]]
    ]
    return jnp.isfinite(sum(squares[1:], squares[0]))
