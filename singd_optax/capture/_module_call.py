"""A call of a module, however a framework makes it, and what the module holds.

Inside a lifted transform a module sees slices of the parameters, and what measures them travels
beside these slices; so ``tag`` must look for a kernel that it knows by name in the module whose
method runs now, and not among the parameters as the loss has them.
"""

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax

from singd_optax._types import PyTree
from singd_optax.capture._framework import Framework, name_of
from singd_optax.capture._replay import ModulePath


class OwnParameters(NamedTuple):
    """The parameters that a module holds itself.

    Attributes:
      arrays: The arrays, by name.
      carriers: What travels beside some of them, by name.
    """

    arrays: Mapping[str, jax.Array] = {}
    carriers: Mapping[str, PyTree] = {}

    def name_of(self, array: object) -> str | None:
        """The name of this very array, if it is one of them."""
        return next((name for name, value in self.arrays.items() if value is array), None)

    @property
    def shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes, as a part of a call's signature."""
        return tuple((name, array.shape) for name, array in self.arrays.items())


class ModuleCall(NamedTuple):
    """A call of a module.

    Attributes:
      framework: The framework of the module.
      module: The module that is called.
      kind: Its class.
      method: The name of the method.
      function: Makes the call, given all arguments but the module.
      args: The arguments of the call, by place.
      kwargs: The arguments of the call, by name.
      own: The parameters that the module holds itself.
      path: Where the module is, if that can be told.
    """

    framework: Framework
    module: PyTree
    kind: type
    method: str
    function: Callable[..., PyTree]
    args: tuple[PyTree, ...]
    kwargs: dict[str, PyTree]
    own: OwnParameters
    path: ModulePath | None = None

    @property
    def name(self) -> str:
        """Of what is called, for people."""
        return name_of(self.kind, self.method)

    @property
    def arguments(self) -> dict[str, PyTree]:
        """All arguments but the module, by name."""
        signature = inspect.signature(getattr(self.kind, self.method))
        bound = signature.bind(self.module, *self.args, **self.kwargs)
        return dict(list(bound.arguments.items())[1:])


class _Thread(threading.local):
    own: OwnParameters = OwnParameters()


_thread = _Thread()


def current_own_parameters() -> OwnParameters:
    """What the module holds whose method runs now; nothing outside of modules."""
    return _thread.own


@contextlib.contextmanager
def running(call: ModuleCall) -> Iterator[None]:
    """Say that this call of a module runs now."""
    old, _thread.own = _thread.own, call.own
    try:
        yield
    finally:
        _thread.own = old
