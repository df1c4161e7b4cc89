"""All frameworks whose layers are read: where users name a class, it may be of any of them."""

from collections.abc import Callable, Mapping

import jax

from singd_optax._types import PyTree
from singd_optax.capture._framework import Framework
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._kinds import OtherArguments
from singd_optax.capture._linen_kinds import LINEN
from singd_optax.capture._nnx_kinds import NNX

FRAMEWORKS: tuple[Framework, ...] = (LINEN, NNX)

#: The classes of modules that can be taught.
MODULE_CLASSES = tuple(framework.module_class for framework in FRAMEWORKS)

#: The methods that can be read, each with its class and the framework.
READABLE_METHODS: Mapping[object, tuple[type, Framework]] = {
    method: (layer_class, framework)
    for framework in FRAMEWORKS
    for method, (layer_class, _) in framework.methods.items()
}


def read_like(
    method: Callable[..., PyTree], module: object, inputs: jax.Array, others: OtherArguments
) -> KernelUse | str:
    """How a module uses its kernel if it does what a method of Flax does, or why it cannot be read.

    Args:
      method: One of ``READABLE_METHODS``.
      module: Of any class, with the attributes that this method reads.
      inputs: What it multiplies.
      others: Its other arguments.

    Raises:
      ValueError: The module has not the attributes.
    """
    layer_class, framework = READABLE_METHODS[method]
    try:
        return framework.read_like(method, module, inputs, others)
    except AttributeError as error:
        name, like = type(module).__name__, layer_class.__name__
        raise ValueError(
            f"register_layer: {name} cannot be read like {like}: it has no attribute {error}. Give "
            "the class this attribute, or say equation= or call=."
        ) from error
