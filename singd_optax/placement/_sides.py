"""Which arrays of a tree belong to K, which to C, and which to neither: said, never guessed."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from singd_optax.structures import StructuredMatrix

#: 0 for K (inputs, rows), 1 for C (outputs, columns), None for neither.
Side = int | None

#: One side for a whole tree, or for each field of a NamedTuple the sides of what is in it.
Sides = Side | Mapping[str, "Sides"]

Tree = TypeVar("Tree")


def at_sides(function: Callable[[Any, Side], Any], tree: Tree, sides: Sides) -> Tree:
    """The tree with ``function(part, side)`` for each of its parts.

    Args:
      function: A function of a part (a matrix, an array, or a tree of these) and its side.
      tree: A NamedTuple, or one part; parts that are None stay None.
      sides: The side of every field of it.

    Raises:
      KeyError: A field has no side.

    >>> from typing import NamedTuple
    >>> class Pair(NamedTuple):
    ...     left: str
    ...     right: str
    >>> at_sides(lambda part, side: f"{part}{side}", Pair("a", "b"), {"left": 0, "right": None})
    Pair(left='a0', right='bNone')
    """
    node: Any = tree
    if node is None:
        return tree
    if sides is None or isinstance(sides, int):
        return function(node, sides)
    fields = {name: at_sides(function, getattr(node, name), sides[name]) for name in node._fields}
    return node._replace(**fields)


def at_arrays(function: Callable[[Any, Side], Any], tree: Tree, sides: Sides) -> Tree:
    """The tree with ``function(array, side)`` for each of its arrays (or shapes)."""

    def part(node: object, side: Side) -> object:
        return jax.tree.map(lambda array: function(array, side), node)

    return at_sides(part, tree, sides)


def matrix_of(tree: object, sides: Sides, side: int) -> StructuredMatrix | None:
    """The first structured matrix of a side, or None if it has none."""
    found: list[StructuredMatrix] = []

    def collect(part: object, own: Side) -> object:
        if own == side and isinstance(part, StructuredMatrix):
            found.append(part)
        return part

    at_sides(collect, tree, sides)
    return found[0] if found else None
