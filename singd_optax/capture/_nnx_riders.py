"""Riders on NNX parameters: what travels inside a parameter through every transform.

A parameter that carries a rider is a ``Variable`` whose raw value is a pair: the array, and the
rider. To everybody who reads the variable it is the array alone; NNX's transforms slice, stack and
trace the pair as they do any raw value, with the axes of this very parameter. The modules that
hold such parameters are told apart by their class: one that is made here, whose methods call
``on_call``. Both are put on a model that a transform has rebuilt inside a trace, never on the
user's own, and are taken off again before anybody sees it.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.struct
import jax
from flax import nnx

from singd_optax.capture._registry import is_taught

#: What a method of a module with riders is replaced by: called with the module, the name of the
#: method, the method as its class has it, and its arguments.
OnCall = Callable[[Any, str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@flax.struct.dataclass
class Ridden:
    """The raw value of a parameter that carries a rider."""

    array: Any
    rider: Any


class _Carrier:
    """A mix-in for variables that carry: all but ``get_raw_value`` see the array alone."""

    __slots__ = ()

    def _plain(self: Any) -> nnx.Variable:
        raw = self.get_raw_value()
        array = raw.array if isinstance(raw, Ridden) else raw
        return plain_type(type(self)).from_metadata(array, self.get_metadata())

    def get_value(self, **options: Any) -> Any:
        return self._plain().get_value(**options)

    def set_value(self: Any, value: Any, **options: Any) -> None:
        plain = self._plain()
        plain.set_value(value, **options)
        raw, array = self.get_raw_value(), plain.get_raw_value()
        self.set_raw_value(Ridden(array, raw.rider) if isinstance(raw, Ridden) else array)

    def __getattr__(self: Any, name: str) -> Any:
        if self.has_metadata(name):
            return self.get_metadata(name)
        return getattr(self.get_value(), name)


@functools.cache
def _carrying(base: type[nnx.Variable]) -> type[nnx.Variable]:
    """The class of variables of type ``base`` that carry."""
    metaclass: Any = type(base)
    return metaclass(base.__name__, (_Carrier, base), {"__slots__": ()})


def plain_type(carrying: Any) -> Any:
    """The class that a class made here stands for; any other as it is."""
    made = _Carrier in carrying.__bases__ or "_singd_optax_made" in vars(carrying)
    return carrying.__bases__[-1] if made else carrying


@functools.cache
def _calling(base: type[nnx.Module], is_pytree: bool, on_call: OnCall) -> type[nnx.Module]:
    """The class of modules of type ``base`` whose public methods are ``on_call``'s."""

    def method(name: str, function: Any) -> Any:
        @functools.wraps(function)
        def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
            return on_call(self, name, function, args, kwargs)

        return replaced

    names = [n for n in dir(base) if not n.startswith("_") and not hasattr(nnx.Module, n)]
    functions = {n: getattr(base, n) for n in [*names, "__call__"] if hasattr(base, n)}
    content: dict[str, Any] = {
        name: method(name, function)
        for name, function in functions.items()
        if inspect.isfunction(function) and not isinstance(vars(base).get(name), staticmethod)
    }
    content |= {
        "_singd_optax_made": True,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    metaclass: Any = type(base)
    return metaclass(base.__name__, (base,), content, pytree=is_pytree)


def variables_by_path(model: Any) -> dict[str, nnx.Variable]:
    """The variables of a model by their paths in ``nnx.state``; a shared one has its first."""
    return {
        "/".join(map(str, path)): node
        for path, node in nnx.iter_graph(model, graph=True)
        if isinstance(node, nnx.Variable)
    }


@contextlib.contextmanager
def riding(model: Any, riders: Mapping[str, Any], on_call: OnCall) -> Iterator[None]:
    """Hear of the calls of a model's modules, and put riders on some of its parameters.

    Args:
      model: One that was built in the current trace, since it is changed until the end.
      riders: By the path of the parameter.
      on_call: What calls of modules that hold variables become.

    Raises:
      ValueError: The model has no parameter at one of the paths.
    """
    variables = variables_by_path(model)
    carriers = {}
    for path, rider in riders.items():
        if path not in variables:
            raise ValueError(
                f"The model has no parameter at {path!r}: there are {sorted(variables)[:20]}. Call "
                "find_layers again for this model."
            )
        carriers[id(variables[path])] = variables[path], rider
    modules = [
        node
        for _, node in nnx.iter_graph(model, graph=True)
        if isinstance(node, nnx.Module)
        and (
            is_taught(type(node))
            or any(isinstance(value, nnx.Variable) for value in vars(node).values())
        )
    ]
    types: list[tuple[Any, type]] = [(node, type(node)) for node in modules]
    types += [(variable, type(variable)) for variable, _ in carriers.values()]
    try:
        for node in modules:
            is_pytree = not jax.tree_util.all_leaves([node])
            object.__setattr__(node, "__class__", _calling(type(node), is_pytree, on_call))
        for variable, rider in carriers.values():
            variable.set_raw_value(Ridden(variable.get_raw_value(), rider))
            object.__setattr__(variable, "__class__", _carrying(type(variable)))
        yield
    finally:
        for variable, _ in carriers.values():
            raw = variable.get_raw_value()
            if isinstance(raw, Ridden):
                variable.set_raw_value(raw.array)
        for thing, original in types:
            object.__setattr__(thing, "__class__", original)


def riders_of(module: Any) -> dict[str, Any]:
    """The riders of a module's own parameters, by the parameter's name there."""
    raws = {
        name: value.get_raw_value()
        for name, value in vars(module).items()
        if isinstance(value, nnx.Variable)
    }
    return {name: raw.rider for name, raw in raws.items() if isinstance(raw, Ridden)}


def without_riders(tree: Any) -> Any:
    """The tree with plain variables for those that carry.

    Inside a loss function, parameters of stacked layers (``nnx.scan``, ``nnx.vmap``) carry what
    their measurement needs. Modules do not see it; code that goes over all leaves of
    ``nnx.state(model)`` (an L2 penalty, a norm) does, and should go over ``plain_params`` of it;
    ``find_layers`` says where that is needed. Elsewhere this is the identity.

    Args:
      tree: An ``nnx.State``, or any tree of variables.

    Returns:
      The same tree with the user's own arrays.

    >>> import jax.numpy as jnp
    >>> without_riders(nnx.Param(jnp.ones(3))).shape
    (3,)
    """

    def plain(node: Any) -> Any:
        return node._plain() if isinstance(node, _Carrier) else node

    return jax.tree.map(plain, tree, is_leaf=lambda node: isinstance(node, nnx.Variable))
