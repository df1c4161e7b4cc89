"""Mark a product with its kernel in code that is no Flax module."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._linen_kinds import LINEN
from singd_optax.capture._module_call import current_own_parameters
from singd_optax.capture._params import ENTRY, is_array
from singd_optax.capture._session import LayerCall, heard, this_thread
from singd_optax.layers._product import parse_product

_PLAIN = "...i,io->...o"


def tag(
    outputs: jax.Array,
    inputs: jax.Array,
    kernel: jax.Array | str,
    *,
    bias: jax.Array | str | None = None,
    equation: str = _PLAIN,
    like: object = None,
    holder: Mapping[str, PyTree] | None = None,
) -> jax.Array:
    """Mark ``outputs`` as the product of ``inputs`` and a kernel, in a model that is plain JAX.

    Equinox, Haiku and hand-written models are measured through it, as Flax modules are without it:
    ``find_layers`` makes a layer of the kernel, and ``value_and_grad`` measures it. Anywhere else
    this function returns ``outputs``, and costs nothing.

    Args:
      outputs: The product, plus the bias if there is one; before any activation function. Use what
        is returned in its place.
      inputs: The array that the kernel is multiplied with, for example (batch, ..., fan_in).
      kernel: The array that the inputs were multiplied with: a parameter, or a cast, a slice or a
        transpose of one, or one whose entries were changed first; it is found by what the loss
        function did to its params. One that holds no trained parameter (a target network's) is not
        measured. Or the parameter's path, such as ``"layers/0/weight"``; inside a method of a Flax
        module also its name there.
      bias: The array that is added to the product, or its path or name, as for ``kernel``; None
        without a bias.
      equation: The product as ``einsum`` spells it, inputs first: ``"i,oi->o"`` for Equinox; by
        default the inputs' last axis is multiplied with the kernel's first. The first free axis of
        the inputs is the batch, all others are shared positions.
      like: A Flax Linen module in the place of an equation, for products that none can spell: one
        that has not been applied, such as ``nn.Conv(8, (3, 3), padding="VALID")`` or
        ``nn.Embed(50, 32)``, whose kernel would have the axes of this one. If it is made inside of
        a module's method, give it ``parent=None``.
      holder: The mapping that holds kernel and bias, needed where a loop or a ``vmap`` goes over
        stacked layers (``jax.lax.scan``): what measures a layer travels in it. It is not needed
        inside of Flax modules, ``jax.checkpoint`` or ``jax.jit``.

    Returns:
      The ``outputs``, unchanged.

    Raises:
      TypeError: The kernel is no array, the equation no text, or the holder no mapping.
      ValueError: The path is not one of a parameter, the equation is no product, or inputs, kernel
        and outputs are not of the sizes that it says.

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
            f"tag: `equation` must be a text such as '...i,io->...o', got {equation!r} of type "
            f"{type(equation).__name__}."
        )
    if holder is not None and not isinstance(holder, Mapping):
        raise TypeError(
            "tag: `holder` must be the mapping that holds the kernel, for example the params of a "
            f"layer, got a {type(holder).__name__}."
        )
    use = _use(equation, like, jnp.asarray(inputs), None if bias is None else "bias")
    session = this_thread.session
    if session is None:
        return outputs
    heard()
    array, carrier = _array("kernel", kernel, session.parameters, holder)
    arrays = {"kernel": array}
    if bias is not None:
        arrays["bias"], _ = _array("bias", bias, session.parameters, holder)
    shape = arrays["kernel"].shape
    if not (use.fits_kernel(shape, inputs, outputs) and use.fits(inputs, outputs)):
        said = repr(equation) if like is None else f"of {like}"
        raise ValueError(
            f"tag: outputs of shape {jnp.shape(outputs)} are not the product {said} of inputs of "
            f"shape {jnp.shape(inputs)} with a kernel of shape {shape}. The equation names the "
            "inputs' axes, the kernel's, and the outputs', as jnp.einsum does. Where a loop slices "
            "the kernel, pass the slice itself and the mapping that holds it as holder=."
        )
    signature = ("tag", use.layout, use.operation, jnp.ndim(inputs), shape, bias is not None)
    call = LayerCall("tag", signature, use, arrays, carrier, is_tag=True)
    return session.call(call, inputs, lambda _: outputs)


def _use(equation: str, like: object, inputs: jax.Array, bias: str | None) -> KernelUse:
    if like is None:
        product, layout = parse_product(equation, inputs.ndim)
        return KernelUse("tagged", layout, product, bias=bias)
    if equation != _PLAIN:
        raise ValueError(
            f"tag: say `equation` or `like`, and not both, got {equation!r} and {like!r}."
        )
    if not isinstance(like, LINEN.module_class):
        raise TypeError(
            "tag: `like` must be a Flax Linen module such as nn.Conv(8, (3, 3)), which has not "
            f"been applied, got {like!r}."
        )
    use = LINEN.read(like, type(like), "__call__", inputs, ((), {}))
    if isinstance(use, str):
        raise ValueError(f"tag: like={type(like).__name__} cannot be measured. {use}.")
    return dataclasses.replace(use, kernel="kernel", bias=bias, changes_kernel=False)


def _array(
    what: str,
    given: jax.Array | str | None,
    parameters: Mapping[str, PyTree],
    holder: Mapping[str, PyTree] | None,
) -> tuple[jax.Array, PyTree]:
    """A kernel or a bias as an array, and what travels beside it."""
    own = current_own_parameters()
    if isinstance(given, str):
        if given in own.arrays:
            return own.arrays[given], own.carriers.get(given)
        if given in parameters:
            return parameters[given], None
        raise ValueError(
            f"tag: the {what}, {given!r}, is not one of the parameters "
            f"{sorted(parameters)[:20]}. Pass its path, or the array itself."
        )
    if given is None or not is_array(given):
        raise TypeError(
            f"tag: the {what} must be an array or the path of one, got a {type(given).__name__}."
        )
    if holder is None:
        array = jnp.asarray(given)  # an NNX variable stands for its array
        return array, own.carriers.get(own.name_of(array) or "")
    names = [name for name, value in holder.items() if value is given and name != ENTRY]
    if len(names) != 1:
        raise ValueError(
            f"tag: the {what} is not one of the arrays in `holder`, which has "
            f"{[name for name in holder if name != ENTRY]}. Pass the array itself, and the mapping "
            "that it was taken from."
        )
    return given, holder.get(ENTRY, {}).get(names[0])
