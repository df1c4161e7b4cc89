"""All frameworks whose layers are read: where users name a class, it may be of any of them."""

from collections.abc import Callable, Mapping

import jax

from singd_optax._types import PyTree
from singd_optax.capture._framework import Framework
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._kinds import OtherArguments, Reader
from singd_optax.capture._layer_view import LayerView
from singd_optax.capture._linen_kinds import LINEN
from singd_optax.capture._nnx_kinds import NNX

#: The classes of modules that can be registered.
MODULE_CLASSES = (LINEN.module_class, NNX.module_class)

#: The methods that can be read, each with its class, the reader and the framework.
READABLE_METHODS: Mapping[object, tuple[type, Reader, Framework]] = {
    method: (layer_class, reader, framework)
    for framework in (LINEN, NNX)
    for method, (layer_class, reader) in framework.methods.items()
}


def read_like(
    method: Callable[..., PyTree], module: object, inputs: jax.Array, others: OtherArguments
) -> KernelUse | str:
    """How a module of any class uses its kernel if it does what one of ``READABLE_METHODS`` does.

    Raises:
      ValueError: The module has not the attributes that this method reads.
    """
    layer_class, reader, framework = READABLE_METHODS[method]
    try:  # without a bias: whoever registers a class says its name
        return reader(LayerView(module, framework.names, defaults=layer_class), inputs, others)
    except AttributeError as error:
        name, like = type(module).__name__, layer_class.__name__
        raise ValueError(
            f"register_layer: {name} cannot be read like {like}: it has no attribute {error}. Give "
            "the class this attribute, or say equation= or call=."
        ) from error
