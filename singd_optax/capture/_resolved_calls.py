"""Calls of layers that were seen in a trace, and which parameters they turned out to use."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from singd_optax.capture._dependence import Dependence, MarkerEvaluation
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._origins import Origin
from singd_optax.capture._session import LayerCall
from singd_optax.layers import Layout


class RecordedCall(NamedTuple):
    """A call that was seen.

    Attributes:
      call: What was called.
      problem: Why its product cannot be measured though its kind of layer is known, or None.
      carrier: Beside which parameter something travelled to its kernel, if it did: a path.
      direct: Which parameter each of its arrays is, where it is that very array.
    """

    call: LayerCall
    problem: str | None = None
    carrier: str | None = None
    direct: Mapping[str, str | None] = MappingProxyType({})

    @property
    def use(self) -> KernelUse | str:
        """How it used its kernel, or why it is no Kronecker layer."""
        return self.problem or self.call.use

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its arrays, in the order of the marker's operands."""
        return tuple(self.call.arrays)


class ParameterSlice(NamedTuple):
    """A parameter as a call saw it.

    Attributes:
      parameter: Its index.
      axes: For each axis of the array in the call, the axis of the parameter.
      stacked: Axes of the parameter along which the call saw one slice: those of loops, outermost
        first, then those of vmaps.
      indices: For each of these, which slice; None where a loop or a vmap takes one after another.
      is_mapped: Whether its numbers were changed before the call.
      is_cast: Whether they were cast to another type.
    """

    parameter: int
    axes: tuple[int, ...]
    stacked: tuple[int, ...]
    indices: tuple[int | None, ...]
    is_mapped: bool = False
    is_cast: bool = False


class ResolvedCall(NamedTuple):
    """A call, and which parameters its kernel and bias are.

    Attributes:
      recorded: The call.
      operands: For each of its arrays, what it was in each evaluation of the call: more than one
        if a function that was traced once is applied several times.
      is_counted: Whether it is part of what is differentiated: it reaches the loss, with
        parameters that are trained.
      problem: Why it cannot be measured, or None.
      kernels: The kernel in each evaluation.
      biases: The bias in each one, or None.
      trials: What travelled beside the kernel in each one, or why that cannot be told; empty if
        nothing did.
      inner: The calls that make a part of one of which users say what it is: a bit mask.
    """

    recorded: RecordedCall
    operands: dict[str, tuple[Dependence, ...]]
    is_counted: bool
    problem: str | None = None
    kernels: tuple[ParameterSlice, ...] = ()
    biases: tuple[ParameterSlice | None, ...] = ()
    trials: tuple[ParameterSlice | str, ...] = ()
    inner: int = 0

    @property
    def needs_carriers(self) -> bool:
        """Whether one tap cannot stand for all evaluations of the call."""
        return len(set(self.kernels)) > 1 or any(None in kernel.indices for kernel in self.kernels)


def resolve(
    recorded: RecordedCall,
    evaluations: list[MarkerEvaluation],
    reaches_loss: bool,
    is_forward: bool = False,
) -> ResolvedCall:
    """Which parameters a call uses, from what the program says of each evaluation of its marker.

    ``is_forward`` says that the loss takes derivatives through it in forward mode.
    """
    operands = {
        name: tuple(evaluation.operands[place] for evaluation in evaluations)
        for place, name in enumerate(recorded.names)
    }
    use, caller = recorded.use, recorded.call.caller
    if isinstance(use, str):
        return ResolvedCall(recorded, operands, True, use)
    problem: str | None = None
    kernels: list[ParameterSlice] = []
    biases: list[ParameterSlice | None] = []
    # A target network's kernel, or a constant, has no parameters that are trained.
    is_trained = any(one.all_parameters for one in operands.get(use.kernel, ()))
    if evaluations and not (is_trained and reaches_loss):
        return ResolvedCall(recorded, operands, False)
    if not evaluations:
        problem = "called inside of a function whose program cannot be followed"
    elif any(evaluation.is_custom for evaluation in evaluations):
        problem = (
            "called inside of a function that has a derivative of its own (custom_vjp, "
            "custom_jvp, odeint), which no tap can be part of"
        )
    elif is_forward:
        problem = (
            "the loss takes derivatives through it in forward mode (jvp, jacfwd, hessian), which "
            "no tap has. Write them in reverse mode: jacrev, or grad of grad"
        )
    for evaluation in evaluations:
        kernel = _locate(recorded, evaluation, use.kernel)
        bias = None if use.bias is None else _locate(recorded, evaluation, use.bias)
        if isinstance(kernel, str):
            problem = problem or kernel
        elif isinstance(bias, str):
            problem = problem or bias
        else:
            kernels.append(kernel)
            biases.append(bias)
    if problem is not None:
        return ResolvedCall(recorded, operands, True, f"{caller}: {problem}")
    is_trial = recorded.carrier is not None
    trials = [locate(evaluation, -1) for evaluation in evaluations if is_trial]
    inner = 0
    for evaluation in evaluations if recorded.call.is_declared else ():
        inputs, outputs = evaluation.operands[len(recorded.names) :][:2]
        inner |= outputs.calls & ~inputs.calls
    return ResolvedCall(
        recorded, operands, True, None, tuple(kernels), tuple(biases), tuple(trials), inner
    )


