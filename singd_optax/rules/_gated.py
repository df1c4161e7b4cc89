"""Refreshes of layers whose curvature has moved, and of no others."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax._validate import check_number
from singd_optax.layers import MatrixView
from singd_optax.layers._roles import Counter, Number
from singd_optax.measures import Statistics
from singd_optax.rules._rule import choose
from singd_optax.rules._wrapped import Wrapped


class GateOf(NamedTuple):
    """What a gate keeps of a layer.

    Attributes:
      gate_trace: t_0, the trace at the last refresh; 0 before the first.
      gate_stopped: Whether the layer is not refreshed any more, int32, 0 or 1.
    """

    gate_trace: Number
    gate_stopped: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gated(Wrapped):
    """Wrap a rule so that a layer is refreshed only when the trace of its curvature has moved.

    Let t = (Tr U / d_i)(Tr G / d_o) be the trace in a layer's new statistics, and t_0 the trace at
    its last refresh. When a refresh is due, the layer is refreshed if |t - t_0| >= ``threshold`` ·
    t_0. Once |t - t_0| < ``stop`` · t_0, it is never refreshed again. This saves the rule's own
    work, such as decompositions, of layers in which no matrix of the stack has moved. Statistics
    are formed as before.

    Attributes:
      rule: The rule to wrap, which must measure layers (KFAC, SINGD, EKFAC, ...).
      threshold: ω1, a number >= 0. At 0 it is the rule itself.
      stop: ω2, a number >= 0. At 0 no layer stops.

    Raises:
      TypeError: ``rule`` is no rule, or a number is of another type.
      ValueError: The rule measures nothing, or a number is out of range.

    References:
      Chen et al., THOR, Trace-based Hardware-driven Layer-Oriented Natural Gradient Descent
      Computation, AAAI 2021; there t_0 is the trace of the last statistics.

    Example:
      >>> import singd_optax
      >>> from singd_optax.optimizers import KFAC
      >>> rule = Gated(KFAC(), threshold=0.01)
      >>> # tx = singd_optax.optimizer(1e-2, rule, layers)
    """

    Own: ClassVar[type | None] = GateOf

    threshold: float = 0.01
    stop: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("threshold", self.threshold, schedule=False)
        check_number("stop", self.stop, schedule=False)
        if not self.rule.measures:
            raise ValueError(
                f"Gated goes by the statistics of layers, which {self.rule.state_name} does not "
                "measure. Use a rule that does, such as KFAC, SINGD or EKFAC, or refresh less "
                "often by refresh_every=."
            )

    def own_init(self, view: MatrixView) -> GateOf:
        """A trace of 0, as there was no refresh yet."""
        stack = view.stack_shape
        return GateOf(jnp.zeros(stack, view.statistics_dtype), jnp.zeros(stack, jnp.int32))

    def refresh(
        self,
        view: MatrixView,
        state: PyTree,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[PyTree, jax.Array | bool]:
        """Refresh by the rule where the trace has moved."""
        assert statistics is not None
        measured = statistics
        trace = measured.mean_U * measured.mean_G
        last = state.gate_trace
        is_first = last == 0
        moved = jnp.abs(trace - last)
        stopped = (state.gate_stopped > 0) | (~is_first & (moved < self.stop * last))
        due = ~stopped & (is_first | (moved >= self.threshold * last))
        inner = self.inner(state)

        def refreshed() -> tuple[PyTree, jax.Array]:
            new, ok = self.rule.refresh(view, inner, measured, gradient, count, key)
            new = jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), new, inner)
            return choose(due, new, inner), jnp.broadcast_to(jnp.asarray(ok) | ~due, due.shape)

        kept = lambda: (inner, jnp.ones(due.shape, bool))
        new, ok = jax.lax.cond(jnp.any(due), refreshed, kept)
        own = {"gate_trace": jnp.where(due, trace, last), "gate_stopped": stopped.astype(jnp.int32)}
        return self.joined(state, new)._replace(**own), ok
