"""Mark a product with its kernel in code that is no Flax module."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from singd_optax.capture._params import ENTRY
from singd_optax.capture._tap import Tap
from singd_optax.capture._use import Use, tap_named
from singd_optax.layers import Leaves, parse_product


class Found(NamedTuple):
    """Which parameter a kernel is.

    Attributes:
      path: Its path, or its name alone if ``entry`` is there.
      entry: What rides beside it, if it was found in a mapping.
    """

    path: str
    entry: Any = None


class Listener(Protocol):
    """What happens to a tagged product while layers are found, or measured."""

    def __call__(
        self, found: Found, use: Use, kernel: Any, inputs: jax.Array, outputs: jax.Array
    ) -> jax.Array:
        """The outputs, tapped or not."""


class _Listening(NamedTuple):
    paths: dict[int, str]
    names: frozenset[str]
    listener: Listener


_listening: list[_Listening] = []


@contextlib.contextmanager
def tags(params: Any, listener: Listener) -> Iterator[None]:
    """Call ``listener`` for each tagged product of one of these parameters."""
    leaves = Leaves(params)
    paths = {id(leaves[path]): path for path in leaves}
    _listening.append(_Listening(paths, frozenset(leaves), listener))
    try:
        yield
    finally:
        _listening.pop()


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
    product, layout = parse_product(equation, jnp.ndim(inputs))
    if not _listening:
        return outputs
    current = _listening[-1]
    found = _find(current, kernel, holder, "kernel")
    beside = None if bias is None else _find(current, bias, holder, "bias")
    if found is None or (bias is not None and beside is None):
        return outputs
    use = Use("tagged", layout, product, found.path, None if beside is None else beside.path)
    if not use.fits(inputs, outputs):
        raise ValueError(
            f"tag: outputs of shape {jnp.shape(outputs)} are not the product {equation!r} of "
            f"inputs of shape {jnp.shape(inputs)} with the kernel {found.path!r}."
        )
    return current.listener(found, use, kernel, inputs, outputs)


def _find(
    current: _Listening, array: Any, holder: Mapping[str, Any] | None, what: str
) -> Found | None:
    if holder is not None:
        names = [name for name, value in holder.items() if value is array and name != ENTRY]
        if len(names) != 1:
            raise ValueError(
                f"tag: the {what} is not one of the arrays in `holder`, which has {list(holder)}."
            )
        return Found(names[0], holder.get(ENTRY))
    path = array if isinstance(array, str) else current.paths.get(id(array))
    if path in current.names:
        return Found(path)
    got = repr(array) if isinstance(array, str) else f"an array of shape {jnp.shape(array)}"
    raise ValueError(
        f"tag: the {what}, {got}, is not one of the parameters {sorted(current.names)[:20]}. "
        "Pass the array as it is in the params, not a cast or a slice of it, or its path; inside "
        "jax.lax.scan over stacked layers, jax.checkpoint or jax.jit pass the mapping that holds "
        "it as holder=."
    )


def tap_tagged(taps: Mapping[str, Tap]) -> Listener:
    """The listener that taps products; ``taps`` by the path of the kernel."""

    def listener(
        found: Found, use: Use, kernel: Any, inputs: jax.Array, outputs: jax.Array
    ) -> jax.Array:
        del kernel
        entry, path = found.entry, found.path
        tap = taps.get(path) if entry is None else tap_named(entry, path)
        return outputs if tap is None else use.attach(tap, inputs, outputs, found.path)

    return listener
