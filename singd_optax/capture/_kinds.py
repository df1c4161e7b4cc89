"""The kinds of layers, whichever framework has them: for each, how a call uses its kernel.

What cannot be read is answered by the reason, which the table of layers shows.
"""

import inspect
from collections.abc import Callable, Mapping

import jax

from singd_optax._types import PyTree
from singd_optax.capture._geometry import (
    general_product,
    read_conv_transpose,
    read_convolution,
    sizes_of,
)
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.layers import EMBED, Layout, Lookup, Product, parse_product

#: The arguments of a call beside its inputs: by place, and by name.
OtherArguments = tuple[tuple[PyTree, ...], Mapping[str, PyTree]]


class LayerView:
    """A module's attributes, under the names that the readers of this file use."""

    def __init__(
        self,
        module: object,
        names: Mapping[str, str],
        has_bias: bool = False,
        defaults: type | None = None,
    ):
        """Look at a module.

        Args:
          module: Of any class.
          names: What it calls attributes that have other names here.
          has_bias: Whether it adds a bias.
          defaults: The class whose arguments' defaults are taken for attributes that it has not.
        """
        self._module, self._names, self._defaults = module, names, defaults
        self.bias_name = "bias" if has_bias else None

    def __getattr__(self, name: str) -> PyTree:
        """An attribute of the module, or its default."""
        own = self._names.get(name, name)
        if self._defaults is None or hasattr(self._module, own):
            return getattr(self._module, own)
        parameter = arguments_of(self._defaults).get(own)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            raise AttributeError(own)
        return parameter.default


def arguments_of(layer_class: type) -> Mapping[str, inspect.Parameter]:
    """The arguments with which layers of a class are made."""
    return inspect.signature(layer_class.__init__).parameters  # type: ignore[misc]


#: From a module, its inputs and its other arguments: how it uses its kernel, or why it is no layer.
Reader = Callable[[LayerView, jax.Array, OtherArguments], KernelUse | str]


def _dense(layer: LayerView, inputs: jax.Array, others: OtherArguments) -> KernelUse | str:
    del inputs, others
    return KernelUse("dense", Layout(), Product(), bias=layer.bias_name)


def _dense_general(layer: LayerView, inputs: jax.Array, others: OtherArguments) -> KernelUse | str:
    del others
    axes, batch, features = layer.axis, layer.batch_axes, layer.features
    product, layout = general_product(
        inputs.ndim, sizes_of(axes, 1), sizes_of(batch, 1), len(sizes_of(features, 1))
    )
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


def _conv(layer: LayerView, inputs: jax.Array, others: OtherArguments) -> KernelUse | str:
    del others
    if not getattr(layer, "shared_weights", True):
        return "its kernel is not shared among positions"
    if layer.mask is not None:
        return "its kernel is masked, which the preconditioner would not respect"
    if any(step != 1 for step in sizes_of(layer.input_dilation, 1)):
        return "input dilation is not supported (ConvTranspose is)"
    operation, layout = read_convolution(
        layer.kernel_size,
        layer.strides,
        layer.padding,
        layer.kernel_dilation,
        groups=layer.feature_group_count,
        input_shape=inputs.shape,
    )
    return KernelUse("conv", layout, operation, bias=layer.bias_name)


def _conv_transpose(layer: LayerView, inputs: jax.Array, others: OtherArguments) -> KernelUse | str:
    del inputs, others
    if layer.mask is not None:
        return "its kernel is masked, which the preconditioner would not respect"
    if layer.padding == "CIRCULAR":
        return "circular padding of transposed convolutions is not supported"
    operation, layout = read_conv_transpose(
        layer.kernel_size,
        layer.strides,
        layer.padding,
        layer.kernel_dilation,
        flipped=layer.transpose_kernel,
    )
    return KernelUse("conv_transpose", layout, operation, bias=layer.bias_name)


def _embed(layer: LayerView, inputs: jax.Array, others: OtherArguments) -> KernelUse | str:
    del inputs, others
    return KernelUse(EMBED, Layout(), Lookup(layer.num_embeddings), "embedding", bias=None)


def _attend(layer: LayerView, inputs: jax.Array, others: OtherArguments) -> KernelUse | str:
    del layer, inputs, others
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
