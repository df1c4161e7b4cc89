"""One refresh of all parameters, and what is done to states whatever the rule."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.layers import MatrixView
from singd_optax.layers._groups import Group
from singd_optax.layers._roles import roles_of, sides_of
from singd_optax.measures import SIDES, Statistics, is_stale, moments_of
from singd_optax.rules import Rule, choose
from singd_optax.structures import stochastic_round
from singd_optax.structures._numerics import is_finite

Views = Mapping[str, MatrixView]


class Carry(NamedTuple):
    """What a refresh changes, each by path: as in ``RuleState``."""

    states: dict[str, PyTree]
    skipped: dict[str, jax.Array]
    in_a_row: dict[str, jax.Array]


#: A group whose members have more bytes of state than this is refreshed one by one: what is made on
#: the way is then as large as a layer, and not as the group.
_LARGE = 2**18


def refreshed(
    rule: Rule,
    views: Views,
    carry: Carry,
    statistics: Mapping[str, Statistics],
    gradients: Mapping[str, jax.Array],
    finite: Mapping[str, jax.Array],
    count: jax.Array,
    key: jax.Array,
) -> Carry:
    """New states; those whose statistics or gradients are of no use stay, and count."""
    large = {
        path: view
        for path, view in views.items()
        if isinstance(view, Group)
        and not rule.refreshes_jointly
        and _bytes(carry.states[path]) > _LARGE * len(view.members)
    }
    rest = {path: view for path, view in views.items() if path not in large}
    new = _at_once(rule, rest, carry, statistics, gradients, finite, count, key)
    for index, (path, view) in enumerate(large.items()):
        own = Carry(*({path: part[path]} for part in carry))
        of_group = jax.random.fold_in(key, len(views) + index)
        arguments = own, statistics, gradients[path], finite[path], count, of_group
        done = _one_by_one(rule, view, *arguments)
        new = Carry(*(part | one for part, one in zip(new, done, strict=True)))
    return new


def _one_by_one(
    rule: Rule,
    view: Group,
    carry: Carry,
    statistics: Mapping[str, Statistics],
    gradients: jax.Array,
    finite: jax.Array,
    count: jax.Array,
    key: jax.Array,
) -> Carry:
    """The new states of a group, each written over the old one."""
    member = view.members[0]
    path = member.path
    # Statistics are not stacked: they are where backward passes left them, one copied at a time.
    each = [(lambda own=statistics[one.path]: {path: own}) for one in view.members if statistics]

    def turn(index: jax.Array, carry: Carry) -> Carry:
        at = lambda stack: jax.lax.dynamic_index_in_dim(stack, index, 0, keepdims=False)
        own, gradient, whole = jax.tree.map(at, (carry, gradients, finite))
        measured = jax.lax.switch(index, each) if each else {}
        of_turn = jax.random.fold_in(key, index)
        arguments = own, measured, {path: gradient}, {path: whole}, count, of_turn
        put = lambda stack, new: jax.lax.dynamic_update_index_in_dim(stack, new, index, 0)
        return jax.tree.map(put, carry, _at_once(rule, {path: member}, *arguments))

    new: Carry = jax.lax.fori_loop(0, len(view.members), turn, carry)
    return new


def _at_once(
    rule: Rule,
    views: Views,
    carry: Carry,
    statistics: Mapping[str, Statistics],
    gradients: Mapping[str, jax.Array],
    finite: Mapping[str, jax.Array],
    count: jax.Array,
    key: jax.Array,
) -> Carry:
    old, skipped, in_a_row = ({path: part[path] for path in views} for part in carry)
    measured = {path: _measured(rule, views[path], old[path], statistics) for path in views}
    wide = {path: widened(view, old[path]) for path, view in views.items()}
    of_rule, of_rounding = jax.random.split(key)
    results = rule.refresh_all(views, wide, measured, gradients, count, of_rule)
    states = {}
    for index, (path, view) in enumerate(views.items()):
        new, went_well = results[path]
        new = stored(view, wide[path], new, old[path], of_rounding, index)
        usable = all_finite(new, len(view.stack_shape)) & _is_good(measured[path], finite[path])
        if statistics:
            usable &= jnp.logical_not(is_stale(statistics_of(view, statistics), count))
        good = usable & went_well
        states[path] = view.placement.constrained(
            choose(usable, new, old[path]), sides_of(type(new))
        )
        skipped[path] = skipped[path] + jnp.logical_not(good)
        in_a_row[path] = jnp.where(good, 0, in_a_row[path] + 1)
    return Carry(states, skipped, in_a_row)


def statistics_of(view: MatrixView, statistics: Mapping[str, Statistics]) -> Statistics:
    """The statistics of a layer, or of a group of them."""
    if not isinstance(view, Group):
        return statistics[view.path]
    own = [statistics[one.path] for one in view.members]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)


def _measured(
    rule: Rule, view: MatrixView, state: PyTree, statistics: Mapping[str, Statistics]
) -> Statistics | None:
    """The statistics of a layer as its rule wants them."""
    if not statistics:
        return None
    own = statistics_of(view, statistics)
    merged = view.placement.constrained(own.merged(), SIDES)
    whitening = moments_of(rule.measures).whitening(state)
    return view.placement.whitened(merged, SIDES, whitening, rule.precision)


def _is_good(statistics: Statistics | None, finite: jax.Array) -> jax.Array:
    """Whether there is something to learn from: finite statistics that are not empty."""
    if statistics is None:
        return finite
    usable = [(mean > 0) & jnp.isfinite(mean) for mean in (statistics.mean_U, statistics.mean_G)]
    return usable[0] & usable[1]


def widened(view: MatrixView, state: PyTree) -> PyTree:
    """The state as rules see it: factors in the dtype of statistics."""
    roles = roles_of(type(state))
    dtype = view.statistics_dtype
    return state._replace(
        **{
            name: jax.tree.map(lambda leaf: leaf.astype(dtype), getattr(state, name))
            for name, role in roles.items()
            if role.has_factor_dtype
        }
    )


def stored(
    view: MatrixView, before: PyTree, new: PyTree, old: PyTree, key: jax.Array, index: int
) -> PyTree:
    """The state as it is kept, each field in the dtype of its role.

    Args:
      view: The parameter.
      before: What the rule got, widened.
      new: What it made of it; what it did not touch is not rounded again.
      old: What was kept.
      key: The key of the random bits with which narrow factors are rounded.
      index: The index of the parameter, by which its bits are others.
    """
    roles = roles_of(type(new))
    parts = {}
    for place, (name, role) in enumerate(roles.items()):
        own, kept = getattr(new, name), getattr(old, name)
        if own is getattr(before, name):
            parts[name] = kept
            continue
        leaves, treedef = jax.tree.flatten(own)
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(kept)]
        if role.has_factor_dtype and "bfloat16" in view.factor_dtype:
            own_key = jax.random.fold_in(jax.random.fold_in(key, index), place)
            keys = jax.random.split(own_key, len(leaves))
            rounded = [stochastic_round(*one) for one in zip(leaves, dtypes, keys, strict=True)]
        else:
            rounded = [leaf.astype(dtype) for leaf, dtype in zip(leaves, dtypes, strict=True)]
        parts[name] = jax.tree.unflatten(treedef, rounded)
    return new._replace(**parts)


def all_finite(tree: PyTree, stack: int) -> jax.Array:
    """Whether all numbers are finite, for each matrix of a stack.

    Each by itself: sums of squares overflow above entries of 1e19, and second moments and their
    inverses are larger where the loss is large or small.
    """
    finite = [
        is_finite(leaf, stack)
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return functools.reduce(jnp.logical_and, finite, jnp.asarray(True))


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
