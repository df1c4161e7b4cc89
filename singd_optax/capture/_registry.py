"""What users have said of module classes that are not known here, by class and method."""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Taught:
    """How calls of one method of a class of modules are read; one of the first three is set.

    Attributes:
      equation: The product, or what tells it from the module and its arguments.
      like: The method of a Flax class that is read as this one is to be.
      call: What runs in place of the method, and tags its products.
      kernel: The kernel's name in the module.
      bias: The bias's name there; a module without one has none.
      inputs: Which argument of the method is multiplied, by place or name.
      changes_kernel: Whether the module changes the kernel's numbers before it multiplies.
    """

    equation: str | Callable[..., str] | None = None
    like: Callable[..., Any] | None = None
    call: Callable[..., Any] | None = None
    kernel: str = "kernel"
    bias: str | None = "bias"
    inputs: int | str = 0
    changes_kernel: bool = False


Key = tuple[type, str]

_lock = threading.Lock()
# Replaced as a whole, so that a thread that traces a loss needs no lock to read it.
_taught: dict[Key, Taught] = {}


class Registration:
    """What was said of a class, which can be taken back: by hand, or at the end of a ``with``."""

    def __init__(self, key: Key, taught: Taught):
        """Say it."""
        self._key = key
        self._before = _replace(key, taught)

    def remove(self) -> None:
        """Take it back; what was said before of the same class and method holds again."""
        _replace(self._key, self._before)

    def __enter__(self) -> "Registration":
        """Nothing more to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take it back."""
        self.remove()


def taught_of(kind: type, method: str) -> Taught | None:
    """What was said of this method of a class, or of a class that it has the method from.

    A sub-class that has a method of its own may do anything there, and is not what its base is.

    Args:
      kind: The class of a module.
      method: The name of the method.
    """
    table = _taught
    if not table:
        return None
    own = getattr(kind, method, None)
    for base in kind.__mro__:
        found = table.get((base, method))
        if found is not None:
            return found if getattr(base, method) is own else None
    return None


def is_taught(kind: type) -> bool:
    """Whether something was said of a method of this class."""
    return any(taught_of(kind, method) is not None for _, method in _taught)


def _replace(key: Key, taught: Taught | None) -> Taught | None:
    """Put something into the table, or take it out; what was there before."""
    global _taught
    with _lock:
        table = dict(_taught)
        before = table.pop(key, None)
        if taught is not None:
            table[key] = taught
        _taught = table
    return before
