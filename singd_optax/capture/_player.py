"""The trace in which layers are measured: each call of one gets its tap."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from singd_optax.capture._lanes import in_lanes_of
from singd_optax.capture._riders import Rider
from singd_optax.capture._sequences import Sequences
from singd_optax.capture._session import Event, Session
from singd_optax.capture._tap import Call, Tap, attach
from singd_optax.capture._use import Use
from singd_optax.capture._weights import weights_of


class Decision(NamedTuple):
    """What to do at a call.

    Attributes:
      layer: Of which layer it is one; None if several, which riders tell apart.
      indices: Which slice of a stack it uses.
      is_transposed: Whether it uses the kernel as its transpose.
    """

    layer: str | None
    indices: tuple[int, ...] = ()
    is_transposed: bool = False


class Player(Session):
    """Taps calls."""

    def __init__(
        self,
        decisions: Sequences[Decision | None],
        taps: Mapping[str, Tap],
        riders: Sequences[dict[str, Any]],
    ):
        """Know what to do.

        Args:
          decisions: For each call, what to do; None for nothing.
          taps: By layer.
          riders: For each root, what to put beside parameters.
        """
        super().__init__()
        self._decisions, self._taps, self._riders = decisions, taps, riders

    def call(self, event: Event, inputs: Any, run: Callable[[Any], Any]) -> Any:
        """Make the call, and tap its outputs."""
        decision = self._decisions.next(event.signature)
        outputs = run(inputs)
        if decision is None or not isinstance(event.use, Use):
            return outputs
        if decision.layer is not None:
            tap = self._taps[decision.layer].at(decision.indices)
        elif isinstance(event.rider, Rider):
            tap = event.rider.tap()
        else:
            raise ValueError(
                f"{event.caller}: nothing that measures this layer travels beside its kernel of "
                f"shape {event.arrays[event.use.kernel].shape}, though it did when layers were "
                "found. Call find_layers again for this loss function."
            )
        # A vmap over a stack of one has lanes, too: then the slot has them, and not the data.
        tap = tap.mapped(in_lanes_of(event.arrays[event.use.kernel]))
        call = Call(event.use.operation, transposed=decision.is_transposed)
        weights = weights_of(event.use, inputs, outputs, event.caller)
        return self.tapped(event, tap, call, inputs, outputs, weights)

    def tapped(
        self, event: Event, tap: Tap, call: Call, inputs: Any, outputs: Any, weights: Any
    ) -> jax.Array:
        """The outputs of one call of one layer, as they go on; sub-classes do other things to them.

        Args:
          event: What was called.
          tap: Of the layer.
          call: How it used its kernel.
          inputs: Of the call.
          outputs: Of the call.
          weights: Of positions, or None.
        """
        del event
        return attach(tap, call, inputs, outputs, weights)

    def root(self, signature: Any, arrays: dict[str, Any]) -> dict[str, Any]:
        """What is to ride."""
        del arrays
        return self._riders.next(signature, is_certain=False) or {}
