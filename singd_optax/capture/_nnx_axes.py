"""Which axes of stacked NNX parameters transforms take off, told by the shapes of markers.

NNX announces no axes, and a kernel's shape does not tell them where sizes are equal. A marker that
is sliced like the kernel does: an axis more at its end fits axes that are counted from the
beginning, one at its front those that are counted from the end; and for a guess at the axes, a
marker whose other sizes are all unheard of is traced without an error only if the guess is right.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


class LossReadsAllLeavesError(ValueError):
    """The loss depends on what rides on parameters."""


class Seen(NamedTuple):
    """A parameter in one call.

    Attributes:
      path: Of the parameter.
      shape: Its shape in the call.
      marker: The shape of its marker there.
    """

    path: str
    shape: Shape
    marker: Shape


#: Trace the loss with markers of these shapes, by path; what calls saw, by path.
Trace = Callable[[Shapes], Mapping[str, Sequence[Seen]]]


def stacked_axes(trace: Trace, shapes: Shapes) -> dict[str, Shape | None]:
    """The axes that were taken off each parameter before its calls, as ``Stacking`` has them.

    Args:
      trace: Raises if markers cannot be sliced as their parameters are.
      shapes: Of all parameters.

    Returns:
      For each parameter that was seen in a call, its axes, or None if they cannot be told.

    Raises:
      LossReadsAllLeavesError: From ``trace``.
      Exception: What the loss function raises with no markers at all.
    """
    for from_end in (False, True):
        search = _Search(trace, shapes, from_end)
        try:
            seen = trace(search.markers({}))
        except LossReadsAllLeavesError:
            raise
        except Exception:
            continue
        return search.axes(seen)
    trace({})
    seen = trace(dict(shapes))
    return {
        path: () if all(one.shape == shapes[path] for one in calls) else None
        for path, calls in seen.items()
    }


class _Search:
    """The search among axes that are all counted from the same end."""

    def __init__(self, trace: Trace, shapes: Shapes, from_end: bool):
        self.trace, self.shapes, self.from_end = trace, shapes, from_end
        self.unheard = max((size for shape in shapes.values() for size in shape), default=0) + 1

    def axes(self, seen: Mapping[str, Sequence[Seen]]) -> dict[str, Shape | None]:
        guesses = {path: self._candidates(path, calls) for path, calls in seen.items()}
        known = {path: found[0] for path, found in guesses.items() if len(found) == 1}
        open_ = {path: found for path, found in guesses.items() if len(found) > 1}
        if open_:
            known |= self._confirmed({path: found[0] for path, found in open_.items()})
        for path, found in open_.items():
            for guess in found:
                if path not in known:
                    known |= self._confirmed({path: guess})
        return {path: self._removed(path, known[path]) if path in known else None for path in seen}

    def markers(self, guesses: Mapping[str, Shape]) -> Shapes:
        """Markers that can be sliced along the guessed axes only."""
        return {path: self._padded(self._altered(path, guesses)) for path in self.shapes}

    def _altered(self, path: str, guesses: Mapping[str, Shape]) -> Shape:
        shape = self.shapes[path]
        if path not in guesses:
            return shape
        return tuple(
            size if axis in guesses[path] else self.unheard + 1 + axis
            for axis, size in enumerate(shape)
        )

    def _padded(self, shape: Shape) -> Shape:
        return (self.unheard, *shape) if self.from_end else (*shape, self.unheard)

    def _candidates(self, path: str, calls: Sequence[Seen]) -> list[Shape]:
        """Sets of axes without which the shape is the one that was seen, in all calls."""
        full = self.shapes[path]
        ranks = {len(full) - len(one.shape) for one in calls}
        if len(ranks) != 1 or min(ranks) < 0:
            return []
        found = [
            axes
            for axes in itertools.combinations(range(len(full)), min(ranks))
            if all(
                one.shape == _without(full, axes) and one.marker == self._padded(one.shape)
                for one in calls
            )
        ]
        return found[::-1] if self.from_end else found

    def _confirmed(self, guesses: dict[str, Shape]) -> dict[str, Shape]:
        """Those of the guesses that are right."""
        try:
            seen = self.trace(self.markers(guesses))
        except Exception:
            return {}
        return {
            path: axes
            for path, axes in guesses.items()
            if all(
                one.marker == self._padded(_without(self._altered(path, guesses), axes))
                for one in seen.get(path, ())
            )
        }

    def _removed(self, path: str, axes: Shape) -> Shape:
        if self.from_end:
            rank = len(self.shapes[path])
            return tuple(axis - rank + done for done, axis in enumerate(reversed(axes)))
        return tuple(axis - done for done, axis in enumerate(axes))


def _without(shape: Shape, axes: Shape) -> Shape:
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)
