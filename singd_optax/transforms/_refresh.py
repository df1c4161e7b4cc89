"""One refresh of the factors of all layers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from singd_optax.layers import Curvature, LayerSpec, Statistics, whitening_factors
from singd_optax.rules import Rule
from singd_optax.transforms._sides import sides_of


class Carry(NamedTuple):
    """What a refresh changes, each by path: as in ``CurvatureState``."""

    factors: dict[str, Any]
    memory: dict[str, Any]
    skipped: dict[str, jax.Array]
    in_a_row: dict[str, jax.Array]


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
    factors, memory, skipped, in_a_row = (dict(part) for part in carry)
    for index, spec in enumerate(specs):
        path = spec.path
        old = (factors[path], memory[path])
        place, sides, whitening = spec.placement, Statistics.sides(), whitening_factors(old[0])
        measured = place.constrained(statistics[path].merged(), sides)
        measured = place.whitened(measured, sides, whitening, rule.precision)
        fresh = jnp.logical_not(statistics.is_stale(path, count))
        own_key = jax.random.fold_in(key, index)
        new, good = _refreshed(rule, spec, old, measured, fresh, count, own_key)
        factors[path], memory[path] = (place.constrained(part, sides_of(part)) for part in new)
        skipped[path] = skipped[path] + jnp.logical_not(good)
        in_a_row[path] = jnp.where(good, 0, in_a_row[path] + 1)
    return Carry(factors, memory, skipped, in_a_row)


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
    good &= all_finite(new, len(spec.stack_shape))

    def choose(fresh: jax.Array, last: jax.Array) -> jax.Array:
        return jnp.where(good.reshape(good.shape + (1,) * (fresh.ndim - good.ndim)), fresh, last)

    return jax.tree.map(choose, new, old), good


def all_finite(tree: Any, stack: int) -> jax.Array:
    """Whether all numbers are finite, for each layer of a stack.

    Each by itself: sums of squares overflow above entries of 1e19, and second moments and their
    inverses are larger where the loss is large or small.
    """
    finite = [
        jnp.isfinite(leaf).all(tuple(range(stack, leaf.ndim)))
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return jnp.stack(finite).all(axis=0)
