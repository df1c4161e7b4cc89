"""What was told of the calls in one trace, told again to the same calls in another."""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar


class ModulePath(NamedTuple):
    """Where in a model a call is: a part of its signature that another trace may not have.

    A transformation of a module's class traces it once for several modules, or once for each.
    """

    path: tuple[str, ...]


Told = TypeVar("Told")
Other = TypeVar("Other")


class Sequences(Generic[Told]):
    """For each kind of call, what each one in turn is told.

    Two traces of one loss function make the same calls in the same order. Where one of them makes
    more (a function is traced anew, as a transformation found no trace of it), all calls of the
    kind must be told the same.
    """

    def __init__(self) -> None:
        """Nothing is told."""
        self._told: dict[Hashable, list[Told]] = {}
        self._elsewhere: dict[Hashable, list[Told]] = {}
        self._passed: Counter[Any] = Counter()

    def add(self, signature: Hashable, told: Told) -> None:
        """Say what the next call of a kind will be told."""
        self._told.setdefault(signature, []).append(told)
        self._elsewhere.setdefault(_without_place(signature), []).append(told)

    def restart(self) -> None:
        """Tell all from the beginning."""
        self._passed.clear()

    def mapped(self, function: Callable[[Told], Other]) -> "Sequences[Other]":
        """The same with other things that are told."""
        new: Sequences[Other] = Sequences()
        for signature, told in self._told.items():
            for one in told:
                new.add(signature, function(one))
        return new

    def next(self, signature: Hashable, *, is_certain: bool = True) -> Told | None:
        """What the next call is told; None if there was none of the kind.

        Args:
          signature: Of the call.
          is_certain: Whether it is an error if that cannot be told; else None is.

        Raises:
          ValueError: There are more calls than there were, and they were told different things.
        """
        told = self._told.get(signature) or self._elsewhere.get(_without_place(signature), [])
        place = self._passed[signature]
        self._passed[signature] += 1
        if place < len(told) and signature in self._told:
            return told[place]
        if all(one == told[0] for one in told):
            return told[0] if told else None
        if not is_certain:
            return None
        raise ValueError(
            f"The loss function made {place + 1} calls of {signature}, and made {len(told)} when "
            "it was traced without derivatives: which layer each of them is cannot be told. A "
            "function with a derivative of its own (custom_vjp) that calls layers does that; leave "
            "these layers out with layers.without(...)."
        )


def _without_place(signature: Hashable) -> Hashable:
    if not isinstance(signature, tuple):
        return signature
    return tuple(part for part in signature if not isinstance(part, ModulePath))
