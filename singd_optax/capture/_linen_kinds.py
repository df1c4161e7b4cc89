"""Flax Linen's layers, and what it calls their attributes."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.capture._framework import Framework


def _parameters(module: PyTree, names: Sequence[str]) -> list[jax.Array] | None:
    if module.scope is None:
        return None
    return [jnp.asarray(nn.meta.unbox(module.get_variable("params", name))) for name in names]


LINEN = Framework(
    module_class=nn.Module,
    classes={
        "dense": nn.Dense,
        "dense_general": nn.DenseGeneral,
        "einsum": nn.Einsum,
        "conv": nn.Conv,
        "conv_transpose": nn.ConvTranspose,
        "embed": nn.Embed,
    },
    names={"batch_axes": "batch_dims"},
    has_bias=lambda module: getattr(module, "use_bias", False),
    parameters=_parameters,
    promote=lambda promote_dtype, arrays, options: promote_dtype(*arrays, **options),
    changes_kernel=lambda kind: getattr(kind, "param", None) is not nn.Module.param,
)
