"""A loss function with its arguments, as what is traced and differentiated."""

import abc
from collections.abc import Sequence

import jax

from singd_optax._types import LossFunction, PyTree
from singd_optax.capture._analysis import ByPath
from singd_optax.capture._linen import linen_calls
from singd_optax.capture._params import beside, insert_entries, is_array
from singd_optax.capture._session import current_session
from singd_optax.layers import Leaves

#: The arguments of a loss function beside its parameters: by place, and by name.
Arguments = tuple[tuple[PyTree, ...], dict[str, PyTree]]


class ArrayArguments:
    """Arguments, split into arrays and all else."""

    def __init__(self, arguments: Arguments):
        """Take them apart."""
        self._leaves, self._treedef = jax.tree.flatten(arguments)
        self._is_array = [is_array(leaf) for leaf in self._leaves]

    @property
    def arrays(self) -> list[PyTree]:
        """The arrays."""
        return [leaf for leaf, array in zip(self._leaves, self._is_array, strict=True) if array]

    def filled(self, arrays: Sequence[PyTree]) -> Arguments:
        """The arguments with other arrays."""
        supply = iter(arrays)
        pairs = zip(self._leaves, self._is_array, strict=True)
        return jax.tree.unflatten(
            self._treedef, [next(supply) if array else leaf for leaf, array in pairs]
        )


class Program(abc.ABC):
    """A loss function of parameters or of a model; sub-classes say how these hold parameters.

    Attributes:
      leaves: The parameters by path, in the order of the tree.
      arrays: All other arrays that it is given.
    """

    leaves: ByPath
    arrays: Sequence[PyTree]

    def __init__(self, loss_fn: LossFunction, has_aux: bool | None):
        """Know the function.

        Args:
          loss_fn: What the user wrote.
          has_aux: Whether it returns more than the loss; None if that is not known.
        """
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
        """Call the loss function, so that the session hears of calls.

        Args:
          params: Its parameters, or the model.
          carriers: What is to travel beside some of them, by path.
          arguments: All others.
        """
        session = current_session()
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
        """Take the arguments apart.

        Args:
          loss_fn: What the user wrote.
          params: Its parameters.
          args: Its other arguments.
          kwargs: Likewise.
          has_aux: Whether it returns more than the loss; None if that is not known.
        """
        super().__init__(loss_fn, has_aux)
        self._params = Leaves(params)
        self._arguments = ArrayArguments((args, kwargs))
        self.leaves = {path: leaf for path in self._params if is_array(leaf := self._params[path])}
        self.arrays = self._arguments.arrays

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
