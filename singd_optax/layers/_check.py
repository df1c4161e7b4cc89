"""Do these parameters match these layers?"""

from collections.abc import Iterable

import jax.numpy as jnp

from singd_optax.layers._layers import Layers
from singd_optax.layers._spec import LayerSpec
from singd_optax.layers._tree import Leaves


def check_layers(layers: Layers) -> None:
    """Raise unless ``layers`` are layers.

    Args:
      layers: What the user passed.

    Raises:
      TypeError: Something else.
    """
    if not isinstance(layers, Layers):
        raise TypeError(
            f"`layers` must be the Layers that find_layers returned, got {layers!r} of type "
            f"{type(layers).__name__}. Write layers = singd_optax.find_layers(loss_fn, params, "
            "batch)."
        )


def check_params(specs: Iterable[LayerSpec], leaves: Leaves, what: str) -> None:
    """Raise unless all kernels and biases of the layers are there with their shapes.

    Args:
      specs: The layers.
      leaves: Parameters or gradients.
      what: What they are, for the message.

    Raises:
      ValueError: One is missing, or has another shape.
    """
    for spec in specs:
        for path, shape in spec.shapes.items():
            if path not in leaves:
                found = ", ".join(leaves.paths[:20])
                raise ValueError(
                    f"`{what}` do not match `layers`: no array at {path!r}. There are: {found}. "
                    "Call find_layers again with the params that you train, in the same nesting."
                )
            got = jnp.shape(leaves[path])
            if got != shape:
                raise ValueError(
                    f"`{what}` do not match `layers`: {path!r} has shape {got}, the layer that was "
                    f"found has {shape}. Call find_layers again for this model."
                )
