"""Is a part of an optimizer state of the form that it should have?"""

from singd_optax._types import PyTree
from singd_optax.layers._rule_tag import RuleTag


def check_form(got: PyTree, expected: PyTree, what: str) -> None:
    """Raise unless a part of a state is made of the same containers as the expected one.

    Args:
      got: From a checkpoint, or from ``init``.
      expected: What ``init`` makes now; arrays, or their shapes.
      what: What it is, for the message.

    Raises:
      ValueError: They differ, with where.
    """
    difference = differing_form(got, expected)
    if difference:
        raise ValueError(
            f"{what} in `opt_state` is not of this optimizer: {difference}. It was made by another "
            "rule, or with other options: use the optimizer that it is of, or a new state from "
            "tx.init(params)."
        )


def differing_form(got: PyTree, expected: PyTree, where: str = "") -> str:
    """Where containers first differ, in words; empty if they do not.

    NamedTuples and tuples, of which optax builds its states, are compared by class and length, and
    in them everything else as a whole: whether it is there at all. Of dicts only those of
    ``optax.partition`` are looked into, since others depend on the parameters.

    >>> differing_form((1, None), (1, 2))
    '[1] is missing, and should be there'
    """
    if _is_tuple(got) and _is_tuple(expected) and type(got) is type(expected):
        names = [f".{name}" for name in getattr(got, "_fields", ())]
        names = names or [f"[{index}]" for index in range(max(len(got), len(expected)))]
        if len(got) != len(expected):
            return f"{where or 'it'} has {len(got)} parts, and should have {len(expected)}"
        parts = [
            part
            for name, g, e in zip(names, got, expected, strict=True)
            for part in _groups(where + name, g, e)
        ]
        return next(filter(None, (differing_form(g, e, name) for name, g, e in parts)), "")
    kinds = _kind(got), _kind(expected)
    if kinds[0] != kinds[1]:
        return f"{where.removeprefix('.') or 'it'} is {kinds[0]}, and should be {kinds[1]}"
    return ""


def _groups(name: str, got: PyTree, expected: PyTree) -> list[tuple[str, PyTree, PyTree]]:
    """The states of the groups of ``optax.partition``, or the two as they are."""
    split = name.endswith(".inner_states") and isinstance(got, dict) and isinstance(expected, dict)
    if not split or got.keys() != expected.keys():
        return [(name, got, expected)]
    return [(f"{name}[{key!r}]", got[key], expected[key]) for key in got]


def _is_tuple(node: PyTree) -> bool:
    return isinstance(node, tuple)


def _kind(node: PyTree) -> str:
    if node is None:
        return "missing"
    if _is_tuple(node):
        return f"of class {type(node).__name__}"
    if isinstance(node, RuleTag):
        return f"of the rule {node.name!r}"
    # Arrays may be boxed, and dicts may be of several classes.
    return "there"
