"""What all gradient functions do: check, measure, differentiate, and take the loss scale out.

Losses are scaled for a backward pass in float16, and statistics are not. With the loss times s,
every gradient g is s times larger. G = Σ g gᵀ is formed in float32 whatever the dtype of g, so
that of gradients that fit into float16 (below 2^16) it is far from overflow; it is then divided by
s twice.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from singd_optax._types import LossFunction, PyTree
from singd_optax._validate import (
    check_choice,
    check_flag,
    check_number,
    check_precision,
    check_seed,
)
from singd_optax.capture._fisher import FISHERS, Fisher
from singd_optax.capture._measuring import Measuring
from singd_optax.capture._mistakes import check_loss, check_not_deleted
from singd_optax.capture._program import Program
from singd_optax.layers import Layers
from singd_optax.layers._check import check_layers, check_params
from singd_optax.layers._tree import Leaves
from singd_optax.measures import Statistics
from singd_optax.structures import Precision

#: Value, gradients and statistics.
Differentiated = tuple[PyTree, PyTree, dict[str, Statistics]]


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
    differentiate: Callable[[Measuring], Differentiated],
) -> tuple[PyTree, PyTree, dict[str, Statistics]]:
    """Value, gradients and curvature of a loss of ``params``, which users call ``what``.

    ``differentiate`` makes all three of the loss times ``loss_scale``.
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


def check_loss_scale(loss_scale: PyTree) -> None:
    """Raise unless this is None, or a positive number (which may be traced)."""
    if loss_scale is not None:
        check_number("loss_scale", loss_scale, strict=True, schedule=False)


def scaled_loss(result: PyTree, has_aux: bool, loss_scale: PyTree) -> PyTree:
    """What the loss function returned, with the loss times s."""
    if loss_scale is None:
        return result
    value, aux = result if has_aux else (result, None)
    scaled = value * jnp.asarray(loss_scale, jnp.result_type(value))
    return (scaled, aux) if has_aux else scaled


def unscaled(
    value: PyTree,
    grads: PyTree,
    statistics: dict[str, Statistics],
    has_aux: bool,
    loss_scale: PyTree,
) -> Differentiated:
    """Value, gradients and statistics as if the loss had not been scaled."""
    if loss_scale is None:
        return value, grads, statistics

    def divide(leaf: jax.Array) -> jax.Array:
        wide = jnp.promote_types(leaf.dtype, jnp.float32)
        return (leaf.astype(wide) / jnp.asarray(loss_scale, wide)).astype(leaf.dtype)

    value = (divide(value[0]), value[1]) if has_aux else divide(value)
    inverse = 1 / jnp.asarray(loss_scale, jnp.float32)
    statistics = {
        path: measured.scaled(gradients=inverse).scaled(gradients=inverse)
        for path, measured in statistics.items()
    }
    return value, jax.tree.map(divide, grads), statistics
