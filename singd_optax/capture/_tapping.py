"""The trace in which layers are measured: each call of one gets its tap."""

from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import jax

from singd_optax._types import PyTree
from singd_optax.capture._carriers import TapCarrier
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._lanes import in_lanes_of
from singd_optax.capture._replay import Replay
from singd_optax.capture._session import LayerCall, Session
from singd_optax.capture._tap import OrientedProduct, Tap, attach
from singd_optax.capture._weights import weights_of


class TapDecision(NamedTuple):
    """What to do at a call.

    Attributes:
      layer: The layer that it is a call of; None for one of several, which carriers tell apart.
      indices: Which slice of a stack it uses.
      is_transposed: Whether it uses the kernel as its transpose.
    """

    layer: str | None
    indices: tuple[int, ...] = ()
    is_transposed: bool = False


class TappingSession(Session):
    """Taps calls."""

    def __init__(
        self,
        decisions: Replay[TapDecision | None],
        taps: Mapping[str, Tap],
        carriers: Replay[Mapping[str, PyTree]],
    ):
        """Know what to do at each call, the taps of layers, and what travels for each root."""
        super().__init__()
        self._decisions, self._taps, self._carriers = decisions, taps, carriers

    def call(self, call: LayerCall, inputs: PyTree, run: Callable[[PyTree], PyTree]) -> PyTree:
        """Make the call, and tap its outputs."""
        decision = self._decisions.next(call.signature)
        outputs = run(inputs)
        if decision is None or not isinstance(call.use, KernelUse):
            return outputs
        if decision.layer is not None:
            tap = self._taps[decision.layer].at(decision.indices)
        elif isinstance(call.carrier, TapCarrier):
            tap = call.carrier.tap()
        else:
            raise ValueError(
                f"{call.caller}: nothing that measures this layer travels beside its kernel of "
                f"shape {call.arrays[call.use.kernel].shape}, though it did when layers were "
                "found. Call find_layers again for this loss function."
            )
        # A vmap over a stack of one has lanes, too: then the slot has them, and not the data.
        tap = tap.mapped(in_lanes_of(call.arrays[call.use.kernel]))
        product = OrientedProduct(call.use.operation, transposed=decision.is_transposed)
        weights = weights_of(call.use, inputs, outputs, call.caller)
        return self.tapped(call, tap, product, inputs, outputs, weights)

    def tapped(
        self,
        call: LayerCall,
        tap: Tap,
        product: OrientedProduct,
        inputs: jax.Array,
        outputs: jax.Array,
        weights: jax.Array | None,
    ) -> jax.Array:
        """The outputs of a call of a layer, as they go on; sub-classes do other things to them."""
        del call
        return attach(tap, product, inputs, outputs, weights)

    def root(self, signature: Hashable, arrays: Mapping[str, jax.Array]) -> Mapping[str, PyTree]:
        """What is to travel."""
        del arrays
        return self._carriers.next(signature, is_certain=False) or {}
