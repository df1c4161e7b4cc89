"""Flax NNX's layers, and what it calls their attributes."""

from collections.abc import Callable, Sequence

import jax
from flax import nnx

from singd_optax._types import PyTree
from singd_optax.capture._framework import Framework
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._nnx_carriers import plain_type


class Nnx(Framework):
    """Flax NNX."""

    module_class = nnx.Module

    def has_bias(self, module: PyTree) -> bool:
        """Whether a layer adds a bias."""
        return getattr(module, "bias", None) is not None

    def parameters(self, module: PyTree, names: Sequence[str]) -> list[jax.Array] | None:
        """Parameters of a module."""
        return [getattr(module, name)[...] for name in names]

    def promoted(
        self, promote: Callable[..., PyTree], arrays: Sequence[PyTree], **options: PyTree
    ) -> Sequence[jax.Array]:
        """What a module's ``promote_dtype`` makes of arrays: all are one argument."""
        return promote(tuple(arrays), **options)

    def refusal(self, module: PyTree, use: KernelUse) -> str | None:
        """Whether what a layer multiplies with is not the parameter itself."""
        variables: list[nnx.Variable] = [getattr(module, name) for name in use.names]
        hooks = ("on_get_value", "on_set_value")
        for variable in variables:
            is_read_plainly = plain_type(type(variable)).get_value is nnx.Variable.get_value
            if not is_read_plainly or any(map(variable.has_metadata, hooks)):
                return "its parameters are no plain arrays, or have hooks"
        return None


NNX = Nnx(
    {
        "dense": nnx.Linear,
        "dense_general": nnx.LinearGeneral,
        "einsum": nnx.Einsum,
        "conv": nnx.Conv,
        "conv_transpose": nnx.ConvTranspose,
        "embed": nnx.Embed,
    },
    {"batch_axes": "batch_axis", "features": "out_features"},
)
