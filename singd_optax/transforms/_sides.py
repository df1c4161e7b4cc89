"""Which fields of what rules keep belong to K, and which to C."""

from singd_optax.placement import Side, Sides

#: Of the factors and memories of all rules here; a field that is a NamedTuple has fields itself.
_SIDES: dict[str, Side] = {
    **{"K": 0, "values_K": 0, "S_K": 0, "L": 0},
    **{"C": 1, "values_C": 1, "S_C": 1, "R": 1},
}


def sides_of(tree: object) -> Sides:
    """The sides of the fields of factors, or of the memory of a rule; None of all others."""
    fields = getattr(tree, "_fields", None)
    if fields is None:
        return None
    return {
        name: _SIDES[name] if name in _SIDES else sides_of(getattr(tree, name)) for name in fields
    }
