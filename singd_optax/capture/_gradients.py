"""What all gradient functions do: check, measure, differentiate, and take the loss scale out.

Losses are scaled for a backward pass in float16, and statistics are not. With the loss times s,
every gradient g is s times larger. G = Σ g gᵀ is formed in float32 whatever the dtype of g, so
that of gradients that fit into float16 (below 2^16) it is far from overflow; it is then divided by
s twice.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

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
from singd_optax.capture._measuring import Measuring, states_by_layer
from singd_optax.capture._mistakes import check_loss, check_not_deleted
from singd_optax.capture._program import Program
from singd_optax.layers import Layers, LayerSpec
from singd_optax.layers._check import check_layers, check_params
from singd_optax.layers._states import any_due
from singd_optax.layers._tree import Leaves
from singd_optax.measures import Statistics
from singd_optax.structures import Precision

#: Where it is decided whether a step forms statistics: behind each layer, or once.
Gate = Literal["taps", "top"]

GATES: tuple[Gate, ...] = ("taps", "top")

#: Value, gradients and statistics.
Differentiated = tuple[PyTree, PyTree, dict[str, Statistics]]


class GradientOptions(NamedTuple):
    """What ``value_and_grad`` is told, see there."""

    layers: Layers
    has_aux: bool
    precision: Precision
    fisher: Fisher
    seed: int
    gate: Gate | None = None

    def check(self, loss_fn: LossFunction) -> None:
        """Raise unless all options are legal, and this is a function."""
        check_loss(loss_fn)
        check_layers(self.layers)
        check_flag("has_aux", self.has_aux)
        check_precision("precision", self.precision)
        check_choice("fisher", self.fisher, FISHERS)
        check_seed("seed", self.seed)
        if self.gate is not None:
            check_choice("gate", self.gate, GATES)

    @property
    def is_gated_at_top(self) -> bool:
        """Whether one branch chooses between two gradient programs, or each layer has its own."""
        gate = self.gate or ("top" if jax.default_backend() in ("gpu", "cuda", "rocm") else "taps")
        return gate == "top"


def value_grad_and_curvature(
    options: GradientOptions,
    program: Program,
    params: PyTree,
    what: str,
    opt_state: PyTree,
    loss_scale: PyTree,
    refresh: bool | None,
    plain: Callable[[], tuple[PyTree, PyTree]],
    differentiate: Callable[[Measuring], Differentiated],
) -> Differentiated:
    """Value, gradients and curvature of a loss of ``params``, which users call ``what``.

    ``plain`` makes the first two, and ``differentiate`` all three, of the loss times
    ``loss_scale``.
    """
    check_loss_scale(loss_scale)
    check_not_deleted(params, what)
    if refresh is not None:
        check_flag("refresh", refresh)

    def check(specs: dict[str, LayerSpec]) -> None:
        check_params(specs.values(), Leaves(params), what)

    def measuring(always: bool) -> Measuring:
        return Measuring(
            options.layers,
            opt_state,
            options.precision,
            program,
            check,
            options.fisher,
            options.seed,
            loss_scale,
            always,
        )

    def measured(always: bool) -> Differentiated:
        session = measuring(always)
        found = unscaled(*differentiate(session), options.has_aux, loss_scale)
        return found[0], found[1], session.curvature(found[2])

    def without() -> tuple[PyTree, PyTree]:
        value, grads, _ = unscaled(*plain(), {}, options.has_aux, loss_scale)
        return value, grads

    states = states_by_layer(options.layers, opt_state)
    if refresh is False:
        check({path: options.layers[path] for path in states})
        return *without(), {}
    if refresh or not options.is_gated_at_top:
        return measured(refresh is True)

    session = measuring(False)
    zeros = session.curvature(session.slots)
    due = any_due(states.values())
    return jax.lax.cond(due, lambda: measured(True), lambda: (*without(), zeros))


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
