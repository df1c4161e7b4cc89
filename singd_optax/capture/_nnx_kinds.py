"""Flax NNX's layers, and what it calls their attributes."""

from flax import nnx

from singd_optax._types import PyTree
from singd_optax.capture._framework import Framework
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._nnx_carriers import plain_type


def _refusal(module: PyTree, use: KernelUse) -> str | None:
    """Whether what a layer multiplies with is not the parameter itself."""
    variables: list[nnx.Variable] = [getattr(module, name) for name in use.names]
    for variable in variables:
        is_read_plainly = plain_type(type(variable)).get_value is nnx.Variable.get_value
        hooks = ("on_get_value", "on_set_value")
        if not is_read_plainly or any(map(variable.has_metadata, hooks)):
            return "its parameters are no plain arrays, or have hooks"
    return None


NNX = Framework(
    module_class=nnx.Module,
    classes={
        "dense": nnx.Linear,
        "dense_general": nnx.LinearGeneral,
        "einsum": nnx.Einsum,
        "conv": nnx.Conv,
        "conv_transpose": nnx.ConvTranspose,
        "embed": nnx.Embed,
    },
    names={"batch_axes": "batch_axis", "features": "out_features"},
    has_bias=lambda module: getattr(module, "bias", None) is not None,
    parameters=lambda module, names: [getattr(module, name)[...] for name in names],
    promote=lambda promote_dtype, arrays, options: promote_dtype(tuple(arrays), **options),
    refusal=_refusal,
)
