"""Carriers in NNX parameters: what travels inside a parameter through every transform.

A *loaded* parameter is a ``Variable`` whose raw value is a pair: the array, and the carrier. To
everybody who reads the variable it is the array alone; NNX's transforms slice, stack and trace the
pair as they do any raw value, with the axes of this very parameter. The modules that hold such
parameters are told apart by their class: one that is made here, whose methods call ``on_call``.
Both are put on a model that a transform has rebuilt inside a trace, never on the
user's own, and are taken off again before anybody sees it.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import flax.struct
import jax
from flax import nnx

from singd_optax._types import PyTree
from singd_optax.capture._registry import is_registered

#: What a method of a module with carriers is replaced by: called with the module, the name of the
#: method, the method as its class has it, and its arguments.
OnCall = Callable[
    [PyTree, str, Callable[..., PyTree], tuple[PyTree, ...], dict[str, PyTree]], PyTree
]

#: The type of a variable or of a module.
Plain = TypeVar("Plain")


@flax.struct.dataclass
class ArrayWithCarrier:
    """The raw value of a loaded parameter."""

    array: jax.Array
    carrier: PyTree


class _LoadedVariable:
    """A mix-in for loaded variables: all but ``get_raw_value`` see the array alone."""

    __slots__ = ()

    def _plain(self: Any) -> nnx.Variable:
        raw = self.get_raw_value()
        array = raw.array if isinstance(raw, ArrayWithCarrier) else raw
        return plain_type(type(self)).from_metadata(array, self.get_metadata())

    def get_value(self, **options: PyTree) -> PyTree:
        return self._plain().get_value(**options)

    def set_value(self: Any, value: PyTree, **options: PyTree) -> None:
        plain = self._plain()
        plain.set_value(value, **options)
        raw, array = self.get_raw_value(), plain.get_raw_value()
        self.set_raw_value(
            ArrayWithCarrier(array, raw.carrier) if isinstance(raw, ArrayWithCarrier) else array
        )

    def __getattr__(self: Any, name: str) -> PyTree:
        if self.has_metadata(name):
            return self.get_metadata(name)
        return getattr(self.get_value(), name)


@functools.cache
def _loaded_class(base: type[nnx.Variable]) -> type[nnx.Variable]:
    """The class of variables of type ``base`` that hold a carrier, too."""
    metaclass: Any = type(base)
    return metaclass(base.__name__, (_LoadedVariable, base), {"__slots__": ()})


def plain_type(kind: type[Plain]) -> type[Plain]:
    """The class that a class made here stands for; any other as it is."""
    made = _LoadedVariable in kind.__bases__ or "_singd_optax_made" in vars(kind)
    return kind.__bases__[-1] if made else kind


@functools.cache
def _calling(base: type[nnx.Module], is_pytree: bool, on_call: OnCall) -> type[nnx.Module]:
    """The class of modules of type ``base`` whose public methods are ``on_call``'s."""

    def method(name: str, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        @functools.wraps(function)
        def replaced(self: nnx.Module, *args: PyTree, **kwargs: PyTree) -> PyTree:
            return on_call(self, name, function, args, kwargs)

        return replaced

    names = [n for n in dir(base) if not n.startswith("_") and not hasattr(nnx.Module, n)]
    functions = {n: getattr(base, n) for n in [*names, "__call__"] if hasattr(base, n)}
    content: dict[str, object] = {
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


def variables_by_path(model: nnx.Module) -> dict[str, nnx.Variable]:
    """The variables of a model by their paths in ``nnx.state``; a shared one has its first."""
    return {
        "/".join(map(str, path)): node
        for path, node in nnx.iter_graph(model, graph=True)
        if isinstance(node, nnx.Variable)
    }


@contextlib.contextmanager
def carrying(model: nnx.Module, carriers: Mapping[str, PyTree], on_call: OnCall) -> Iterator[None]:
    """Hear of the calls of a model's modules, and put carriers inside some of its parameters.

    The model must be one that was built in the current trace, since it is changed until the end.

    Raises:
      ValueError: The model has no parameter at one of the paths.
    """
    variables = variables_by_path(model)
    for path in carriers:
        if path not in variables:
            raise ValueError(
                f"`layers` have a parameter at {path!r}, which the model has not: it has "
                f"{sorted(variables)[:20]}. Call find_layers again for this model."
            )
    loaded = {id(variables[path]): (variables[path], carriers[path]) for path in carriers}
    modules = [
        node
        for _, node in nnx.iter_graph(model, graph=True)
        if isinstance(node, nnx.Module)
        and (
            is_registered(type(node))
            or any(isinstance(value, nnx.Variable) for value in vars(node).values())
        )
    ]
    types: list[tuple[object, type]] = [(node, type(node)) for node in modules]
    types += [(variable, type(variable)) for variable, _ in loaded.values()]
    try:
        for node in modules:
            is_pytree = not jax.tree_util.all_leaves([node])
            object.__setattr__(node, "__class__", _calling(type(node), is_pytree, on_call))
        for variable, carrier in loaded.values():
            variable.set_raw_value(ArrayWithCarrier(variable.get_raw_value(), carrier))
            object.__setattr__(variable, "__class__", _loaded_class(type(variable)))
        yield
    finally:
        for variable, _ in loaded.values():
            raw = variable.get_raw_value()
            if isinstance(raw, ArrayWithCarrier):
                variable.set_raw_value(raw.array)
        for thing, original in types:
            object.__setattr__(thing, "__class__", original)


def carriers_of(module: PyTree) -> dict[str, PyTree]:
    """The carriers of a module's own parameters, by the parameter's name there."""
    raws = {
        name: value.get_raw_value()
        for name, value in vars(module).items()
        if isinstance(value, nnx.Variable)
    }
    return {name: raw.carrier for name, raw in raws.items() if isinstance(raw, ArrayWithCarrier)}


def plain_params(tree: PyTree) -> PyTree:
    """The parameters without what ``find_layers`` and ``value_and_grad`` put into them.

    Inside a loss function, parameters of stacked layers (``nnx.scan``, ``nnx.vmap``) carry what
    the measurement of these layers needs. Modules do not see it; code that goes over all leaves of
    ``nnx.state(model)`` (an L2 penalty, a norm) does, and should go over ``plain_params`` of it;
    ``find_layers`` says where that is needed. Elsewhere this is the identity.

    Args:
      tree: An ``nnx.State``, or any tree of variables.

    Returns:
      The same tree with the user's own arrays.

    >>> import jax.numpy as jnp
    >>> plain_params(nnx.Param(jnp.ones(3))).shape
    (3,)
    """

    def plain(node: PyTree) -> PyTree:
        return node._plain() if isinstance(node, _LoadedVariable) else node

    return jax.tree.map(plain, tree, is_leaf=lambda node: isinstance(node, nnx.Variable))
