"""Flax NNX: calls of modules, as the session that is under way wants to hear of them."""

import functools
from collections.abc import Callable

import jax
from flax import nnx

from singd_optax._types import PyTree
from singd_optax.capture._make_call import make_call
from singd_optax.capture._module_call import ModuleCall, OwnParameters
from singd_optax.capture._nnx_carriers import carriers_of, plain_type
from singd_optax.capture._nnx_kinds import NNX
from singd_optax.capture._params import is_array
from singd_optax.capture._session import this_thread


def on_call(
    module: nnx.Module,
    method: str,
    function: Callable[..., PyTree],
    args: tuple[PyTree, ...],
    kwargs: dict[str, PyTree],
) -> PyTree:
    """Make a call of a module's method, and tell the session of it."""
    session = this_thread.session
    if session is None:
        return function(module, *args, **kwargs)
    own = OwnParameters(own_arrays(module), carriers_of(module))
    run = functools.partial(function, module)
    kind = plain_type(type(module))
    return make_call(session, ModuleCall(NNX, module, kind, method, run, args, kwargs, own))


def own_arrays(module: nnx.Module) -> dict[str, jax.Array]:
    """The arrays in a module's own variables, by name."""
    values = {
        name: value.get_value()
        for name, value in vars(module).items()
        if isinstance(value, nnx.Param)
    }
    return {name: value for name, value in values.items() if is_array(value)}
