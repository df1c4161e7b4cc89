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
      gate_trace: t of the last refresh; 0 before the first.
      gate_stopped: Whether the layer is not refreshed any more, int32, 0 or 1.
    """

    gate_trace: Number
    gate_stopped: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gated(Wrapped):
    """A rule whose layers are refreshed where the trace of their curvature has moved.

    With t = (Tr U / d_i)(Tr G / d_o) of a layer's statistics, and t_0 that of its last refresh, it
    is refreshed if |t - t_0| >= ``threshold`` t_0, and never again once it is less than ``stop``
    t_0. What this saves is the rule's own work, decompositions and the like, of layers for which
    all matrices of a stack stay; statistics are formed as before.

    Attributes:
      rule: A rule that measures layers.
      threshold: ω1, a number >= 0: with 0 it is the rule itself.
      stop: ω2, a number >= 0: with 0 no layer stops.

    References:
      Chen et al., THOR, Trace-based Hardware-driven Layer-Oriented Natural Gradient Descent
      Computation, AAAI 2021; there t_0 is that of the last statistics.

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
                f"Gated looks at the statistics of layers, which {self.rule.state_name} does not "
                "measure. Use a rule that does (KFAC, SINGD, EKFAC, ...), or refresh_every."
            )

    def own_init(self, view: MatrixView) -> GateOf:
        """No trace yet."""
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
        """As the rule does, where the trace has moved."""
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
