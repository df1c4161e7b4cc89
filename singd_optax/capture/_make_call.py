"""Calls of modules, as the session that is under way wants to hear of them."""

import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.capture._kinds import OtherArguments
from singd_optax.capture._module_call import ModuleCall, running
from singd_optax.capture._registered_calls import make_registered_call, registered_call
from singd_optax.capture._session import LayerCall, Session


def make_call(session: Session, call: ModuleCall) -> PyTree:
    """Make a call of a module, and tell the session of it; its outputs, or others in their place.

    Args:
      session: Which listens.
      call: Of any module, with parameters of its own or without.
    """
    with running(call):
        registered = registered_call(call)
        if registered is not None:
            return make_registered_call(session, registered, call)
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
        seen = LayerCall(name, signature, use, own.arrays)
        return session.call(seen, None, lambda _: call.function(*call.args, **call.kwargs))
    inputs = call.framework.multiplied(call.module, use, jnp.asarray(inputs))
    seen = LayerCall(name, signature, use, own.arrays, own.carriers.get(use.kernel))
    return session.call(seen, inputs, lambda inputs: call.function(inputs, *others, **named))


def _split_arguments(
    args: tuple[PyTree, ...], kwargs: dict[str, PyTree]
) -> tuple[PyTree, OtherArguments]:
    """The inputs, which come first by place or by name, and all other arguments."""
    if args or not kwargs:
        return (args[0] if args else None), (args[1:], kwargs)
    named = dict(kwargs)
    name = next((n for n in ("inputs", "query") if n in named), next(iter(named)))
    return named.pop(name), ((), named)
