"""What all gradient functions do: check, measure, differentiate, and take the loss scale out."""

from collections.abc import Callable
from typing import NamedTuple

from singd_optax._types import LossFunction, PyTree
from singd_optax._validate import check_choice, check_flag, check_precision, check_seed
from singd_optax.capture._fisher import FISHERS, Fisher
from singd_optax.capture._loss_scale import check_loss_scale, unscaled
from singd_optax.capture._measuring import Measuring
from singd_optax.capture._mistakes import check_loss, check_not_deleted
from singd_optax.capture._program import Program
from singd_optax.layers import Curvature, Layers, Leaves, Statistics, check_layers, check_params
from singd_optax.structures import Precision

#: Makes value, gradients and statistics, given the layers that are measured.
Differentiate = Callable[[Measuring], tuple[PyTree, PyTree, dict[str, Statistics]]]


class GradientOptions(NamedTuple):
    """What ``value_and_grad`` is told, see there."""

    layers: Layers
    has_aux: bool
    precision: Precision
    fisher: Fisher
    seed: int

    def check(self, loss_fn: LossFunction) -> None:
        """Raise unless all options are legal, and this is a function."""
        check_loss(loss_fn)
        check_layers(self.layers)
        check_flag("has_aux", self.has_aux)
        check_precision("precision", self.precision)
        check_choice("fisher", self.fisher, FISHERS)
        check_seed("seed", self.seed)


def value_grad_and_curvature(
    options: GradientOptions,
    program: Program,
    params: PyTree,
    what: str,
    opt_state: PyTree,
    loss_scale: PyTree,
    differentiate: Differentiate,
) -> tuple[PyTree, PyTree, Curvature]:
    """Value, gradients and curvature of a loss.

    Args:
      options: Checked.
      program: The loss function with its arguments.
      params: Its parameters.
      what: What users call them, for messages.
      opt_state: The optimizer's state.
      loss_scale: By which the loss is multiplied for the backward pass, or None.
      differentiate: Makes all three of the scaled loss.
    """
    check_loss_scale(loss_scale)
    check_not_deleted(params, what)
    measuring = Measuring(
        options.layers,
        opt_state,
        options.precision,
        program,
        lambda specs: check_params(specs.values(), Leaves(params), what),
        options.fisher,
        options.seed,
        loss_scale,
    )
    value, grads, statistics = differentiate(measuring)
    value, grads, statistics = unscaled(value, grads, statistics, options.has_aux, loss_scale)
    return value, grads, measuring.curvature(statistics)
