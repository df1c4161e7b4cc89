"""Flax NNX: calls of modules, as the session that is under way wants to hear of them."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from singd_optax.capture._holder import holding
from singd_optax.capture._linen import split_arguments
from singd_optax.capture._nnx_kinds import multiplied, read
from singd_optax.capture._nnx_riders import plain_type, riders_of
from singd_optax.capture._params import is_array
from singd_optax.capture._registered import Called, make_call, taught_call
from singd_optax.capture._session import Event, Session, current_session


def tell(
    module: Any,
    method: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Tell the session of a call of a module's method."""
    session = current_session()
    if session is None:
        return function(module, *args, **kwargs)
    arrays, riders, kind = own_arrays(module), riders_of(module), plain_type(type(module))
    with holding(arrays, riders):
        taught = taught_call(module, kind, method)
        if taught is not None:
            run = functools.partial(function, module)
            called = Called(module, kind, method, run, args, kwargs, arrays, riders)
            return make_call(session, taught, called)
        if not arrays:
            return function(module, *args, **kwargs)
        return _tell(session, module, method, function, args, kwargs, arrays)


def _tell(
    session: Session,
    module: Any,
    method: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    arrays: dict[str, Any],
) -> Any:
    inputs, (others, named) = split_arguments(args, kwargs)
    name = type(module).__name__
    use = read(module, method, function, inputs, (others, named))
    shapes = tuple((key, array.shape) for key, array in arrays.items())
    signature = (name, method, shapes)
    if isinstance(use, str):
        event = Event(name, signature, use, arrays)
        return session.call(event, None, lambda _: function(module, *args, **kwargs))
    inputs = multiplied(module, use, jnp.asarray(inputs))
    event = Event(name, signature, use, arrays, riders_of(module).get(use.kernel))
    return session.call(event, inputs, lambda inputs: function(module, inputs, *others, **named))


def own_arrays(module: Any) -> dict[str, Any]:
    """The arrays in a module's own variables, by name."""
    values = {
        name: value.get_value()
        for name, value in vars(module).items()
        if isinstance(value, nnx.Param)
    }
    return {name: value for name, value in values.items() if is_array(value)}
