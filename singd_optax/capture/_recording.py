"""The trace in which layers are found: calls are noted, and cut out of the program."""

from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

from singd_optax._types import PyTree
from singd_optax.capture._distribution import Prediction
from singd_optax.capture._markers import insert_marker, stand_in
from singd_optax.capture._replay import Replay
from singd_optax.capture._resolved_calls import RecordedCall
from singd_optax.capture._session import LayerCall, Session
from singd_optax.capture._weights import weights_of


@flax.struct.dataclass
class TrialCarrier:
    """Travels beside a parameter in place of a tap, while it is tried whether one can."""

    value: jax.Array
    path: str = flax.struct.field(pytree_node=False)


class RecordedRoot(NamedTuple):
    """Parameters that a module saw when it was about to be called.

    Attributes:
      signature: What tells it from others, like the signature of a call.
      places: Their paths there, in the order of the marker's operands.
    """

    signature: Hashable
    places: tuple[str, ...]


class RecordedPrediction(NamedTuple):
    """A prediction that ``tag_distribution`` was told.

    Attributes:
      columns: How many columns the root of its Hessian has.
      is_inside: Whether its outputs are values of an inner trace (``jit``, ``checkpoint``).
    """

    columns: int
    is_inside: bool


class RecordingSession(Session):
    """Notes calls.

    Attributes:
      recorded: What was recorded, by the index of the marker.
      carriers: What to put beside the parameters that modules see, by the root's signature.
      differentiated: The markers of calls through which the loss itself takes derivatives.
      forward: Whether some of these are taken in forward mode.
    """

    def __init__(self) -> None:
        """Nothing was called yet."""
        super().__init__()
        self.recorded: list[RecordedCall | RecordedRoot | RecordedPrediction] = []
        self.forward = False
        self.carriers: Replay[Mapping[str, PyTree]] = Replay()

    def start(self) -> None:
        """A trace begins."""
        self._state = get_opaque_trace_state()
        self.recorded.clear()
        self.carriers.restart()
        self.differentiated: set[int] = set()

    def call(self, call: LayerCall, inputs: PyTree, run: Callable[[PyTree], PyTree]) -> PyTree:
        """Note a call; if it can be measured, return a stand-in for its outputs."""
        index = len(self.recorded)
        trial = call.carrier if isinstance(call.carrier, TrialCarrier) else None
        names = {id(array): path for path, array in self.parameters.items()}
        direct = {name: names.get(id(array)) for name, array in call.arrays.items()}
        recorded = RecordedCall(call, carrier=None if trial is None else trial.path, direct=direct)
        self.recorded.append(recorded)
        outputs = run(inputs)
        problem = _problem(call, inputs, outputs)
        self.recorded[index] = recorded._replace(problem=problem)
        # Where users say what a call is, inputs and outputs tell which others are the same.
        data = [inputs, outputs] if call.is_declared else []
        arrays = [*call.arrays.values(), *data, *([] if trial is None else [trial.value])]
        gate = insert_marker(index, arrays)
        if problem is not None or isinstance(call.use, str):
            return outputs
        kernel = call.arrays.get(call.use.kernel)
        note = (lambda: self.differentiated.add(index)) if self.forward else None
        return stand_in(gate, inputs, outputs, kernel, note)

    def prediction(self, prediction: Prediction) -> None:
        """Note what ``tag_distribution`` is told."""
        index = len(self.recorded)
        is_inside = get_opaque_trace_state() != self._state
        self.recorded.append(RecordedPrediction(prediction.columns, is_inside))
        insert_marker(index, [prediction.outputs])

    def root(self, signature: Hashable, arrays: Mapping[str, jax.Array]) -> Mapping[str, PyTree]:
        """Note the parameters."""
        index = len(self.recorded)
        self.recorded.append(RecordedRoot(signature, tuple(arrays)))
        insert_marker(index, list(arrays.values()))
        return self.carriers.next(signature, is_certain=False) or {}


def _problem(call: LayerCall, inputs: PyTree, outputs: PyTree) -> str | None:
    use, caller = call.use, call.caller
    if isinstance(use, str):
        return None
    inputs = jnp.asarray(inputs)
    if jnp.issubdtype(inputs.dtype, jnp.complexfloating):
        return f"{caller}: its inputs are {inputs.dtype.name}, not real"
    if not hasattr(outputs, "shape") or not use.fits(inputs, outputs):
        return f"{caller}: its outputs are no product of its inputs with the kernel"
    if 0 in (*inputs.shape, *outputs.shape):
        return f"{caller}: an axis of its inputs or outputs has no elements"
    weights_of(use, inputs, outputs, caller)
    return None
