"""Modules that are read as a class of Flax is, though they are none of its instances."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax

from singd_optax.capture import _linen_kinds, _nnx_kinds
from singd_optax.capture._use import Use

#: The methods that can be read, each with the class that has it.
LIKE: Mapping[Any, type] = {
    getattr(kind, method): kind
    for kind in (*_linen_kinds.KINDS, *_nnx_kinds.KINDS)
    for method in ("__call__", "attend")
    if hasattr(kind, method)
}


class _Seen:
    """A module as a reader is to see it: what it does not say is as the class has it."""

    def __init__(self, module: Any, kind: type):
        self._module, self._kind = module, kind

    def __getattr__(self, name: str) -> Any:
        if name in ("bias", "use_bias"):  # whoever registers a class says the bias's name
            return None
        if hasattr(self._module, name):
            return getattr(self._module, name)
        init: Any = self._kind.__init__  # type: ignore[misc]
        parameter = inspect.signature(init).parameters.get(name)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            raise AttributeError(name)
        return parameter.default


def read_like(method: Callable[..., Any], module: Any, inputs: jax.Array, rest: Any) -> Use | str:
    """How a module uses its kernel if it does what a method of Flax does, or why it cannot be read.

    Args:
      method: One of ``LIKE``.
      module: Of any class, with the attributes that this method reads.
      inputs: What it multiplies.
      rest: Its other arguments, (args, kwargs).

    Raises:
      ValueError: The module has not the attributes.
    """
    kind = LIKE[method]
    reader = _linen_kinds.READERS.get(method) or _nnx_kinds.READERS[method]
    try:
        return reader(_Seen(module, kind), inputs, rest)
    except AttributeError as error:
        raise ValueError(
            f"register_layer: {type(module).__name__} cannot be read like {kind.__name__}: it has "
            f"no attribute {error}. Give the class this attribute, or say equation= or call=."
        ) from error
