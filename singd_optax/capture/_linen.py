"""Flax Linen: calls of modules, as the session that is under way wants to hear of them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn

from singd_optax.capture._holder import holding
from singd_optax.capture._linen_kinds import multiplied, overrides_param, read
from singd_optax.capture._params import ENTRY, beside, insert_entries, is_array
from singd_optax.capture._registered import Called, make_call, taught_call
from singd_optax.capture._sequences import Place
from singd_optax.capture._session import Event, Session, current_session


@contextlib.contextmanager
def linen_calls() -> Iterator[None]:
    """Tell the session of all calls of modules."""
    roots: dict[int, Any] = {}  # keeps them alive, so that no two have one id

    def interceptor(
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Any,
    ) -> Any:
        module, session = context.module, current_session()
        if session is None or module.scope is None:
            return next_fun(*args, **kwargs)
        root = module.scope.root
        if id(root) not in roots:
            roots[id(root)] = root
            _let_ride(session, module, root)
        if not _is_call(context):
            return next_fun(*args, **kwargs)
        own = module.variables.get("params", {})
        arrays, riders = own_arrays(own), own.get(ENTRY, {})
        method, kind, place = context.method_name, type(module), Place(module.scope.path)
        with holding(arrays, riders):
            taught = taught_call(module, kind, method)
            if taught is not None:
                changes = overrides_param(kind)
                return make_call(
                    session,
                    taught,
                    Called(
                        module, kind, method, next_fun, args, kwargs, arrays, riders, place, changes
                    ),
                )
            if not arrays:
                return next_fun(*args, **kwargs)
            return tell(session, next_fun, args, kwargs, context, arrays, riders)

    def tell(
        session: Session,
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Any,
        arrays: dict[str, Any],
        riders: Mapping[str, Any],
    ) -> Any:
        module = context.module
        inputs, (others, named) = split_arguments(args, kwargs)
        name = type(module).__name__
        use = read(module, context.method_name, inputs, (others, named))
        shapes = tuple((key, array.shape) for key, array in arrays.items())
        signature = (name, context.method_name, Place(module.scope.path), shapes)
        if isinstance(use, str):
            event = Event(name, signature, use, arrays)
            return session.call(event, None, lambda _: next_fun(*args, **kwargs))
        inputs = multiplied(module, use, inputs)
        rider = riders.get(use.kernel)
        event = Event(name, signature, use, arrays, rider)
        return session.call(event, inputs, lambda inputs: next_fun(inputs, *others, **named))

    with nn.intercept_methods(interceptor):
        yield


def own_arrays(params: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays in a mapping of parameters, those in boxes too, by name."""
    plain = {
        name: nn.meta.unbox(value)
        for name, value in params.items()
        if name != ENTRY and not isinstance(value, Mapping)
    }
    return {name: value for name, value in plain.items() if is_array(value)}


def _let_ride(session: Any, module: nn.Module, root: Any) -> None:
    """Put riders beside parameters that lifted transforms inside of this module will slice."""
    variables = root.variables()
    arrays: dict[str, Any] = {}

    def note(path: str, content: Mapping[str, Any]) -> None:
        if ENTRY not in content:
            prefix = f"{path}/" if path else ""
            arrays.update({prefix + name: leaf for name, leaf in own_arrays(content).items()})

    params = variables.get("params", {})
    insert_entries(params, note)
    if not arrays:
        return
    shapes = tuple((path, array.shape) for path, array in arrays.items())
    riders = session.root((type(module).__name__, Place(root.path), shapes), arrays)
    if not riders or root.is_mutable_collection("params"):
        return
    # Flax hands out the very dict of a scope's variables here, see ``unpromised``.
    with contextlib.suppress(TypeError):
        variables["params"] = insert_entries(params, beside(riders))


def _is_call(context: Any) -> bool:
    """Whether this is a method that users call, and no setup or private helper."""
    name = context.method_name
    # Those that every module has (setup, param) are none, also where a class overrides them.
    return name == "__call__" or not (name.startswith("_") or hasattr(nn.Module, name))


def split_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The inputs, which come first by place or by name, and (other args, other kwargs)."""
    if args or not kwargs:
        return (args[0] if args else None), (args[1:], kwargs)
    named = dict(kwargs)
    name = next((n for n in ("inputs", "query") if n in named), next(iter(named)))
    return named.pop(name), ((), named)
