"""Calls of modules, as the session that is under way wants to hear of them."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.capture._frameworks import read_like
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._kinds import OtherArguments
from singd_optax.capture._module_call import ModuleCall, running
from singd_optax.capture._registry import RegisteredMethod, registered_method
from singd_optax.capture._session import LayerCall, Session, heard
from singd_optax.layers._product import Product, parse_product


def make_call(session: Session, call: ModuleCall) -> PyTree:
    """Make a call of a module, and tell the session of it; outputs, or others in their place."""
    heard()
    with running(call):
        registered = _registered_call(call)
        if registered is not None:
            return _make_registered_call(session, registered, call)
        if not call.own.arrays:
            return call.function(*call.args, **call.kwargs)
        return _make_plain_call(session, call)


def _make_plain_call(session: Session, call: ModuleCall) -> PyTree:
    """Make a call of a module that is what its class says."""
    name, own = call.kind.__name__, call.own
    inputs, (others, named) = _split_arguments(call.args, call.kwargs)
    use = call.framework.read(call.module, call.kind, call.method, inputs, (others, named))
    signature = (name, call.method, call.path, own.shapes)
    if isinstance(use, str):
        layer_call = LayerCall(name, signature, use, own.arrays)
        return session.call(layer_call, None, lambda _: call.function(*call.args, **call.kwargs))
    inputs = call.framework.multiplied(call.module, use, jnp.asarray(inputs))
    layer_call = LayerCall(name, signature, use, own.arrays, own.carriers.get(use.kernel))
    return session.call(layer_call, inputs, lambda inputs: call.function(inputs, *others, **named))


def _split_arguments(
    args: tuple[PyTree, ...], kwargs: dict[str, PyTree]
) -> tuple[PyTree, OtherArguments]:
    """The inputs, which come first by place or by name, and all other arguments."""
    if args or not kwargs:
        return (args[0] if args else None), (args[1:], kwargs)
    named = dict(kwargs)
    name = next((n for n in ("inputs", "query") if n in named), next(iter(named)))
    return named.pop(name), ((), named)


class _Thread(threading.local):
    replaced: tuple[tuple[int, str], ...] = ()


_thread = _Thread()


def _registered_call(call: ModuleCall) -> RegisteredMethod | None:
    """What was said of such a call; None inside of what runs in its place."""
    registered = registered_method(call.kind, call.method)
    is_replaced = (id(call.module), call.method) in _thread.replaced
    return None if is_replaced else registered


def _make_registered_call(
    session: Session, registered: RegisteredMethod, call: ModuleCall
) -> PyTree:
    """Make a call as users have said, and tell the session of it.

    Raises:
      ValueError: What they said does not fit this call.
    """
    arrays = call.own.arrays
    signature = (call.name, call.path, call.own.shapes)
    if registered.call is not None:
        reason = f"{call.name}: the call= that was registered for it tags no product with this"
        layer_call = LayerCall(call.name, signature, reason, arrays)
        run = registered.call
        with _replacing(call):
            outputs = run(call.module, *call.args, **call.kwargs)
        return session.call(layer_call, None, lambda _: outputs) if arrays else outputs
    outputs = call.function(*call.args, **call.kwargs)
    inputs = jnp.asarray(_registered_inputs(registered, call))
    use = _registered_use(registered, call, inputs)
    if isinstance(use, str):
        layer_call = LayerCall(call.name, signature, f"{call.name}: {use}", arrays)
        return session.call(layer_call, None, lambda _: outputs)
    _check(registered, call, use, inputs, outputs)
    carrier = call.own.carriers.get(use.kernel)
    layer_call = LayerCall(call.name, signature, use, arrays, carrier, is_registered=True)
    return session.call(layer_call, _narrowed(inputs, outputs), lambda _: outputs)


@contextlib.contextmanager
def _replacing(call: ModuleCall) -> Iterator[None]:
    """Let calls of the same method be made as they are: what runs in its place may call it."""
    old = _thread.replaced
    _thread.replaced = (*old, (id(call.module), call.method))
    try:
        yield
    finally:
        _thread.replaced = old


def _registered_inputs(registered: RegisteredMethod, call: ModuleCall) -> PyTree:
    if isinstance(registered.inputs, int) and len(call.args) > registered.inputs:
        return call.args[registered.inputs]
    arguments = call.arguments
    names = list(arguments)
    name: PyTree = registered.inputs
    if isinstance(name, int):
        name = names[name] if name < len(names) else None
    if name not in arguments:
        raise ValueError(
            f"register_layer: {call.name} was called without its argument "
            f"inputs={registered.inputs!r}: it got {names}. Say with inputs= which is multiplied."
        )
    return arguments[name]


def _registered_use(
    registered: RegisteredMethod, call: ModuleCall, inputs: jax.Array
) -> KernelUse | str:
    if registered.kernel not in call.own.arrays:
        raise ValueError(
            f"register_layer: {call.name} has no parameter kernel={registered.kernel!r}: it has "
            f"{sorted(call.own.arrays)}. Say with kernel= which of them is multiplied."
        )
    bias, others = registered.bias, sorted(set(call.own.arrays) - {registered.kernel})
    if bias not in call.own.arrays:
        if bias not in (None, "bias") and others:
            raise ValueError(
                f"register_layer: {call.name} has no parameter bias={bias!r}: beside the kernel "
                f"it has {others}. Say with bias= which of them is added, or bias=None."
            )
        bias = None
    changes = registered.changes_kernel or call.framework.changes_kernel(call.kind)
    if registered.like is not None:
        rest = tuple(value for value in call.args if value is not inputs)
        use = read_like(registered.like, call.module, inputs, (rest, call.kwargs))
        if isinstance(use, str):
            return use
        bias = None if use.bias is None and _has_no_bias(use) else bias
        return dataclasses.replace(use, kernel=registered.kernel, bias=bias, changes_kernel=changes)
    try:
        product, layout = parse_product(_equation(registered, call), inputs.ndim)
    except ValueError as error:
        raise ValueError(f"register_layer: {call.name}: {error}") from error
    return KernelUse(call.kind.__name__, layout, product, registered.kernel, bias, changes)


def _has_no_bias(use: KernelUse) -> bool:
    """Whether such layers never have one: tables, and their transposes."""
    return use.kernel == "embedding"


def _equation(registered: RegisteredMethod, call: ModuleCall) -> str:
    equation: PyTree = registered.equation
    if callable(equation):
        equation = equation(call.module, *call.args, **call.kwargs)
    if not isinstance(equation, str):
        raise TypeError(
            f"register_layer: the equation= of {call.name} must be a text such as "
            f"'...i,io->...o' or return one, got a {type(equation).__name__}. Let it return the "
            "text with which the module calls jnp.einsum."
        )
    return equation


def _check(
    registered: RegisteredMethod,
    call: ModuleCall,
    use: KernelUse,
    inputs: jax.Array,
    outputs: PyTree,
) -> None:
    shape = call.own.arrays[use.kernel].shape
    fits = hasattr(outputs, "shape") and use.fits(inputs, outputs)
    if fits and isinstance(use.operation, Product):
        fits = use.fits_kernel(shape, inputs, outputs)
    if fits:
        return
    what = "register_layer: the outputs of"
    said = (
        "like="
        if registered.equation is None
        else f"the equation {_equation(registered, call)!r} of"
    )
    got = f"of shape {outputs.shape}" if hasattr(outputs, "shape") else type(outputs).__name__
    raise ValueError(
        f"{what} {call.name}, {got}, are not {said} its inputs of shape {inputs.shape} and its "
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
