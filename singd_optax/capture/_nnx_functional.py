"""An NNX model as parameters and a function of them, for what goes through a data set."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import nnx

from singd_optax._types import LossFunction, PyTree
from singd_optax.capture._grad import value_and_grad
from singd_optax.capture._nnx_grad import value_and_grad as nnx_value_and_grad
from singd_optax.capture._nnx_program import as_pure


class Functional(NamedTuple):
    """A loss function of parameters, and its gradient functions.

    Attributes:
      loss_fn: ``loss_fn(params, *args)``.
      params: The parameters.
      value_and_grad: Of this loss function, without naming it.
    """

    loss_fn: LossFunction
    params: PyTree
    value_and_grad: Callable[..., Callable[..., PyTree]]


def functional(loss_fn: LossFunction, params: PyTree) -> Functional:
    """The loss function as it is, or that of an NNX model as one of the model's parameters.

    Args:
      loss_fn: Of parameters, or of an NNX model.
      params: Parameters, or the model. Its other variables stay as they are.
    """
    if not isinstance(params, nnx.Module):
        return Functional(
            loss_fn, params, lambda layers, **options: value_and_grad(loss_fn, layers, **options)
        )
    own: PyTree
    graphdef, own, rest = nnx.split(params, nnx.Param, ..., graph=True)  # type: ignore[misc]

    def model_of(params: PyTree) -> nnx.Module:
        now = jax.tree.unflatten(jax.tree.structure(own), jax.tree.leaves(params))
        return nnx.merge(graphdef, now, rest)

    def make(layers: PyTree, **options: PyTree) -> Callable[..., PyTree]:
        grad_fn = nnx_value_and_grad(loss_fn, layers, **options)
        return lambda params, *args, **named: grad_fn(model_of(params), *args, **named)

    of_params = lambda params, *args: loss_fn(model_of(params), *args)
    return Functional(of_params, as_pure(own), make)
