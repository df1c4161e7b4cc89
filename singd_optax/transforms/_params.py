"""What ``init`` gets is looked at before anything is made of it."""

import optax

from singd_optax._types import PyTree
from singd_optax.layers import Layers, LayerSpec
from singd_optax.layers._check import check_params, warn_of_unknown, whole_layers
from singd_optax.layers._tree import Leaves


def check_some_params(params: PyTree) -> None:
    """Raise if there are no parameters at all.

    Placeholders of optax and what its wrappers mask out are legal.

    Args:
      params: What ``init`` gets.

    Raises:
      ValueError: None, or containers without an array in them.
    """
    if Leaves(params).is_nothing:
        raise ValueError(
            f"`params` have no parameters: got {params!r}. Call tx.init with the params that the "
            "model was initialized with, as in tx.init(params)."
        )


def present_layers(layers: Layers, params: PyTree) -> list[LayerSpec]:
    """The layers of which ``init`` gets all parameters.

    Args:
      layers: From ``find_layers``.
      params: What ``init`` gets. Sizes come from ``layers``, since optax also inits with
        placeholders for parameters.

    Raises:
      ValueError: There are no parameters, or they do not match ``layers``.
    """
    check_some_params(params)
    leaves = Leaves(params)
    if isinstance(params, optax.MaskedNode):
        return []
    if leaves.is_placeholder:
        return list(layers.values())
    specs = whole_layers(layers, leaves)
    check_params(specs, leaves, "params")
    return specs


def warn_of_params(layers: Layers, params: PyTree) -> None:
    """Warn of layers that are there in part, and of parameters that ``layers`` do not know.

    Args:
      layers: From ``find_layers``.
      params: What ``init`` gets.
    """
    leaves = Leaves(params)
    if not leaves.is_placeholder:
        whole_layers(layers, leaves, warn=True)
        warn_of_unknown(layers, leaves)
