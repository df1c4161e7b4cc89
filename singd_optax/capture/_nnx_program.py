"""The loss function of an NNX model, as what is traced and differentiated."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from singd_optax.capture._linen import linen_calls
from singd_optax.capture._nnx_calls import tell
from singd_optax.capture._nnx_riders import riding, variables_by_path, without_riders
from singd_optax.capture._params import is_array
from singd_optax.capture._program import ArrayArguments, loss_arrays
from singd_optax.capture._session import current_session
from singd_optax.layers import Leaves


class ModelProgram:
    """``loss_fn(model, *args, **kwargs)``, with the model's parameters by path.

    Attributes:
      leaves: The parameters by path.
      arrays: All other arrays that it is given, the model's other variables among them.
      special: Parameters that nothing can be measured for, and why.
    """

    def __init__(
        self,
        loss_fn: Callable[..., Any],
        model: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        wrt: Any,
        has_aux: bool | None = None,
    ):
        """Take the arguments apart; the model is not changed.

        Args:
          loss_fn: What the user wrote.
          model: An NNX module; abstract or not.
          args: Other arguments, which may hold more NNX objects.
          kwargs: Likewise.
          wrt: Which variables are parameters.
          has_aux: Whether the loss function returns more than the loss; None if not known.
        """
        self._loss_fn, self._has_aux = loss_fn, has_aux
        params = Leaves(nnx.as_pure(nnx.state(model, wrt, graph=True)))
        self.leaves = {path: leaf for path in params if is_array(leaf := params[path])}
        self.special = _special(variables_by_path(model), self.leaves)
        nodes, self._treedef = jax.tree.flatten((args, kwargs), is_leaf=_is_graph)
        self._is_graph = [_is_graph(node) for node in nodes]
        graphs = [node for node, graph in zip(nodes, self._is_graph, strict=True) if graph]
        others = [node for node, graph in zip(nodes, self._is_graph, strict=True) if not graph]
        self._graphdef, state = nnx.split([model, *graphs], graph=True)
        self._arguments = ArrayArguments((state, others), {})
        self.arrays = self._arguments.arrays

    def trace(
        self, leaves: Mapping[str, Any], riders: Mapping[str, Any], arrays: Sequence[Any]
    ) -> list[Any]:
        """The loss, as a list of arrays, of these parameters, riders and arrays."""
        (state, others), _ = self._arguments.filled(arrays)
        model, *graphs = nnx.merge(self._graphdef, state)
        parts = (iter(others), iter(graphs))
        nodes = [next(parts[graph]) for graph in self._is_graph]
        args, kwargs = jax.tree.unflatten(self._treedef, nodes)
        variables = variables_by_path(model)
        for path, leaf in leaves.items():
            if path not in self.special:
                variables[path].set_raw_value(leaf)
        return loss_arrays(run(self._loss_fn, model, riders, args, kwargs), self._has_aux)


def run(
    loss_fn: Callable[..., Any],
    model: Any,
    riders: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call the loss function, so that the session hears of calls.

    Args:
      loss_fn: What the user wrote.
      model: One that was built in the current trace, since it is changed until the end.
      riders: What is to ride on some of its parameters, by path.
      args: The loss function's other arguments.
      kwargs: Likewise.
    """
    session = current_session()
    if session is not None:
        session.parameters = {
            path: variable.get_value()
            for path, variable in variables_by_path(model).items()
            if is_array(variable.get_raw_value())
        }
    with linen_calls(), riding(model, riders, tell):
        return without_riders(loss_fn(model, *args, **kwargs))


def check_model(model: Any) -> None:
    """Raise unless this is an NNX object.

    Raises:
      TypeError: It is something else.
    """
    if not isinstance(model, nnx.Pytree):
        raise TypeError(
            f"`model` must be an nnx.Module, got a {type(model).__name__}. For params of Flax "
            "Linen, or in plain dicts, use singd_optax.find_layers and singd_optax.value_and_grad."
        )


def _is_graph(node: Any) -> bool:
    return isinstance(node, nnx.Pytree | nnx.Variable)


def _special(variables: Mapping[str, nnx.Variable], paths: Mapping[str, Any]) -> dict[str, str]:
    """Parameters that nothing can be measured for, and why."""
    reasons = {}
    for path in paths:
        if path not in variables:
            reasons[path] = "one of several arrays in one variable"
        elif variables[path].ref or variables[path].hijax:
            reasons[path] = "in a variable that is mutable in place (ref or hijax)"
    return reasons
