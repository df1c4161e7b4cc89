"""What users have said of module classes that are not known here, by class and method."""

import dataclasses
import threading
from collections.abc import Callable

from singd_optax._types import PyTree


@dataclasses.dataclass(frozen=True)
class RegisteredMethod:
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
    like: Callable[..., PyTree] | None = None
    call: Callable[..., PyTree] | None = None
    kernel: str = "kernel"
    bias: str | None = "bias"
    inputs: int | str = 0
    changes_kernel: bool = False


Key = tuple[type, str]

_lock = threading.Lock()
# Replaced as a whole, so that a thread that traces a loss needs no lock to read it.
_registered: dict[Key, RegisteredMethod] = {}


class Registration:
    """What was said of a class of modules, which can be taken back.

    Call ``remove()``, or use it in a ``with`` statement, at whose end it is taken back.
    """

    def __init__(self, key: Key, registered: RegisteredMethod):
        """Say it of the class and method, from now on."""
        self._key = key
        self._before = _replace(key, registered)

    def remove(self) -> None:
        """Take back what was said; what was said before of the same method holds again."""
        _replace(self._key, self._before)

    def __enter__(self) -> "Registration":
        """The registration itself, which holds already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take back what was said, as ``remove()`` does."""
        self.remove()


def registered_method(kind: type, method: str) -> RegisteredMethod | None:
    """What was said of this method of a class, or of a class that it has the method from.

    A sub-class that has a method of its own may do anything there, and is not what its base is.
    """
    table = _registered
    if not table:
        return None
    own = getattr(kind, method, None)
    for base in kind.__mro__:
        found = table.get((base, method))
        if found is not None:
            return found if getattr(base, method) is own else None
    return None


def is_registered(kind: type) -> bool:
    """Whether something was said of a method of this class."""
    return any(registered_method(kind, method) is not None for _, method in _registered)


def _replace(key: Key, registered: RegisteredMethod | None) -> RegisteredMethod | None:
    """Put something into the table, or take it out; what was there before."""
    global _registered
    with _lock:
        table = dict(_registered)
        before = table.pop(key, None)
        if registered is not None:
            table[key] = registered
        _registered = table
    return before
