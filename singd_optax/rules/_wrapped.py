"""Rules that wrap another rule: what they share, and states with the fields of both."""

import dataclasses
from typing import ClassVar, NamedTuple, get_type_hints

import jax

from singd_optax._types import PyTree
from singd_optax.layers import MatrixView
from singd_optax.layers._roles import roles_of
from singd_optax.measures import Measure, Statistics
from singd_optax.rules._rule import Recipe, Rule
from singd_optax.structures import Precision, Structure

#: What is a class variable of other rules, and is taken from the rule inside.
_SAME = (
    *("State", "recipe", "structures", "precision"),
    *("refresh_first", "is_random", "momentum_of", "is_of_whole"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrapped(Rule):
    """The base of rules that wrap another one: all is done by it, but for what they override.

    Attributes:
      rule: The rule to wrap.

    Raises:
      TypeError: ``rule`` is no rule.
    """

    rule: Rule = dataclasses.field(kw_only=False)
    precision: Precision = dataclasses.field(init=False)

    State: ClassVar[type]
    recipe: ClassVar[Recipe]
    structures: ClassVar[str | Structure]
    refresh_first: ClassVar[bool]
    is_random: ClassVar[bool]
    #: The fields that states have beside those of the rule inside: a NamedTuple, or None.
    Own: ClassVar[type | None] = None

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise TypeError(
                "`rule` must be a singd_optax.rules.Rule, such as singd_optax.optimizers.KFAC(), "
                f"got {self.rule!r} of type {type(self.rule).__name__}."
            )
        for name in _SAME:
            object.__setattr__(self, name, getattr(self.rule, name))

    @property
    def state_name(self) -> str:
        """The names of this rule and of the one inside."""
        return f"{type(self).__name__} {self.rule.state_name}"

    @property
    def observes(self) -> bool:
        """Whether the rule inside observes gradients."""
        return self.rule.observes

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of the rule inside."""
        return self.rule.measures

    def init(self, view: MatrixView) -> PyTree:
        """The state of the rule inside, and this rule's own fields."""
        own = self.own_init(view)
        inner = self.rule.init(view)
        return inner if own is None else _rebuilt(type(inner), type(own), (*inner, *own))

    def own_init(self, view: MatrixView) -> PyTree:
        """This rule's own fields before the first step: a NamedTuple, or None without any."""
        del view
        return None

    def inner(self, state: PyTree) -> PyTree:
        """The state of the rule inside, in its own class."""
        if self.Own is None:
            return state
        return state.inner_type(*(getattr(state, name) for name in state.inner_type._fields))

    def joined(self, state: PyTree, inner: PyTree) -> PyTree:
        """This state, with another state of the rule inside."""
        return inner if self.Own is None else state._replace(**inner._asdict())

    def observe(
        self, view: MatrixView, state: PyTree, gradient: jax.Array, count: jax.Array
    ) -> PyTree:
        """Do as the rule inside does."""
        return self.joined(state, self.rule.observe(view, self.inner(state), gradient, count))

    def refresh(
        self,
        view: MatrixView,
        state: PyTree,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[PyTree, jax.Array | bool]:
        """Do as the rule inside does."""
        new, ok = self.rule.refresh(view, self.inner(state), statistics, gradient, count, key)
        return self.joined(state, new), ok

    def direction(
        self,
        view: MatrixView,
        state: PyTree,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, PyTree]:
        """Do as the rule inside does."""
        inner = self.inner(state)
        found, new = self.rule.direction(view, inner, vector, gradient, count)
        return found, state if new is inner else self.joined(state, new)

    def curvature(
        self, view: MatrixView, state: PyTree, matrix: jax.Array, count: jax.Array
    ) -> jax.Array:
        """Do as the rule inside does."""
        return self.rule.curvature(view, self.inner(state), matrix, count)

    def whitening(self) -> Rule:
        """This rule, with the form of the rule inside that whitens."""
        return dataclasses.replace(self, rule=self.rule.whitening())

    def uncached(self) -> Rule:
        """This rule, with the form of the rule inside that caches nothing."""
        return dataclasses.replace(self, rule=self.rule.uncached())

    def whiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """Do as the rule inside does."""
        return self.rule.whiten(view, self.inner(state), matrix)

    def unwhiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """Do as the rule inside does."""
        return self.rule.unwhiten(view, self.inner(state), matrix)


class _Joined:
    """What states with fields of two NamedTuples have in common."""

    inner_type: ClassVar[type]
    own_type: ClassVar[type]
    _fields: ClassVar[tuple[str, ...]]

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the two classes, which have names; the class of both is made when needed."""
        values = tuple(getattr(self, name) for name in self._fields)
        return _rebuilt, (self.inner_type, self.own_type, values)


def _rebuilt(inner: type, own: type, values: tuple[PyTree, ...]) -> PyTree:
    if (inner, own) not in _KNOWN:
        _KNOWN[inner, own] = _joined(inner, own)
    return _KNOWN[inner, own](*values)


#: The classes that were made, by the two that each is made of.
_KNOWN: dict[tuple[type, type], type] = {}


def _joined(inner: type, own: type) -> type:
    """A NamedTuple with the fields of both."""
    fields: dict[str, object] = {}
    for part in (inner, own):
        roles_of(part)
        fields |= get_type_hints(part, include_extras=True)
    name = own.__name__ + inner.__name__
    plain = NamedTuple(name, list(fields.items()))  # type: ignore[misc]
    parts = {"inner_type": inner, "own_type": own, "__slots__": (), "__module__": __name__}
    return type(name, (_Joined, plain), parts)
