"""Flax Linen: calls of modules, as the session that is under way wants to hear of them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import flax.linen as nn
import jax

from singd_optax._types import PyTree
from singd_optax.capture._linen_kinds import LINEN
from singd_optax.capture._make_call import make_call
from singd_optax.capture._module_call import ModuleCall, OwnParameters
from singd_optax.capture._params import ENTRY, beside, insert_entries, is_array
from singd_optax.capture._replay import ModulePath
from singd_optax.capture._session import Session, heard, this_thread


@contextlib.contextmanager
def linen_calls() -> Iterator[None]:
    """Tell the session of all calls of modules."""
    roots: dict[int, object] = {}  # keeps them alive, so that no two have one id

    def interceptor(
        next_fun: Callable[..., PyTree],
        args: tuple[PyTree, ...],
        kwargs: dict[str, PyTree],
        context: nn.module.InterceptorContext,
    ) -> PyTree:
        module, method, session = context.module, context.method_name, this_thread.session
        if session is None or module.scope is None:
            return next_fun(*args, **kwargs)
        root = module.scope.root
        if id(root) not in roots:
            roots[id(root)] = root
            _add_carriers(session, module, root)
        if not _is_public(method):
            return next_fun(*args, **kwargs)
        params = module.variables.get("params", {})
        own = OwnParameters(own_arrays(params), params.get(ENTRY, {}))
        path = ModulePath(module.scope.path)
        call = ModuleCall(LINEN, module, type(module), method, next_fun, args, kwargs, own, path)
        return make_call(session, call)

    with nn.intercept_methods(interceptor):
        yield


def own_arrays(params: Mapping[str, PyTree]) -> dict[str, jax.Array]:
    """The arrays in a mapping of parameters, those in boxes too, by name."""
    plain = {
        name: nn.meta.unbox(value)
        for name, value in params.items()
        if name != ENTRY and not isinstance(value, Mapping)
    }
    return {name: value for name, value in plain.items() if is_array(value)}


def _add_carriers(session: Session, module: nn.Module, root: PyTree) -> None:
    """Put carriers beside parameters that lifted transforms inside of this module will slice."""
    variables = root.variables()
    arrays: dict[str, jax.Array] = {}

    def note(path: str, content: Mapping[str, PyTree]) -> None:
        if ENTRY not in content:
            prefix = f"{path}/" if path else ""
            arrays.update({prefix + name: leaf for name, leaf in own_arrays(content).items()})

    params = variables.get("params", {})
    insert_entries(params, note)
    if not arrays:
        return
    shapes = tuple((path, array.shape) for path, array in arrays.items())
    heard()
    carriers = session.root((type(module).__name__, ModulePath(root.path), shapes), arrays)
    if not carriers or root.is_mutable_collection("params"):
        return
    # Flax hands out the very dict of a scope's variables here, see ``unpromised``.
    with contextlib.suppress(TypeError):
        variables["params"] = insert_entries(params, beside(carriers))


def _is_public(method: str) -> bool:
    """Whether this is a method that users call, and no setup or private helper."""
    # Those that every module has (setup, param) are none, also where a class overrides them.
    return method == "__call__" or not (method.startswith("_") or hasattr(nn.Module, method))
