"""Flax Linen's layers: for each, how a call uses its kernel.

What cannot be read is answered by the reason, which the table of layers shows.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from singd_optax.capture._geometry import (
    general_product,
    read_conv_transpose,
    read_convolution,
    sizes_of,
)
from singd_optax.capture._plain import hands_on, multiplies_plainly
from singd_optax.capture._use import Use
from singd_optax.layers import EMBED, Layout, Lookup, Product, parse_product

Reader = Callable[[Any, jax.Array, Any], Use | str]


def read(module: nn.Module, method: str, inputs: Any, arguments: Any) -> Use | str:
    """How this call of a module uses its kernel, or why it is no Kronecker layer.

    Args:
      module: Bound, with parameters of its own.
      method: The name of the method that is called.
      inputs: Its first argument.
      arguments: All others, (args, kwargs).
    """
    name = type(module).__name__
    call = name if method == "__call__" else f"{name}.{method}"
    # A sub-class that keeps Dense.__call__ is a Dense layer; one that has its own may be anything.
    reader = READERS.get(getattr(type(module), method, None))
    if reader is None:
        return f"{call}: not a kind of layer that has Kronecker factors here"
    use = reader(module, jnp.asarray(inputs), arguments) if inputs is not None else "no inputs"
    problem = use if isinstance(use, str) else _changed(module, use, inputs)
    if problem is not None or isinstance(use, str):
        return f"{call}: {problem}"
    return dataclasses.replace(use, changes_kernel=overrides_param(type(module)))


def overrides_param(kind: type) -> bool:
    """Whether modules of this class may see other numbers than those of their parameters."""
    return getattr(kind, "param", None) is not nn.Module.param


def _changed(module: Any, use: Use, inputs: Any) -> str | None:
    """Whether the module multiplies other numbers than those of its inputs and its kernel."""
    if module.scope is None:
        return None  # a pattern for products that are tagged, which multiplies nothing
    names = [use.kernel] + ([] if use.bias is None else [use.bias])
    kernel, *rest = (nn.meta.unbox(module.get_variable("params", name)) for name in names)
    promote = getattr(module, "promote_dtype", promote_dtype)
    if promote is not promote_dtype:
        arrays = [kernel] if isinstance(use.operation, Lookup) else [inputs, kernel, *rest]
        options = {"inexact": False} if isinstance(use.operation, Lookup) else {}
        missing = [None] * (3 - len(arrays)) if len(arrays) > 1 else []

        def promoted(*arrays: Any) -> Any:
            return promote(*arrays, *missing, dtype=module.dtype, **options)

        if not hands_on(promoted, *arrays):
            return "its promote_dtype= changes the kernel or the inputs before they are multiplied"
    product = getattr(module, "dot_general", None)
    if product is not None and isinstance(use.operation, Product):
        dimensions = use.operation.dimensions(use.layout, jnp.ndim(inputs))
        plain = lambda a, k: product(a, k, dimensions, precision=module.precision)
        if not multiplies_plainly(plain, inputs, kernel):
            return "its dot_general= changes the kernel or the inputs before they are multiplied"
    for name in ("dot_general_cls", "conv_general_dilated", "conv_general_dilated_cls"):
        if getattr(module, name, None) is not None:
            return f"its {name}= may change the kernel or the inputs before they are multiplied"
    return None


def multiplied(module: Any, use: Use, inputs: Any) -> jax.Array:
    """The inputs in the dtype in which the module multiplies them with its kernel."""
    if isinstance(use.operation, Lookup):
        return jnp.asarray(inputs)
    names = [use.kernel] + ([] if use.bias is None else [use.bias])
    params = [jnp.asarray(nn.meta.unbox(module.get_variable("params", name))) for name in names]
    promoted, *_ = module.promote_dtype(jnp.asarray(inputs), *params, dtype=module.dtype)
    return promoted


def _bias(module: Any) -> str | None:
    return "bias" if module.use_bias else None


def _dense(module: Any, inputs: jax.Array, arguments: Any) -> Use | str:
    del inputs, arguments
    return Use("dense", Layout(), Product(), bias=_bias(module))


def _dense_general(module: Any, inputs: jax.Array, arguments: Any) -> Use | str:
    del arguments
    features = sizes_of(module.features, 1)
    product, layout = general_product(
        inputs.ndim, sizes_of(module.axis, 1), sizes_of(module.batch_dims, 1), len(features)
    )
    return Use("dense_general", layout, product, bias=_bias(module))


def _einsum(module: Any, inputs: jax.Array, arguments: Any) -> Use | str:
    args, kwargs = arguments
    equation = module.einsum_str or (args[0] if args else kwargs.get("einsum_str"))
    try:
        product, layout = parse_product(equation, inputs.ndim)
    except ValueError as error:
        return str(error)
    return Use("einsum", layout, product, bias=_bias(module))


def _conv(module: Any, inputs: jax.Array, arguments: Any) -> Use | str:
    del arguments
    if not getattr(module, "shared_weights", True):
        return "its kernel is not shared among positions"
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
    nn.Dense.__call__: _dense,
    nn.DenseGeneral.__call__: _dense_general,
    nn.Einsum.__call__: _einsum,
    nn.Conv.__call__: _conv,
    nn.ConvTranspose.__call__: _conv_transpose,
    nn.Embed.__call__: _embed,
    nn.Embed.attend: _attend,
}

MODULE = nn.Module
KINDS = (nn.Dense, nn.DenseGeneral, nn.Einsum, nn.Conv, nn.ConvTranspose, nn.Embed)
