"""The module whose method runs now in this thread: where ``tag`` finds a kernel by its name.

Inside a lifted transform a module sees slices of the parameters, and what measures them travels
beside these slices; so ``tag`` must look there, and not among the parameters as the loss has them.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Holder(NamedTuple):
    """The parameters that a module holds itself.

    Attributes:
      arrays: By name.
      riders: What travels beside some of them, by name.
    """

    arrays: Mapping[str, Any] = {}
    riders: Mapping[str, Any] = {}

    def name_of(self, array: Any) -> str | None:
        """The name of this very array, if it is one of them."""
        return next((name for name, value in self.arrays.items() if value is array), None)


class _Thread(threading.local):
    holder: Holder = Holder()


_thread = _Thread()


def current_holder() -> Holder:
    """What the module holds whose method runs now; nothing outside of modules."""
    return _thread.holder


@contextlib.contextmanager
def holding(arrays: Mapping[str, Any], riders: Mapping[str, Any]) -> Iterator[None]:
    """Say what the module holds whose method runs now."""
    old, _thread.holder = _thread.holder, Holder(arrays, riders)
    try:
        yield
    finally:
        _thread.holder = old
