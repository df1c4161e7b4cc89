"""The loss function of an NNX model, as what is traced and differentiated."""

from collections.abc import Mapping, Sequence

import jax
from flax import nnx

from singd_optax._types import LossFunction, PyTree
from singd_optax.capture._analysis import ByPath
from singd_optax.capture._nnx_calls import on_call
from singd_optax.capture._nnx_carriers import carrying, plain_params, variables_by_path
from singd_optax.capture._params import is_array
from singd_optax.capture._program import Arguments, Program, SplitTree
from singd_optax.layers._tree import Leaves


def as_pure(tree: PyTree) -> PyTree:
    """The tree with raw values in place of variables: ``nnx.as_pure``, new in flax 0.12.7."""
    is_variable = lambda leaf: isinstance(leaf, nnx.Variable)
    raw = lambda leaf: as_pure(leaf.get_raw_value()) if is_variable(leaf) else leaf
    pure = getattr(nnx, "as_pure", lambda tree: jax.tree.map(raw, tree, is_leaf=is_variable))
    return pure(tree)


class ModelProgram(Program):
    """``loss_fn(model, *args, **kwargs)``, with the model's parameters by path.

    Attributes:
      leaves: The parameters by path.
      arrays: All other arrays that it is given, the model's other variables among them.
      special: Parameters that nothing can be measured for, and why.
    """

    def __init__(
        self,
        loss_fn: LossFunction,
        model: PyTree,
        args: tuple[PyTree, ...],
        kwargs: dict[str, PyTree],
        wrt: PyTree,
        has_aux: bool | None = None,
    ):
        """Take the arguments apart; the model, abstract or not, is not changed."""
        super().__init__(loss_fn, has_aux)
        params = Leaves(as_pure(nnx.state(model, wrt, graph=True)))
        self.leaves = {path: leaf for path in params if is_array(leaf := params[path])}
        self.special = _special(variables_by_path(model), self.leaves)
        self._arguments = SplitTree((args, kwargs), _is_graph, _is_graph)
        self._graphdef, state = nnx.split([model, *self._arguments.first], graph=True)
        self._state = SplitTree((state, self._arguments.second))
        self.arrays = self._state.first

    def _filled(self, leaves: ByPath, arrays: Sequence[PyTree]) -> tuple[PyTree, Arguments]:
        state, others = self._state.filled(arrays)
        model, *graphs = nnx.merge(self._graphdef, state)
        variables = variables_by_path(model)
        for path, leaf in leaves.items():
            if path not in self.special:
                variables[path].set_raw_value(leaf)
        return model, self._arguments.filled(graphs, others)

    def _parameters_of(self, params: PyTree) -> dict[str, PyTree]:
        return {
            path: variable.get_value()
            for path, variable in variables_by_path(params).items()
            if is_array(variable.get_raw_value())
        }

    def _call(self, params: PyTree, carriers: ByPath, arguments: Arguments) -> PyTree:
        # The model is one that was built in the current trace, since it is changed until the end.
        args, kwargs = arguments
        with carrying(params, carriers, on_call):
            return plain_params(self._loss_fn(params, *args, **kwargs))


def check_model(model: object) -> None:
    """Raise unless this is an NNX object.

    Raises:
      TypeError: It is something else.
    """
    if not isinstance(model, nnx.Pytree):
        raise TypeError(
            f"`model` must be an nnx.Module, got a {type(model).__name__}. For params of Flax "
            "Linen, or in plain dicts, use singd_optax.find_layers and singd_optax.value_and_grad."
        )


def _is_graph(node: object) -> bool:
    return isinstance(node, nnx.Pytree | nnx.Variable)


def _special(variables: Mapping[str, nnx.Variable], paths: ByPath) -> dict[str, str]:
    """Parameters that nothing can be measured for, and why."""
    reasons = {}
    for path in paths:
        if path not in variables:
            reasons[path] = "one of several arrays in one variable"
        elif variables[path].ref or variables[path].hijax:
            reasons[path] = "in a variable that is mutable in place (ref or hijax)"
    return reasons
