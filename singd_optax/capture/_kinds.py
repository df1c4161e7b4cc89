"""The kinds of layers, whichever framework has them: for each, how a call uses its kernel.

What cannot be read is answered by the reason, which the table of layers shows.
"""

from collections.abc import Callable, Mapping

import jax

from singd_optax._types import PyTree
from singd_optax.capture._geometry import (
    read_conv_transpose,
    read_convolution,
    read_dense_general,
    sizes_of,
)
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._layer_view import LayerView
from singd_optax.layers import Layout
from singd_optax.layers._lookup import Lookup
from singd_optax.layers._product import Product, parse_product
from singd_optax.layers._spec import EMBED

#: The arguments of a call beside its inputs: by place, and by name.
OtherArguments = tuple[tuple[PyTree, ...], Mapping[str, PyTree]]

#: From a module, its inputs and its other arguments: how it uses its kernel, or why it is no layer.
Reader = Callable[[LayerView, jax.Array, OtherArguments], KernelUse | str]

_MASKED = "its kernel is masked, which the preconditioner would not respect"


def _dense(layer: LayerView, *_: object) -> KernelUse:
    return KernelUse("dense", Layout(), Product(), bias=layer.bias_name)


def _dense_general(layer: LayerView, inputs: jax.Array, _: OtherArguments) -> KernelUse:
    product, layout = read_dense_general(layer, inputs.ndim)
    return KernelUse("dense_general", layout, product, bias=layer.bias_name)


def _einsum(layer: LayerView, inputs: jax.Array, others: OtherArguments) -> KernelUse | str:
    args, kwargs = others
    equation = (args[0] if args else kwargs.get("einsum_str")) or layer.einsum_str or ""
    equation = equation.replace(" ", "")
    try:
        product, layout = parse_product(equation, inputs.ndim)
    except ValueError as error:
        return str(error)
    bias_shape = layer.bias_name and getattr(layer, "bias_shape", None)
    if bias_shape is not None:  # where it is not made from the equation
        operands, result = equation.split("->")
        kernel = operands.split(",")[1]
        sizes = tuple(layer.kernel_shape[kernel.index(c)] for c in result if c in kernel)
        if tuple(bias_shape) != sizes:
            return f"its bias has shape {bias_shape}, not {sizes}"
    return KernelUse("einsum", layout, product, bias=layer.bias_name)


def _conv(layer: LayerView, inputs: jax.Array, _: OtherArguments) -> KernelUse | str:
    if not getattr(layer, "shared_weights", True):
        return "its kernel is not shared among positions"
    if layer.mask is not None:
        return _MASKED
    if any(step != 1 for step in sizes_of(layer.input_dilation, 1)):
        return "input dilation is not supported (ConvTranspose is)"
    operation, layout = read_convolution(layer, inputs.shape)
    return KernelUse("conv", layout, operation, bias=layer.bias_name)


def _conv_transpose(layer: LayerView, *_: object) -> KernelUse | str:
    if layer.mask is not None:
        return _MASKED
    if layer.padding == "CIRCULAR":
        return "circular padding of transposed convolutions is not supported"
    operation, layout = read_conv_transpose(layer)
    return KernelUse("conv_transpose", layout, operation, bias=layer.bias_name)


def _embed(layer: LayerView, *_: object) -> KernelUse:
    return KernelUse(EMBED, Layout(), Lookup(layer.num_embeddings), "embedding", bias=None)


def _attend(*_: object) -> KernelUse:
    return KernelUse("attend", Layout().transposed, Product(), "embedding", bias=None)


#: Kind of layer -> for each of its methods, how a call of it is read.
READERS: Mapping[str, Mapping[str, Reader]] = {
    "dense": {"__call__": _dense},
    "dense_general": {"__call__": _dense_general},
    "einsum": {"__call__": _einsum},
    "conv": {"__call__": _conv},
    "conv_transpose": {"__call__": _conv_transpose},
    "embed": {"__call__": _embed, "attend": _attend},
}
