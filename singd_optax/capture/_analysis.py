"""What one trace of a loss says of its calls and parameters."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple, Protocol, TypeAlias

import jax

from singd_optax._types import PyTree
from singd_optax.capture._dataflow import run_dataflow
from singd_optax.capture._dependence import GIVEN, Dependence, DependenceAnalysis, MarkerEvaluation
from singd_optax.capture._origins import Origin
from singd_optax.capture._recording import RecordedPrediction, RecordedRoot, RecordingSession
from singd_optax.capture._resolved_calls import (
    RecordedCall,
    ResolvedCall,
    resolve,
    resolve_directly,
    without_doubles,
)
from singd_optax.capture._session import listening

#: Arrays, or what travels beside them, by the path of a parameter.
ByPath: TypeAlias = Mapping[str, PyTree]

#: Calls a loss with parameters, what travels beside them, and other arrays; returns a list of them.
Trace: TypeAlias = Callable[[ByPath, ByPath, Sequence[PyTree]], list[jax.Array]]


class Traceable(Protocol):
    """A loss function with its arguments."""

    @property
    def trace(self) -> Trace:
        """What calls it."""

    @property
    def leaves(self) -> ByPath:
        """The parameters by path; arrays or their types."""

    @property
    def arrays(self) -> Sequence[PyTree]:
        """All other arrays that it is given."""


class LossAnalysis(NamedTuple):
    """What a trace says of a loss.

    Attributes:
      paths: The paths of the parameters, by their index.
      calls: All calls of what holds parameters, in order.
      roots: What modules were given, with what is known of it in each evaluation.
      predictions: Those that were named to ``tag_distribution``.
      output: What is known of the loss.
      constants: Arrays that the loss closes over.
    """

    paths: tuple[str, ...]
    calls: tuple[ResolvedCall, ...]
    roots: tuple[tuple[RecordedRoot, tuple[MarkerEvaluation, ...]], ...]
    predictions: tuple[RecordedPrediction, ...]
    output: Dependence
    constants: tuple[PyTree, ...]


def analyse_loss(
    program: Traceable,
    session: RecordingSession,
    trace: Trace | None = None,
    trials: ByPath | None = None,
) -> LossAnalysis:
    """Trace a loss function once, and tell what it does with its parameters.

    ``trace`` calls it in place of ``program.trace``, with ``trials`` for what travels.
    """
    trace, trials, leaves = trace or program.trace, trials or {}, program.leaves

    def traced(leaves: ByPath, trials: ByPath, arrays: Sequence[PyTree]) -> list[jax.Array]:
        session.start()
        with listening(session, session.prediction):
            return trace(leaves, trials, arrays)

    try:
        closed = jax.make_jaxpr(traced)(dict(leaves), dict(trials), list(program.arrays))
    except TypeError as error:
        # No tap has a derivative in forward mode: calls that need one are traced without, and
        # refused. An error of the loss function's own is raised again.
        if session.forward or "forward-mode" not in str(error):
            raise
        session.forward = True
        return analyse_loss(program, session, trace, trials)
    paths = tuple(sorted(leaves))
    inputs = [
        Dependence(parameters=1 << place, origin=_whole(place, leaves[path]))
        for place, path in enumerate(paths)
    ]
    # What travels is told from the parameter that it travels beside by its index.
    inputs += [
        Dependence(parameters=1 << place, origin=_whole(place, trials[path]))
        for path in sorted(trials)
        for place in [len(paths) + paths.index(path)]
    ]
    inputs += [Dependence(data=GIVEN)] * (len(closed.jaxpr.invars) - len(inputs))
    dependence = DependenceAnalysis()
    try:
        outputs = run_dataflow(closed, inputs, dependence)
    except Exception as error:
        return _unread(paths, session, error)
    if dependence.has_forward and not session.forward:
        session.forward = True
        return analyse_loss(program, session, trace, trials)
    output = dependence.join(outputs) if outputs else Dependence()
    calls, markers, roots, predictions = [], [], [], []
    for index, recorded in enumerate(session.recorded):
        evaluations = dependence.evaluations.get(index, [])
        if isinstance(recorded, RecordedCall):
            reaches_loss = bool(output.calls >> index & 1)
            is_forward = session.forward and index in session.differentiated
            calls.append(resolve(recorded, evaluations, reaches_loss, is_forward))
            markers.append(index)
        elif isinstance(recorded, RecordedRoot):
            roots.append((recorded, tuple(evaluations)))
        else:
            _check_prediction(evaluations)
            predictions.append(recorded)
    calls = without_doubles(calls, markers)
    return LossAnalysis(
        paths, tuple(calls), tuple(roots), tuple(predictions), output, tuple(closed.consts)
    )


def _check_prediction(evaluations: Sequence[MarkerEvaluation]) -> None:
    if any(one.is_looped or any(one.vmapped) for one in evaluations):
        raise ValueError(
            "tag_distribution: called inside of jax.lax.scan or jax.vmap, where it does not see "
            "the whole batch. Call it on what these return, with the batch as the first axis."
        )


def _whole(parameter: int, array: jax.Array) -> Origin:
    return Origin(parameter, tuple(range(len(array.shape))))


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # on the path, and not installed
        return "of an unknown version"


def _unread(paths: tuple[str, ...], session: RecordingSession, error: Exception) -> LossAnalysis:
    """What is known without the program: calls that got a parameter itself use that parameter."""
    versions = ", ".join(f"{name} {_version_of(name)}" for name in ("jax", "flax", "singd-optax"))
    warnings.warn(
        f"The program that JAX traced of the loss function could not be read ({versions}; "
        f"{type(error).__name__}: {error}). Only layers that are called outside of scan, vmap, "
        "remat and jit are found, and whether all uses of their kernels are measured is unknown. "
        "Please report this with these versions; older ones of jax may do.",
        stacklevel=5,
    )
    calls = tuple(
        resolve_directly(one, paths) for one in session.recorded if isinstance(one, RecordedCall)
    )
    return LossAnalysis(paths, calls, (), (), Dependence(parameters=-1), ())
