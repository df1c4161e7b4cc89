"""Find Kronecker layers and measure them while gradients are taken."""

from singd_optax.capture._distribution import tag_distribution
from singd_optax.capture._find import find_layers
from singd_optax.capture._grad import value_and_grad
from singd_optax.capture._nnx_carriers import plain_params as nnx_plain_params
from singd_optax.capture._nnx_find import find_layers as nnx_find_layers
from singd_optax.capture._nnx_grad import value_and_grad as nnx_value_and_grad
from singd_optax.capture._params import plain_params
from singd_optax.capture._register import register_layer
from singd_optax.capture._tag import tag
from singd_optax.capture._weights import position_weights

__all__ = [
    "find_layers",
    "nnx_find_layers",
    "nnx_plain_params",
    "nnx_value_and_grad",
    "plain_params",
    "position_weights",
    "register_layer",
    "tag",
    "tag_distribution",
    "value_and_grad",
]