def without_doubles(calls: Sequence[ResolvedCall], indices: Sequence[int]) -> list[ResolvedCall]:
    """The calls, by their markers, without those whose product users have said to be another's."""
    tags = [one for one in calls if one.inner and one.is_counted]

    def is_double(one: ResolvedCall, index: int) -> bool:
        return any(tag.inner >> index & 1 and set(tag.kernels) & set(one.kernels) for tag in tags)

    return [
        one._replace(is_counted=False) if is_double(one, index) else one
        for one, index in zip(calls, indices, strict=True)
    ]


def resolve_directly(recorded: RecordedCall, paths: Sequence[str]) -> ResolvedCall:
    """Which parameters a call uses, where nothing is known but which very arrays it got."""
    use = recorded.use
    if isinstance(use, str):
        return ResolvedCall(recorded, {}, True, use)
    found = []
    for name in (use.kernel, use.bias):
        path = None if name is None else recorded.direct.get(name)
        axes = tuple(range(recorded.call.arrays[name].ndim)) if name is not None and path else ()
        found.append(None if path is None else ParameterSlice(paths.index(path), axes, (), ()))
    kernel, bias = found
    if kernel is None or (use.bias is not None and bias is None):
        return ResolvedCall(
            recorded, {}, True, f"{recorded.call.caller}: which parameter it uses is not known"
        )
    return ResolvedCall(recorded, {}, True, None, (kernel,), (bias,))


def _locate(
    recorded: RecordedCall, evaluation: MarkerEvaluation, name: str
) -> ParameterSlice | str:
    """Which parameter an array of a call was in one evaluation, or why that cannot be told."""
    if name not in recorded.names:
        return f"its {name} is not among its parameters"
    place = recorded.names.index(name)
    found = locate(evaluation, place)
    return f"its {name} {found}" if isinstance(found, str) else found


def locate(evaluation: MarkerEvaluation, place: int) -> ParameterSlice | str:
    """Which parameter an operand of a marker is, or why that cannot be told."""
    origin, vmapped = evaluation.operands[place].origin, evaluation.vmapped[place]
    if not isinstance(origin, Origin) or origin.is_stopped:
        return "is made of parameters by more than a change of layout or of each entry"
    lanes, inner = origin.axes[:vmapped], origin.axes[vmapped:]
    axes = tuple(axis for axis in inner if isinstance(axis, int))
    if len(axes) != len(inner):
        return "is only a part of a parameter"
    taken = dict(origin.taken)
    for lane in lanes:
        if isinstance(lane, tuple):
            taken[lane[0]] = lane[1]
        elif lane is not None:
            taken[lane] = None
    stacked = tuple(taken)
    indices = tuple(taken[axis] for axis in stacked)
    return ParameterSlice(
        origin.parameter, axes, stacked, indices, origin.is_mapped, origin.is_cast
    )


def layout_in(located: ParameterSlice, layout: Layout) -> Layout:
    """A layout of the array that a call saw, as one of the parameter without its stacked axes."""
    own = {axis: place for place, axis in enumerate(sorted(located.axes))}

    def axes_of(axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(own[located.axes[axis]] for axis in axes)

    return Layout(
        inputs=axes_of(layout.inputs),
        outputs=axes_of(layout.outputs),
        batch=axes_of(layout.batch),
        bias=layout.bias,
    )
