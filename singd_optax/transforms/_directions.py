"""From gradients to directions: matrices, where they are computed, and one after the other."""

from collections.abc import Mapping, Sequence

import jax

from singd_optax._types import PyTree
from singd_optax.layers import MatrixView
from singd_optax.layers._groups import Group
from singd_optax.layers._roles import multiplying_sides, roles_of
from singd_optax.rules import Rule, choose
from singd_optax.structures._numerics import is_finite

Arrays = dict[str, jax.Array]


def chains_of(views: Mapping[str, MatrixView]) -> dict[str, list[str]]:
    """The views of each parameter by the first of them: several, where each axis is one.

    >>> import jax.numpy as jnp
    >>> from singd_optax.layers import find_matrices
    >>> chains_of(find_matrices({"w": jnp.ones((2, 3, 4))}, matrix_axes={"w": "each"}))
    {'w[0]': ['w[0]', 'w[1]', 'w[2]']}
    """
    chains: dict[tuple[str, ...], list[str]] = {}
    for name, view in views.items():
        chains.setdefault(tuple(view.shapes), []).append(name)
    return {names[0]: names for names in chains.values()}


def directions_of(
    rule: Rule,
    views: Mapping[str, MatrixView],
    chains: Mapping[str, Sequence[str]],
    states: Mapping[str, PyTree],
    vectors: Mapping[str, jax.Array],
    gradients: Mapping[str, jax.Array],
    count: jax.Array,
) -> tuple[Arrays, dict[str, PyTree]]:
    """What vectors become, by the first view of each parameter, and the states of all views."""
    directions, kept = {}, {}
    for first, names in chains.items():
        vector = vectors[first]
        for before, name in zip((first, *names), names, strict=False):
            if before != name:
                parts = as_parameters({before: views[before]}, {before: vector}, {})
                vector = as_matrix(views[name], parts)
            vector, kept[name] = direction(
                rule, views[name], states[name], vector, gradients[name], count
            )
        last = names[-1]
        if last != first:
            parts = as_parameters({last: views[last]}, {last: vector}, {})
            vector = as_matrix(views[first], parts)
        directions[first] = vector
    return directions, kept


def as_matrix(view: MatrixView, arrays: Mapping[str, jax.Array]) -> jax.Array:
    """The arrays of a parameter, by path, as a matrix in the dtype of statistics."""
    return view.to_matrix(*(arrays[path] for path in view.shapes)).astype(view.statistics_dtype)


def as_parameters(
    views: Mapping[str, MatrixView],
    matrices: Mapping[str, jax.Array],
    places: Mapping[str, jax.Array],
) -> Arrays:
    """The inverse, for all of them.

    Args:
      views: The views, by path.
      matrices: Their matrices, by path.
      places: The places of the members of groups in their stacks.
    """
    return {
        path: array
        for name, view in views.items()
        for path, array in view.placement.constrained_parameters(
            dict(zip(view.shapes, _parts(view, matrices[name], places), strict=True))
        ).items()
    }


def _parts(
    view: MatrixView, matrix: jax.Array, places: Mapping[str, jax.Array]
) -> tuple[jax.Array, ...]:
    if not isinstance(view, Group):
        return view.from_matrix(matrix)
    return view.from_matrix(matrix, tuple(places[one.path] for one in view.members))


def at_factors(view: MatrixView, state: PyTree, gradient: jax.Array) -> jax.Array:
    """The gradient where K is applied; the same on one device."""
    sides = multiplying_sides(type(state))
    return view.placement.gradient_to_factors(gradient, view.placement.placed(state, sides), sides)


def direction(
    rule: Rule,
    view: MatrixView,
    state: PyTree,
    vector: jax.Array,
    gradient: jax.Array,
    count: jax.Array,
) -> tuple[jax.Array, PyTree]:
    """What a vector becomes, computed where the factors are."""
    sides, placement = multiplying_sides(type(state)), view.placement
    placed = placement.placed(state, sides)
    vector = placement.gradient_to_factors(vector, placed, sides)
    matrix, new = rule.direction(view, placed, vector, gradient, count)
    matrix = placement.gradient_from_factors(matrix, placed, sides)
    if new is placed:
        return matrix, state
    parts = {
        name: getattr(state if getattr(new, name) is getattr(placed, name) else new, name)
        for name in roles_of(type(state))
    }
    cast = jax.tree.map(lambda new, old: new.astype(old.dtype), state._replace(**parts), state)
    return matrix, choose(is_finite(matrix, matrix.ndim - 2), cast, state)
