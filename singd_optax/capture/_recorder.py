"""The trace in which layers are found: calls are noted, and cut out of the program."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

from singd_optax.capture._calls import Call, Resolved, resolve, resolve_directly, without_doubles
from singd_optax.capture._dependence import GIVEN, Dependence, Known, Marked
from singd_optax.capture._distribution import Prediction
from singd_optax.capture._marks import mark, stand_in
from singd_optax.capture._origins import Origin
from singd_optax.capture._programs import read
from singd_optax.capture._sequences import Sequences
from singd_optax.capture._session import Event, Session, listening, predicting
from singd_optax.capture._weights import weights_of


@flax.struct.dataclass
class Probe:
    """Rides beside a parameter in place of a tap, while it is tried whether one can."""

    value: Any
    path: str = flax.struct.field(pytree_node=False)


class Root(NamedTuple):
    """Parameters that a module saw when it was about to be called.

    Attributes:
      signature: As an event's.
      places: Their paths there, in the order of the mark's operands.
    """

    signature: Any
    places: tuple[str, ...]


class Named(NamedTuple):
    """A prediction that ``tag_distribution`` was told.

    Attributes:
      columns: How many columns the root of its Hessian has.
      is_inside: Whether its outputs are values of an inner trace (``jit``, ``checkpoint``).
    """

    columns: int
    is_inside: bool


class Recorder(Session):
    """Notes calls.

    Attributes:
      seen: What was marked, by the index of the mark.
      riders: What to put beside the parameters that modules see, by the root's signature.
      differentiated: The marks of calls through which the loss itself takes derivatives.
      forward: Whether some of these are taken in forward mode.
    """

    def __init__(self) -> None:
        """Nothing was called yet."""
        super().__init__()
        self.seen: list[Call | Root | Named] = []
        self.forward = False
        self.riders: Sequences[dict[str, Any]] = Sequences()

    def start(self) -> None:
        """A trace begins."""
        self._state = get_opaque_trace_state()
        self.seen.clear()
        self.riders.restart()
        self.differentiated: set[int] = set()

    def call(self, event: Event, inputs: Any, run: Callable[[Any], Any]) -> Any:
        """Note a call; if it can be measured, return a stand-in for its outputs."""
        index = len(self.seen)
        probe = event.rider if isinstance(event.rider, Probe) else None
        names = {id(array): path for path, array in self.parameters.items()}
        direct = {name: names.get(id(array)) for name, array in event.arrays.items()}
        call = Call(event, rider=None if probe is None else probe.path, direct=direct)
        self.seen.append(call)
        outputs = run(inputs)
        problem = _problem(event, inputs, outputs)
        self.seen[index] = call._replace(problem=problem)
        # Where users say what a call is, inputs and outputs tell which others are the same.
        data = [inputs, outputs] if event.is_said else []
        arrays = [*event.arrays.values(), *data, *([] if probe is None else [probe.value])]
        gate = mark(index, arrays)
        if problem is not None or isinstance(event.use, str):
            return outputs
        kernel = event.arrays.get(event.use.kernel)
        note = (lambda: self.differentiated.add(index)) if self.forward else None
        return stand_in(gate, inputs, outputs, kernel, note)

    def prediction(self, prediction: Prediction) -> None:
        """Note what ``tag_distribution`` is told."""
        index = len(self.seen)
        is_inside = get_opaque_trace_state() != self._state
        self.seen.append(Named(prediction.columns, is_inside))
        mark(index, [prediction.outputs])

    def root(self, signature: Any, arrays: dict[str, Any]) -> dict[str, Any]:
        """Note the parameters."""
        index = len(self.seen)
        self.seen.append(Root(signature, tuple(arrays)))
        mark(index, list(arrays.values()))
        return self.riders.next(signature, is_certain=False) or {}


def _problem(event: Event, inputs: Any, outputs: Any) -> str | None:
    use, caller = event.use, event.caller
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


class Analysis(NamedTuple):
    """What a trace says of a loss.

    Attributes:
      paths: Of the parameters, by their index.
      calls: All calls of what holds parameters, in order.
      roots: What modules were given, with what is known of it in each evaluation.
      named: The predictions that were named.
      output: What is known of the loss.
      constants: Arrays that the loss closes over.
    """

    paths: tuple[str, ...]
    calls: tuple[Resolved, ...]
    roots: tuple[tuple[Root, tuple[Marked, ...]], ...]
    named: tuple[Named, ...]
    output: Known
    constants: tuple[Any, ...]


def analyse(
    trace: Callable[[Any, Any, Sequence[Any]], Any],
    leaves: Mapping[str, Any],
    probes: Mapping[str, Any],
    arrays: Sequence[Any],
    recorder: Recorder,
) -> Analysis:
    """Trace a loss function once, and tell what it does with its parameters.

    Args:
      trace: Calls the loss with these parameters, probes and arrays, and returns it.
      leaves: Parameters by path; arrays or their types.
      probes: What rides, by the path of the parameter beside which it does; likewise.
      arrays: All that the loss is given beside them.
      recorder: Which listens.
    """

    def traced(leaves: Any, probes: Any, arrays: Any) -> Any:
        recorder.start()
        with listening(recorder), predicting(recorder.prediction):
            return trace(leaves, probes, arrays)

    try:
        closed = jax.make_jaxpr(traced)(dict(leaves), dict(probes), list(arrays))
    except TypeError as error:
        # No tap has a derivative in forward mode: calls that need one are traced without, and
        # refused. An error of the loss function's own is raised again.
        if recorder.forward or "forward-mode" not in str(error):
            raise
        recorder.forward = True
        return analyse(trace, leaves, probes, arrays, recorder)
    paths = tuple(sorted(leaves))
    inputs = [
        Known(parameters=1 << place, origin=_whole(place, leaves[path]))
        for place, path in enumerate(paths)
    ]
    # A probe is told from the parameter that it rides beside by its index.
    inputs += [
        Known(parameters=1 << place, origin=_whole(place, probes[path]))
        for path in sorted(probes)
        for place in [len(paths) + paths.index(path)]
    ]
    inputs += [Known(data=GIVEN)] * (len(closed.jaxpr.invars) - len(inputs))
    dependence = Dependence()
    try:
        outputs = read(closed, inputs, dependence)
    except Exception as error:
        return _unread(paths, recorder, error)
    if dependence.has_forward and not recorder.forward:
        recorder.forward = True
        return analyse(trace, leaves, probes, arrays, recorder)
    output = dependence.join(outputs) if outputs else Known()
    calls, roots, named = [], [], []
    seen_all = recorder.seen
    for index, seen in enumerate(seen_all):
        marked = dependence.marked.get(index, [])
        if isinstance(seen, Call):
            is_forward = recorder.forward and index in recorder.differentiated
            calls.append(resolve(seen, marked, bool(output.calls >> index & 1), is_forward))
        elif isinstance(seen, Root):
            roots.append((seen, tuple(marked)))
        else:
            _check_named(marked)
            named.append(seen)
    calls = without_doubles(calls, [i for i, one in enumerate(seen_all) if isinstance(one, Call)])
    return Analysis(paths, tuple(calls), tuple(roots), tuple(named), output, tuple(closed.consts))


def _check_named(marked: Sequence[Marked]) -> None:
    if any(seen.is_looped or any(seen.mapped) for seen in marked):
        raise ValueError(
            "tag_distribution: called inside of jax.lax.scan or jax.vmap, where it does not see "
            "the whole batch. Call it on what these return, with the batch as the first axis."
        )


def _whole(parameter: int, array: Any) -> Origin:
    return Origin(parameter, tuple(range(len(array.shape))))


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # on the path, and not installed
        return "of an unknown version"


def _unread(paths: tuple[str, ...], recorder: Recorder, error: Exception) -> Analysis:
    """What is known without the program: calls that got a parameter itself use that parameter."""
    versions = ", ".join(f"{name} {_version_of(name)}" for name in ("jax", "flax", "singd-optax"))
    warnings.warn(
        f"The program that JAX traced of the loss function could not be read ({versions}; "
        f"{type(error).__name__}: {error}). Only layers that are called outside of scan, vmap, "
        "remat and jit are found, and whether all uses of their kernels are measured is unknown. "
        "Please report this with these versions; older ones of jax may do.",
        stacklevel=5,
    )
    calls = tuple(resolve_directly(seen, paths) for seen in recorder.seen if isinstance(seen, Call))
    return Analysis(paths, calls, (), (), Known(parameters=-1), ())
