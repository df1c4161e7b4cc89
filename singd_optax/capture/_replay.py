"""What was decided for the calls in one trace, replayed to the same calls in another."""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar


class ModulePath(NamedTuple):
    """Where in a model a call is: a part of its signature that another trace may not have.

    A transformation of a module's class traces it once for several modules, or once for each.
    """

    path: tuple[str, ...]


Answer = TypeVar("Answer")
Other = TypeVar("Other")


class Replay(Generic[Answer]):
    """For each kind of call, the answers that each one in turn gets.

    Two traces of one loss function make the same calls in the same order. Where one of them makes
    more (a function is traced anew, as a transformation found no trace of it), all calls of the
    kind must get the same.
    """

    def __init__(self) -> None:
        """There are no answers."""
        self._answers: dict[Hashable, list[Answer]] = {}
        self._elsewhere: dict[Hashable, list[Answer]] = {}
        self._passed: Counter[Hashable] = Counter()

    def add(self, signature: Hashable, answer: Answer) -> None:
        """Say what the next call of a kind will get."""
        self._answers.setdefault(signature, []).append(answer)
        self._elsewhere.setdefault(_without_path(signature), []).append(answer)

    def restart(self) -> None:
        """Begin again."""
        self._passed.clear()

    def mapped(self, function: Callable[[Answer], Other]) -> "Replay[Other]":
        """The same with other answers."""
        new: Replay[Other] = Replay()
        for signature, answers in self._answers.items():
            for answer in answers:
                new.add(signature, function(answer))
        return new

    def next(self, signature: Hashable, *, is_certain: bool = True) -> Answer | None:
        """What the next call gets; None if there was none of the kind.

        Args:
          signature: The signature of the call.
          is_certain: Whether it is an error if that cannot be told; else None is.

        Raises:
          ValueError: There are more calls than there were, and they got different answers.
        """
        answers = self._answers.get(signature) or self._elsewhere.get(_without_path(signature), [])
        place = self._passed[signature]
        self._passed[signature] += 1
        if place < len(answers) and signature in self._answers:
            return answers[place]
        if all(one == answers[0] for one in answers):
            return answers[0] if answers else None
        if not is_certain:
            return None
        raise ValueError(
            f"The loss function made {place + 1} calls of {signature}, and {len(answers)} when "
            "it was traced without derivatives: which layer each of them is cannot be told. A "
            "function with a derivative of its own (custom_vjp) that calls layers does that; leave "
            "these layers out with layers.without(...)."
        )


def _without_path(signature: Hashable) -> Hashable:
    if not isinstance(signature, tuple):
        return signature
    return tuple(part for part in signature if not isinstance(part, ModulePath))
