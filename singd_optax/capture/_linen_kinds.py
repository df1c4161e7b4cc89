"""Flax Linen's layers, and what it calls their attributes."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.capture._framework import Framework


class Linen(Framework):
    """Flax Linen."""

    module_class = nn.Module

    def has_bias(self, module: PyTree) -> bool:
        """Whether a layer adds a bias."""
        return getattr(module, "use_bias", False)

    def parameters(self, module: PyTree, names: Sequence[str]) -> list[jax.Array] | None:
        """Parameters of a bound module; None if it is not bound."""
        if module.scope is None:
            return None
        return [jnp.asarray(nn.meta.unbox(module.get_variable("params", name))) for name in names]

    def promoted(
        self, promote: Callable[..., PyTree], arrays: Sequence[PyTree], **options: PyTree
    ) -> Sequence[jax.Array]:
        """What a module's ``promote_dtype`` makes of arrays: each is an argument."""
        return promote(*arrays, **options)

    def changes_kernel(self, kind: type) -> bool:
        """Whether modules of this class override ``param``."""
        return getattr(kind, "param", None) is not nn.Module.param


LINEN = Linen(
    {
        "dense": nn.Dense,
        "dense_general": nn.DenseGeneral,
        "einsum": nn.Einsum,
        "conv": nn.Conv,
        "conv_transpose": nn.ConvTranspose,
        "embed": nn.Embed,
    },
    {"batch_axes": "batch_dims"},
)
