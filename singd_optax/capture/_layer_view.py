"""A layer of any framework, as the readers of ``_kinds`` see it."""

import dataclasses
import inspect
from collections.abc import Mapping

from singd_optax._types import PyTree


@dataclasses.dataclass(frozen=True)
class LayerView:
    """A module's attributes, under the names that readers use.

    Attributes:
      module: A module of any class.
      names: What it calls attributes that have other names in the readers.
      bias_name: The name of its bias, if it adds one.
      defaults: The class whose arguments' defaults are taken for attributes that it has not.
    """

    module: object
    names: Mapping[str, str]
    bias_name: str | None = None
    defaults: type | None = None

    def __getattr__(self, name: str) -> PyTree:
        """An attribute of the module, or its default."""
        own = self.names.get(name, name)
        if self.defaults is None or hasattr(self.module, own):
            return getattr(self.module, own)
        parameter = arguments_of(self.defaults).get(own)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            raise AttributeError(own)
        return parameter.default


def arguments_of(layer_class: type) -> Mapping[str, inspect.Parameter]:
    """The arguments with which layers of a class are made."""
    return inspect.signature(layer_class.__init__).parameters  # type: ignore[misc]
