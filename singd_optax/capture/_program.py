"""The loss function as what is traced and differentiated: of params, for Linen and plain JAX."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from singd_optax.capture._linen import linen_calls
from singd_optax.capture._params import beside, insert_entries, is_array
from singd_optax.capture._session import current_session
from singd_optax.layers import Leaves


class ArrayArguments:
    """Arguments, split into arrays and all else."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]):
        """Take them apart."""
        self._leaves, self._treedef = jax.tree.flatten((args, kwargs))
        self._is_array = [is_array(leaf) for leaf in self._leaves]

    @property
    def arrays(self) -> list[Any]:
        """The arrays."""
        return [leaf for leaf, array in zip(self._leaves, self._is_array, strict=True) if array]

    def filled(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with other arrays."""
        supply = iter(arrays)
        pairs = zip(self._leaves, self._is_array, strict=True)
        return jax.tree.unflatten(
            self._treedef, [next(supply) if array else leaf for leaf, array in pairs]
        )


class ParamsProgram:
    """``loss_fn(params, *args, **kwargs)``, with parameters by path.

    Attributes:
      leaves: The parameters by path, in the order of the tree.
      arrays: All other arrays that it is given.
    """

    def __init__(
        self,
        loss_fn: Callable[..., Any],
        params: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
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
        self._loss_fn, self._has_aux = loss_fn, has_aux
        self._params = Leaves(params)
        self._arguments = ArrayArguments(args, kwargs)
        self.leaves = {path: leaf for path in self._params if is_array(leaf := self._params[path])}
        self.arrays = self._arguments.arrays

    def trace(
        self, leaves: Mapping[str, Any], riders: Mapping[str, Any], arrays: Sequence[Any]
    ) -> list[Any]:
        """The loss, as a list of arrays, of these parameters, riders and arrays."""
        args, kwargs = self._arguments.filled(arrays)
        result = run(self._loss_fn, self._params.replaced(leaves), riders, args, kwargs)
        return loss_arrays(result, self._has_aux)


def run(
    loss_fn: Callable[..., Any],
    params: Any,
    riders: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call the loss function, so that the session hears of calls.

    Args:
      loss_fn: What the user wrote.
      params: Its parameters.
      riders: What is to ride beside some of them, by path.
      args: Its other arguments.
      kwargs: Likewise.
    """
    session = current_session()
    if session is not None:
        leaves = Leaves(params)
        session.parameters = {path: leaves[path] for path in leaves}
    ridden = insert_entries(params, beside(riders)) if riders else params
    with linen_calls():
        return loss_fn(ridden, *args, **kwargs)


def loss_arrays(result: Any, has_aux: bool | None) -> list[Any]:
    """What of a loss function's result is differentiated; all of it, if that is not known."""
    if has_aux is None:
        has_aux = isinstance(result, tuple | list) and len(result) == 2
        has_aux = has_aux and getattr(result[0], "shape", None) == ()
    value = result[0] if has_aux else result
    return [leaf for leaf in jax.tree.leaves(value) if hasattr(leaf, "dtype")]
