"""A loss function with its arguments, as what is traced and differentiated."""

import abc
from collections.abc import Callable, Sequence

import jax

from singd_optax._types import LossFunction, PyTree
from singd_optax.capture._analysis import ByPath
from singd_optax.capture._linen import linen_calls
from singd_optax.capture._params import beside, insert_entries, is_array
from singd_optax.capture._session import this_thread
from singd_optax.layers._tree import Leaves

#: The arguments of a loss function beside its parameters: by place, and by name.
Arguments = tuple[tuple[PyTree, ...], dict[str, PyTree]]


class SplitTree:
    """The leaves of a tree in two lists, and the tree made of two such lists again."""

    def __init__(
        self,
        tree: PyTree,
        is_first: Callable[[object], bool] = is_array,
        is_leaf: Callable[[object], bool] | None = None,
    ):
        """Split a tree; the first list has what ``is_first`` says, by default arrays."""
        leaves, self._treedef = jax.tree.flatten(tree, is_leaf=is_leaf)
        self._is_first = list(map(is_first, leaves))
        pairs = list(zip(leaves, self._is_first, strict=True))
        self.first: list[PyTree] = [leaf for leaf, is_first in pairs if is_first]
        self.second: list[PyTree] = [leaf for leaf, is_first in pairs if not is_first]

    def filled(self, first: Sequence[PyTree], second: Sequence[PyTree] | None = None) -> PyTree:
        """The tree with other leaves in one list or in both."""
        parts = (iter(self.second if second is None else second), iter(first))
        leaves = [next(parts[is_first]) for is_first in self._is_first]
        return jax.tree.unflatten(self._treedef, leaves)


class Program(abc.ABC):
    """A loss function of parameters or of a model; sub-classes say how these hold parameters.

    Attributes:
      leaves: The parameters by path, in the order of the tree.
      arrays: All other arrays that it is given.
    """

    leaves: ByPath
    arrays: Sequence[PyTree]

    def __init__(self, loss_fn: LossFunction, has_aux: bool | None):
        """Know the function, and whether it returns more than the loss, None if not known."""
        self._loss_fn, self._has_aux = loss_fn, has_aux

    @abc.abstractmethod
    def _filled(self, leaves: ByPath, arrays: Sequence[PyTree]) -> tuple[PyTree, Arguments]:
        """The parameters or the model, and all other arguments, of these arrays."""

    @abc.abstractmethod
    def _parameters_of(self, params: PyTree) -> dict[str, PyTree]:
        """The arrays in parameters or in a model, by path."""

    @abc.abstractmethod
    def _call(self, params: PyTree, carriers: ByPath, arguments: Arguments) -> PyTree:
        """What the loss function returns, with carriers beside some parameters, by path."""

    def run(self, params: PyTree, carriers: ByPath, arguments: Arguments) -> PyTree:
        """Call the loss, with carriers beside parameters, so that the session hears of calls."""
        session = this_thread.session
        if session is not None:
            session.parameters = self._parameters_of(params)
        with linen_calls():
            return self._call(params, carriers, arguments)

    def trace(self, leaves: ByPath, carriers: ByPath, arrays: Sequence[PyTree]) -> list[jax.Array]:
        """The loss, as a list of arrays, of these parameters, carriers and arrays."""
        params, arguments = self._filled(leaves, arrays)
        return loss_arrays(self.run(params, carriers, arguments), self._has_aux)


class ParamsProgram(Program):
    """``loss_fn(params, *args, **kwargs)``, for Linen and plain JAX."""

    def __init__(
        self,
        loss_fn: LossFunction,
        params: PyTree,
        args: tuple[PyTree, ...],
        kwargs: dict[str, PyTree],
        has_aux: bool | None = None,
    ):
        """Take the arguments apart."""
        super().__init__(loss_fn, has_aux)
        self._params = Leaves(params)
        self._arguments = SplitTree((args, kwargs))
        self.leaves = {path: leaf for path in self._params if is_array(leaf := self._params[path])}
        self.arrays = self._arguments.first

    def _filled(self, leaves: ByPath, arrays: Sequence[PyTree]) -> tuple[PyTree, Arguments]:
        return self._params.replaced(leaves), self._arguments.filled(arrays)

    def _parameters_of(self, params: PyTree) -> dict[str, PyTree]:
        leaves = Leaves(params)
        return {path: leaves[path] for path in leaves}

    def _call(self, params: PyTree, carriers: ByPath, arguments: Arguments) -> PyTree:
        args, kwargs = arguments
        carrying = insert_entries(params, beside(carriers)) if carriers else params
        return self._loss_fn(carrying, *args, **kwargs)


def loss_arrays(result: PyTree, has_aux: bool | None) -> list[jax.Array]:
    """What of a loss function's result is differentiated; all of it, if that is not known."""
    if has_aux is None:
        has_aux = isinstance(result, tuple | list) and len(result) == 2
        has_aux = has_aux and getattr(result[0], "shape", None) == ()
    value = result[0] if has_aux else result
    return [leaf for leaf in jax.tree.leaves(value) if hasattr(leaf, "dtype")]
