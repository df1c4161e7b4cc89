"""Mark a product with its kernel in code that is no Flax module."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from singd_optax.capture._params import ENTRY, is_array
from singd_optax.capture._session import Event, current_session
from singd_optax.capture._use import Use
from singd_optax.layers import Layout, Product, parse_product


def tag(
    outputs: jax.Array,
    inputs: jax.Array,
    kernel: jax.Array | str,
    *,
    bias: jax.Array | str | None = None,
    equation: str = "...i,io->...o",
    holder: Mapping[str, Any] | None = None,
) -> jax.Array:
    """Mark ``outputs`` as the product of ``inputs`` and a kernel, in a model that is plain JAX.

    Equinox, Haiku and hand-written models are measured through it as Flax modules are without:
    ``find_layers`` makes a layer of the kernel, and ``value_and_grad`` measures it. Elsewhere it
    returns ``outputs``, and costs nothing.

    Args:
      outputs: The product, plus the bias if there is one; before any activation. Use what is
        returned in its place.
      inputs: What the kernel is multiplied with.
      kernel: The very array in the params that the loss function got (not a cast or a slice of
        it), or its path in them, as ``"layers/0/weight"``.
      bias: Likewise, what is added to the product.
      equation: The product as ``einsum`` spells it, inputs first: ``"i,oi->o"`` for Equinox.
        The first free axis of the inputs is the batch, all others are shared positions.
      holder: The mapping that holds kernel and bias, where a transformation hands it to the code
        around ``tag`` as an argument, and its arrays are no more the very ones of the params:
        ``jax.lax.scan`` over stacked layers, ``jax.checkpoint``, an inner ``jax.jit``.

    Returns:
      ``outputs``.

    Raises:
      ValueError: The kernel is not one of the parameters, or the equation is no product.

    Example:
      >>> import singd_optax
      >>> def loss_fn(params, x):
      ...     y = x @ params["w"] + params["b"]
      ...     y = singd_optax.tag(y, x, params["w"], bias=params["b"])
      ...     return jnp.mean(y**2)
      >>> params = {"w": jnp.ones((5, 3)), "b": jnp.zeros(3)}
      >>> singd_optax.find_layers(loss_fn, params, jnp.ones((8, 5)))
      1 Kronecker layer...
        layer  kind            kernel  ...
        w      tagged + bias   (5, 3)  ...
    """
    if not isinstance(equation, str):
        raise TypeError(
            f"tag: `equation` is a text such as '...i,io->...o', got a {type(equation).__name__}."
        )
    if holder is not None and not isinstance(holder, Mapping):
        raise TypeError(
            f"tag: `holder` is the mapping that holds the kernel, got a {type(holder).__name__}."
        )
    product, layout = parse_product(equation, jnp.ndim(inputs))
    session = current_session()
    if session is None:
        return outputs
    arrays, rider = _arrays(session.parameters, kernel, bias, holder)
    use = Use("tagged", layout, product, bias=None if bias is None else "bias")
    shape = arrays["kernel"].shape
    if not use.fits(inputs, outputs) or not _fits_kernel(product, layout, shape, inputs, outputs):
        raise ValueError(
            f"tag: outputs of shape {jnp.shape(outputs)} are not the product {equation!r} of "
            f"inputs of shape {jnp.shape(inputs)} with a kernel of shape {shape}. The equation "
            "names the inputs' axes, the kernel's, and the outputs', as jnp.einsum does."
        )
    signature = ("tag", equation, jnp.ndim(inputs), shape, bias is not None)
    event = Event("tag", signature, use, arrays, rider, is_tag=True)
    return session.call(event, inputs, lambda _: outputs)


def _arrays(
    parameters: Mapping[str, Any], kernel: Any, bias: Any, holder: Any
) -> tuple[dict[str, Any], Any]:
    """Kernel and bias as arrays, and what rides beside the kernel."""
    arrays, rider = {}, None
    for what, given in (("kernel", kernel), ("bias", bias)):
        if given is None and what == "bias":
            continue
        array = given
        if isinstance(given, str):
            if given not in parameters:
                raise ValueError(
                    f"tag: the {what}, {given!r}, is not one of the parameters "
                    f"{sorted(parameters)[:20]}. Pass its path, or the array itself."
                )
            array = parameters[given]
        elif not is_array(given):
            raise TypeError(
                f"tag: the {what} is an array or the path of one, got a {type(given).__name__}."
            )
        elif holder is not None:
            names = [name for name, value in holder.items() if value is given and name != ENTRY]
            if len(names) != 1:
                raise ValueError(
                    f"tag: the {what} is not one of the arrays in `holder`, which has "
                    f"{[name for name in holder if name != ENTRY]}."
                )
            if what == "kernel":
                rider = holder.get(ENTRY, {}).get(names[0])
        arrays[what] = array
    return arrays, rider


def _fits_kernel(
    product: Product, layout: Layout, shape: tuple[int, ...], inputs: Any, outputs: Any
) -> bool:
    """Whether inputs and outputs have the sizes that the kernel's axes say."""
    if len(layout.inputs + layout.outputs + layout.batch) != len(shape):
        return len(shape) > 2  # a stacked kernel that was named by its path
    rows, columns = jax.eval_shape(product.arrange, inputs, outputs)
    batch, fan_in, fan_out = layout.sizes(shape)
    kernel_batch = rows.shape[rows.ndim - 1 - len(batch) : -1]
    return (kernel_batch, rows.shape[-1], columns.shape[-1]) == (batch, fan_in, fan_out)
