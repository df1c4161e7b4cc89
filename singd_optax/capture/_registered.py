"""Calls of modules whose class users have taught the library."""

import contextlib
import dataclasses
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from singd_optax.capture._like import read_like
from singd_optax.capture._registry import Taught, taught_of
from singd_optax.capture._session import Event, Session
from singd_optax.capture._use import Use
from singd_optax.layers import Product, parse_product


class Called(NamedTuple):
    """A call of a module, however a framework makes it.

    Attributes:
      module: Which is called.
      kind: Its class.
      method: The name of the method.
      function: Makes the call, given all arguments but the module.
      args: Of the call.
      kwargs: Likewise.
      arrays: The parameters that the module holds itself, by name.
      riders: What travels beside them.
      place: Where the module is, if that can be told: hashable.
      changes_kernel: Whether the class is known to change its kernel.
    """

    module: Any
    kind: type
    method: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arrays: dict[str, Any]
    riders: Mapping[str, Any]
    place: Any = None
    changes_kernel: bool = False

    @property
    def name(self) -> str:
        """Of what is called, for people."""
        name = self.kind.__name__
        return name if self.method == "__call__" else f"{name}.{self.method}"

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments but the module, by name."""
        signature = inspect.signature(getattr(self.kind, self.method))
        bound = signature.bind(self.module, *self.args, **self.kwargs)
        return dict(list(bound.arguments.items())[1:])


class _Thread(threading.local):
    replaced: tuple[tuple[int, str], ...] = ()


_thread = _Thread()


def taught_call(module: Any, kind: type, method: str) -> Taught | None:
    """What was said of such a call; None inside of what runs in its place."""
    taught = taught_of(kind, method)
    return None if taught is None or (id(module), method) in _thread.replaced else taught


def make_call(session: Session, taught: Taught, called: Called) -> Any:
    """Make a call as users have said, and tell the session of it.

    Raises:
      ValueError: What they said does not fit this call.
    """
    shapes = tuple((key, array.shape) for key, array in called.arrays.items())
    signature = (called.name, called.place, shapes)
    if taught.call is not None:
        reason = f"{called.name}: the call= that was registered for it tags no product with this"
        event = Event(called.name, signature, reason, called.arrays)
        run = taught.call
        with _replacing(called):
            outputs = run(called.module, *called.args, **called.kwargs)
        return session.call(event, None, lambda _: outputs) if called.arrays else outputs
    outputs = called.function(*called.args, **called.kwargs)
    inputs = jnp.asarray(_inputs(taught, called))
    use = _use(taught, called, inputs)
    if isinstance(use, str):
        event = Event(called.name, signature, f"{called.name}: {use}", called.arrays)
        return session.call(event, None, lambda _: outputs)
    _check(taught, called, use, inputs, outputs)
    rider = called.riders.get(use.kernel)
    event = Event(called.name, signature, use, called.arrays, rider, is_registered=True)
    return session.call(event, _narrowed(inputs, outputs), lambda _: outputs)


@contextlib.contextmanager
def _replacing(called: Called) -> Iterator[None]:
    """Let calls of the same method be made as they are: what runs in its place may call it."""
    old = _thread.replaced
    _thread.replaced = (*old, (id(called.module), called.method))
    try:
        yield
    finally:
        _thread.replaced = old


def _inputs(taught: Taught, called: Called) -> Any:
    if isinstance(taught.inputs, int) and len(called.args) > taught.inputs:
        return called.args[taught.inputs]
    arguments = called.arguments
    names = list(arguments)
    name: Any = taught.inputs
    if isinstance(name, int):
        name = names[name] if name < len(names) else None
    if name not in arguments:
        raise ValueError(
            f"register_layer: {called.name} was called without its argument "
            f"inputs={taught.inputs!r}: it got {names}. Say with inputs= which is multiplied."
        )
    return arguments[name]


def _use(taught: Taught, called: Called, inputs: jax.Array) -> Use | str:
    if taught.kernel not in called.arrays:
        raise ValueError(
            f"register_layer: {called.name} has no parameter kernel={taught.kernel!r}: it has "
            f"{sorted(called.arrays)}. Say with kernel= which of them is multiplied."
        )
    bias, others = taught.bias, sorted(set(called.arrays) - {taught.kernel})
    if bias not in called.arrays:
        if bias not in (None, "bias") and others:
            raise ValueError(
                f"register_layer: {called.name} has no parameter bias={bias!r}: beside the kernel "
                f"it has {others}. Say with bias= which of them is added, or bias=None."
            )
        bias = None
    changes = taught.changes_kernel or called.changes_kernel
    if taught.like is not None:
        others = [value for value in called.args if value is not inputs]
        use = read_like(taught.like, called.module, inputs, (others, called.kwargs))
        if isinstance(use, str):
            return use
        bias = None if use.bias is None and _has_no_bias(use) else bias
        return dataclasses.replace(use, kernel=taught.kernel, bias=bias, changes_kernel=changes)
    try:
        product, layout = parse_product(_equation(taught, called), inputs.ndim)
    except ValueError as error:
        raise ValueError(f"register_layer: {called.name}: {error}") from error
    return Use(called.kind.__name__, layout, product, taught.kernel, bias, changes)


def _has_no_bias(use: Use) -> bool:
    """Whether such layers never have one: tables, and their transposes."""
    return use.kernel == "embedding"


def _equation(taught: Taught, called: Called) -> str:
    equation: Any = taught.equation
    if callable(equation):
        equation = equation(called.module, *called.args, **called.kwargs)
    if not isinstance(equation, str):
        raise TypeError(
            f"register_layer: the equation= of {called.name} must be a text such as "
            f"'...i,io->...o' or return one, got a {type(equation).__name__}. Let it return the "
            "text with which the module calls jnp.einsum."
        )
    return equation


def _check(taught: Taught, called: Called, use: Use, inputs: jax.Array, outputs: Any) -> None:
    shape = called.arrays[use.kernel].shape
    fits = hasattr(outputs, "shape") and use.fits(inputs, outputs)
    if fits and isinstance(use.operation, Product):
        fits = use.fits_kernel(shape, inputs, outputs)
    if fits:
        return
    what = "register_layer: the outputs of"
    said = "like=" if taught.equation is None else f"the equation {_equation(taught, called)!r} of"
    got = f"of shape {outputs.shape}" if hasattr(outputs, "shape") else type(outputs).__name__
    raise ValueError(
        f"{what} {called.name}, {got}, are not {said} its inputs of shape {inputs.shape} and its "
        f"parameter {use.kernel!r} of shape {shape}. The equation names the axes of the inputs, of "
        "the kernel and of the outputs, as jnp.einsum does; for what is no one product, say call=."
    )


def _narrowed(inputs: jax.Array, outputs: jax.Array) -> jax.Array:
    """The inputs in the dtype of the outputs where that is smaller.

    It is what the module multiplied; in any other, the backward pass keeps a second copy.
    """
    is_float = jnp.issubdtype(inputs.dtype, jnp.floating)
    smaller = outputs.dtype.itemsize < inputs.dtype.itemsize
    return inputs.astype(outputs.dtype) if is_float and smaller else inputs
