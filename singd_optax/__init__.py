"""Structured inverse-free natural gradient descent for JAX: optax optimizers for Flax models."""

from singd_optax import (
    diagnostics,
    layers,
    nnx,
    optimizers,
    rules,
    sharding,
    structures,
    training,
    transforms,
)
from singd_optax.capture import (
    find_layers,
    plain_params,
    position_weights,
    register_layer,
    tag,
    tag_distribution,
    value_and_grad,
)
from singd_optax.layers import Layers, LayerSpec, factors, find_matrices
from singd_optax.optimizers import (
    caspr,
    ikfac,
    ingd,
    inverse_free_shampoo,
    kfac,
    optimizer,
    scale_by_caspr,
    scale_by_ikfac,
    scale_by_inverse_free_shampoo,
    scale_by_kfac,
    scale_by_shampoo,
    scale_by_singd,
    shampoo,
    singd,
)
from singd_optax.structures import parse_structure
from singd_optax.transforms import damping_schedule, refresh_schedule, scale_by_rule

__version__ = "0.1.0"

__all__ = [
    "LayerSpec",
    "Layers",
    "caspr",
    "damping_schedule",
    "diagnostics",
    "factors",
    "find_layers",
    "find_matrices",
    "ikfac",
    "ingd",
    "inverse_free_shampoo",
    "kfac",
    "layers",
    "nnx",
    "optimizer",
    "optimizers",
    "parse_structure",
    "plain_params",
    "position_weights",
    "refresh_schedule",
    "register_layer",
    "rules",
    "scale_by_caspr",
    "scale_by_ikfac",
    "scale_by_inverse_free_shampoo",
    "scale_by_kfac",
    "scale_by_rule",
    "scale_by_shampoo",
    "scale_by_singd",
    "shampoo",
    "sharding",
    "singd",
    "structures",
    "tag",
    "tag_distribution",
    "training",
    "transforms",
    "value_and_grad",
]
