"""What each field of a rule's state is: said beside its type, read by whoever treats states alike.

Dtypes, rounding, placement on meshes, checks of checkpoints and diagnostics go by the role of a
field, never by its name.
"""

import typing
from typing import Annotated, Literal, NamedTuple

import jax

from singd_optax.structures import IdentityMatrix, StructuredMatrix

#: "factor": multiplies gradients. "basis": likewise, and is orthogonal. "blocks": arrays that
#: multiply parts of gradients, with the entries of their side first. "product": made of factors,
#: multiplies gradients in their place. "factor_momentum": of steps on factors. "moment": of
#: gradients, or of rows. "values": one number for each row or column. "number", "counter": one for
#: each matrix of the stack. "none": the identity, on a side that the rule has no factor of.
Kind = Literal[
    "factor",
    "basis",
    "blocks",
    "product",
    "factor_momentum",
    "moment",
    "values",
    "number",
    "counter",
    "none",
]

#: Kinds that are kept in the factors' dtypes; all others are in that of statistics, or int32.
_IN_FACTOR_DTYPE: tuple[Kind, ...] = ("factor", "basis", "blocks", "product", "factor_momentum")
#: Kinds that multiply gradients as a whole, by structured matrices.
_MULTIPLIES: tuple[Kind, ...] = ("factor", "basis", "product")


class Role(NamedTuple):
    """The role of a field of a rule's state: what is done with it by whoever treats states alike.

    Attributes:
      kind: What the field is: "factor" (multiplies gradients), "basis" (so does an orthogonal one),
        "blocks" (arrays, with the entries of their side first, that multiply parts of gradients),
        "product" (made of factors, multiplies in their place), "factor_momentum" (the momentum of
        steps on factors), "moment" (of gradients or rows), "values" (one number for each row or
        column), "number" or "counter" (one for each matrix), or "none" (the identity, on a side
        without a factor).
      side: 0 for rows (inputs), 1 for columns (outputs), None for neither or both.
    """

    kind: Kind
    side: int | None = None

    @property
    def has_factor_dtype(self) -> bool:
        """Whether the field has the dtype of its side's factor, rounded at random if bfloat16."""
        return self.kind in _IN_FACTOR_DTYPE

    @property
    def multiplies(self) -> bool:
        """Whether gradients are multiplied with the field."""
        return self.kind in _MULTIPLIES


RowFactor = Annotated[StructuredMatrix, Role("factor", 0)]
ColumnFactor = Annotated[StructuredMatrix, Role("factor", 1)]
NoColumnFactor = Annotated[IdentityMatrix, Role("none", 1)]
RowBasis = Annotated[StructuredMatrix, Role("basis", 0)]
ColumnBasis = Annotated[StructuredMatrix, Role("basis", 1)]
RowProduct = Annotated[StructuredMatrix | None, Role("product", 0)]
ColumnProduct = Annotated[StructuredMatrix | None, Role("product", 1)]
RowMomentum = Annotated[StructuredMatrix | None, Role("factor_momentum", 0)]
ColumnMomentum = Annotated[StructuredMatrix | None, Role("factor_momentum", 1)]
RowMoment = Annotated[StructuredMatrix, Role("moment", 0)]
ColumnMoment = Annotated[StructuredMatrix, Role("moment", 1)]
RowValues = Annotated[jax.Array, Role("values", 0)]
ColumnValues = Annotated[jax.Array, Role("values", 1)]
Entries = Annotated[jax.Array, Role("moment")]
RowEntries = Annotated[jax.Array, Role("moment", 0)]
ColumnEntries = Annotated[jax.Array, Role("moment", 1)]
Number = Annotated[jax.Array, Role("number")]
Counter = Annotated[jax.Array, Role("counter")]


def sides_of(state: type) -> dict[str, int | None]:
    """The side of each field, as placements want it."""
    return {name: role.side for name, role in roles_of(state).items()}


def multiplying_sides(state: type) -> dict[str, int | None]:
    """The side of each field that multiplies gradients, and None for all others."""
    roles = roles_of(state)
    return {name: role.side if role.multiplies else None for name, role in roles.items()}


def role_of_factors(state: type) -> dict[str, Role]:
    """The fields that multiply gradients, factors and bases, with their roles; and identities."""
    kinds = ("factor", "basis", "none")
    return {n: role for n, role in roles_of(state).items() if role.kind in kinds}


def roles_of(state: type) -> dict[str, Role]:
    """The role of each field of a rule's state, a ``NamedTuple``.

    Args:
      state: The class.

    Raises:
      TypeError: It is no NamedTuple, or a field says no role.

    >>> class State(NamedTuple):
    ...     K: RowFactor
    ...     started: Counter
    >>> roles_of(State)["K"]
    Role(kind='factor', side=0)
    """
    if state in _KNOWN:
        return _KNOWN[state]
    fields = getattr(state, "_fields", None)
    if fields is None:
        raise TypeError(
            f"The state of a rule must be a NamedTuple, got {state!r}. Make it one, whose fields "
            "are annotated with their roles, such as K: singd_optax.rules.RowFactor."
        )
    hints = typing.get_type_hints(state, include_extras=True)
    found = {}
    for name in fields:
        extras = getattr(hints[name], "__metadata__", ())
        role = next((one for one in extras if isinstance(one, Role)), None)
        if role is None:
            raise TypeError(
                f"The field {name!r} of {state!r} says no role. Annotate it with one of "
                "singd_optax.rules: RowFactor, ColumnMoment, Number, Counter, ..., or with "
                "Annotated[type, Role(kind, side)]."
            )
        found[name] = role
    _KNOWN[state] = found
    return found


#: What was found before, by class.
_KNOWN: dict[type, dict[str, Role]] = {}
