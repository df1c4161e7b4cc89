"""Flax NNX's layers: for each, how a call uses its kernel.

What cannot be read is answered by the reason, which the table of layers shows.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from singd_optax.capture._geometry import (
    general_product,
    read_conv_transpose,
    read_convolution,
    sizes_of,
)
from singd_optax.capture._nnx_riders import plain_type
from singd_optax.capture._plain import hands_on, multiplies_plainly
from singd_optax.capture._use import Use
from singd_optax.layers import EMBED, Layout, Lookup, Product, parse_product

Reader = Callable[[Any, jax.Array, Any], Use | str]


def read(module: nnx.Module, method: str, function: Any, inputs: Any, arguments: Any) -> Use | str:
    """How this call of a module uses its kernel, or why it is no Kronecker layer.

    Args:
      module: With parameters of its own.
      method: The name of the method that is called.
      function: The method, as its class has it.
      inputs: Its first argument.
      arguments: All others, (args, kwargs).
    """
    name = type(module).__name__
    call = name if method == "__call__" else f"{name}.{method}"
    # A sub-class that keeps Linear.__call__ is a Linear layer; one with its own may be anything.
    reader = READERS.get(function)
    if reader is None:
        return f"{call}: not a kind of layer that has Kronecker factors here"
    use = reader(module, jnp.asarray(inputs), arguments) if inputs is not None else "no inputs"
    problem = use if isinstance(use, str) else _changed(module, use, inputs)
    if problem is not None or isinstance(use, str):
        return f"{call}: {problem}"
    names = [use.kernel] + ([] if use.bias is None else [use.bias])
    if any(_is_special(getattr(module, name)) for name in names):
        return f"{call}: its parameters are no plain arrays, or have hooks"
    return use


def _changed(module: Any, use: Use, inputs: Any) -> str | None:
    """Whether the module multiplies other numbers than those of its inputs and its kernel."""
    kernel = getattr(module, use.kernel)[...]
    base = next(kind for kind in KINDS if isinstance(module, kind))
    defaults = inspect.signature(base.__init__).parameters
    for name in ("promote_dtype", "dot_general", "dot_general_cls", "conv_general_dilated"):
        given = getattr(module, name, None)
        if name not in defaults or given in (None, defaults[name].default):
            continue
        is_plain = False
        if name == "promote_dtype":
            is_plain = _promotes(given, module, use, inputs)
        elif name == "dot_general" and isinstance(use.operation, Product):
            dimensions = use.operation.dimensions(use.layout, jnp.ndim(inputs))
            product = lambda a, k, given=given, at=dimensions: given(a, k, at, precision=None)
            is_plain = multiplies_plainly(product, inputs, kernel)
        if not is_plain:
            return f"its {name}= changes the kernel or the inputs before they are multiplied"
    return None


def _promotes(promote: Any, module: Any, use: Use, inputs: Any) -> bool:
    """Whether a promotion of one's own hands on what it is given, but for casts."""
    names = [use.kernel] + ([] if use.bias is None else [use.bias])
    arrays = [getattr(module, name)[...] for name in names]
    if isinstance(use.operation, Lookup):
        return hands_on(lambda *a: promote(a, dtype=module.dtype, inexact=False), *arrays)
    missing = () if use.bias is not None else (None,)
    given = lambda *a: promote((*a, *missing), dtype=module.dtype)
    return hands_on(given, inputs, *arrays)


def multiplied(module: Any, use: Use, inputs: Any) -> jax.Array:
    """The inputs in the dtype in which the module multiplies them with its kernel."""
    if isinstance(use.operation, Lookup):
        return jnp.asarray(inputs)
    names = [use.kernel] + ([] if use.bias is None else [use.bias])
    params = [getattr(module, name)[...] for name in names]
    promoted, *_ = module.promote_dtype((jnp.asarray(inputs), *params), dtype=module.dtype)
    return promoted


def _is_special(variable: nnx.Variable) -> bool:
    """Whether what the layer multiplies with is not the parameter itself."""
    hooks = any(variable.has_metadata(hook) for hook in ("on_get_value", "on_set_value"))
    return hooks or plain_type(type(variable)).get_value is not nnx.Variable.get_value


def _bias(module: Any) -> str | None:
    return None if module.bias is None else "bias"


def _linear(module: Any, inputs: jax.Array, arguments: Any) -> Use | str:
    del inputs, arguments
    return Use("dense", Layout(), Product(), bias=_bias(module))


def _linear_general(module: Any, inputs: jax.Array, arguments: Any) -> Use | str:
    del arguments
    product, layout = general_product(
        inputs.ndim, tuple(module.axis), tuple(module.batch_axis), len(module.out_features)
    )
    return Use("dense_general", layout, product, bias=_bias(module))


def _einsum(module: Any, inputs: jax.Array, arguments: Any) -> Use | str:
    args, kwargs = arguments
    equation = (args[0] if args else kwargs.get("einsum_str")) or module.einsum_str
    equation = equation.replace(" ", "")
    try:
        product, layout = parse_product(equation, inputs.ndim)
    except ValueError as error:
        return str(error)
    if module.bias is not None:
        operands, result = equation.split("->")
        kernel = operands.split(",")[1]
        sizes = tuple(module.kernel_shape[kernel.index(c)] for c in result if c in kernel)
        if tuple(module.bias_shape) != sizes:
            return f"its bias has shape {module.bias_shape}, not {sizes}"
    return Use("einsum", layout, product, bias=_bias(module))


def _conv(module: Any, inputs: jax.Array, arguments: Any) -> Use | str:
    del arguments
    if module.mask is not None:
        return "its kernel is masked, which the preconditioner would not respect"
    if any(step != 1 for step in sizes_of(module.input_dilation, 1)):
        return "input dilation is not supported (ConvTranspose is)"
    operation, layout = read_convolution(
        inputs.shape,
        module.kernel_size,
        strides=module.strides,
        padding=module.padding,
        kernel_dilation=module.kernel_dilation,
        groups=module.feature_group_count,
    )
    return Use("conv", layout, operation, bias=_bias(module))


def _conv_transpose(module: Any, inputs: jax.Array, arguments: Any) -> Use | str:
    del inputs, arguments
    if module.mask is not None:
        return "its kernel is masked, which the preconditioner would not respect"
    if module.padding == "CIRCULAR":
        return "circular padding of transposed convolutions is not supported"
    operation, layout = read_conv_transpose(
        module.kernel_size,
        strides=module.strides,
        padding=module.padding,
        kernel_dilation=module.kernel_dilation,
        transpose_kernel=module.transpose_kernel,
    )
    return Use("conv_transpose", layout, operation, bias=_bias(module))


def _embed(module: Any, inputs: jax.Array, arguments: Any) -> Use | str:
    del inputs, arguments
    return Use(EMBED, Layout(), Lookup(module.num_embeddings), "embedding", bias=None)


def _attend(module: Any, inputs: jax.Array, arguments: Any) -> Use | str:
    del module, inputs, arguments
    return Use("attend", Layout().transposed, Product(), "embedding", bias=None)


READERS: dict[Any, Reader] = {
    nnx.Linear.__call__: _linear,
    nnx.LinearGeneral.__call__: _linear_general,
    nnx.Einsum.__call__: _einsum,
    nnx.Conv.__call__: _conv,
    nnx.ConvTranspose.__call__: _conv_transpose,
    nnx.Embed.__call__: _embed,
    nnx.Embed.attend: _attend,
}

MODULE = nnx.Module
KINDS = (nnx.Linear, nnx.LinearGeneral, nnx.Einsum, nnx.Conv, nnx.ConvTranspose, nnx.Embed)
