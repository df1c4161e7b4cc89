"""Calls of layers that were seen in a trace, and which parameters they turned out to use."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from singd_optax.capture._dependence import Known, Marked
from singd_optax.capture._origins import Origin
from singd_optax.capture._session import Event
from singd_optax.capture._use import Use
from singd_optax.layers import Layout


class Call(NamedTuple):
    """A call that was seen.

    Attributes:
      event: What was called.
      problem: Why its product cannot be measured though its kind of layer is known, or None.
      rider: Which parameter rode beside its kernel, if one did: a path.
      direct: Which parameter each of its arrays is, where it is that very array.
    """

    event: Event
    problem: str | None = None
    rider: str | None = None
    direct: Mapping[str, str | None] = MappingProxyType({})

    @property
    def use(self) -> Use | str:
        """How it used its kernel, or why it is no Kronecker layer."""
        return self.problem or self.event.use

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its arrays, in the order of the mark's operands."""
        return tuple(self.event.arrays)


class Located(NamedTuple):
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


class Resolved(NamedTuple):
    """A call, and which parameters its kernel and bias are.

    Attributes:
      call: The call.
      operands: For each of its arrays, what it was in each evaluation of the call: more than one
        if a function that was traced once is applied several times.
      is_counted: Whether it is part of what is differentiated: it reaches the loss, with
        parameters that are trained.
      problem: Why it cannot be measured, or None.
      kernels: The kernel in each evaluation.
      biases: The bias in each one, or None.
      probes: What rode beside the kernel in each one, or why that cannot be told; empty if
        nothing did.
      inner: The calls that make a part of one of which users say what it is: a bit mask.
    """

    call: Call
    operands: dict[str, tuple[Known, ...]]
    is_counted: bool
    problem: str | None = None
    kernels: tuple[Located, ...] = ()
    biases: tuple[Located | None, ...] = ()
    probes: tuple[Located | str, ...] = ()
    inner: int = 0

    @property
    def needs_riders(self) -> bool:
        """Whether one tap cannot stand for all evaluations of the call."""
        return len(set(self.kernels)) > 1 or any(None in kernel.indices for kernel in self.kernels)


def resolve(
    call: Call, marked: list[Marked], is_reached: bool, is_forward: bool = False
) -> Resolved:
    """Which parameters a call uses.

    Args:
      call: What was seen.
      marked: What the program says of each evaluation of it.
      is_reached: Whether the loss depends on it.
      is_forward: Whether the loss takes derivatives through it in forward mode.
    """
    operands = {
        name: tuple(seen.operands[place] for seen in marked)
        for place, name in enumerate(call.names)
    }
    use, caller = call.use, call.event.caller
    if isinstance(use, str):
        return Resolved(call, operands, True, use)
    problem: str | None = None
    kernels: list[Located] = []
    biases: list[Located | None] = []
    untrained = all(map(_is_untrained, operands.get(use.kernel, ())))
    if marked and (untrained or not is_reached):
        return Resolved(call, operands, False)
    if not marked:
        problem = "called inside of a function whose program cannot be followed"
    elif any(seen.is_custom for seen in marked):
        problem = (
            "called inside of a function that has a derivative of its own (custom_vjp, "
            "custom_jvp, odeint), which no tap can be part of"
        )
    elif is_forward:
        problem = (
            "the loss takes derivatives through it in forward mode (jvp, jacfwd, hessian), which "
            "no tap has. Write them in reverse mode: jacrev, or grad of grad"
        )
    for seen in marked:
        kernel = _locate(call, seen, use.kernel)
        bias = None if use.bias is None else _locate(call, seen, use.bias)
        if isinstance(kernel, str):
            problem = problem or kernel
        elif isinstance(bias, str):
            problem = problem or bias
        else:
            kernels.append(kernel)
            biases.append(bias)
    if problem is not None:
        return Resolved(call, operands, True, f"{caller}: {problem}")
    riding = call.rider is not None
    probes = [locate(seen.operands[-1], seen.mapped[-1]) for seen in marked if riding]
    inner = 0
    for seen in marked if call.event.is_said else ():
        inputs, outputs = seen.operands[len(call.names) :][:2]
        inner |= outputs.calls & ~inputs.calls
    return Resolved(call, operands, True, None, tuple(kernels), tuple(biases), tuple(probes), inner)


def without_doubles(calls: Sequence[Resolved], indices: Sequence[int]) -> list[Resolved]:
    """The calls, without those whose product is that of one of which users say what it is.

    Args:
      calls: All calls.
      indices: Of their marks.
    """
    tags = [one for one in calls if one.inner and one.is_counted]

    def is_double(one: Resolved, index: int) -> bool:
        return any(tag.inner >> index & 1 and set(tag.kernels) & set(one.kernels) for tag in tags)

    return [
        one._replace(is_counted=False) if is_double(one, index) else one
        for one, index in zip(calls, indices, strict=True)
    ]


def resolve_directly(call: Call, paths: Sequence[str]) -> Resolved:
    """Which parameters a call uses, where nothing is known but which very arrays it got."""
    use = call.use
    if isinstance(use, str):
        return Resolved(call, {}, True, use)
    found = []
    for name in (use.kernel, use.bias):
        path = None if name is None else call.direct.get(name)
        axes = tuple(range(call.event.arrays[name].ndim)) if name is not None and path else ()
        found.append(None if path is None else Located(paths.index(path), axes, (), ()))
    kernel, bias = found
    if kernel is None or (use.bias is not None and bias is None):
        return Resolved(
            call, {}, True, f"{call.event.caller}: which parameter it uses is not known"
        )
    return Resolved(call, {}, True, None, (kernel,), (bias,))


def _is_untrained(known: Known) -> bool:
    """Whether no parameter is in it that is trained: a target network's, or a constant."""
    return not (known.parameters | known.penalties | known.products)


def _locate(call: Call, seen: Marked, name: str) -> Located | str:
    """Which parameter an array of a call was in one evaluation, or why that cannot be told."""
    if name not in call.names:
        return f"its {name} is not among its parameters"
    place = call.names.index(name)
    found = locate(seen.operands[place], seen.mapped[place])
    return f"its {name} {found}" if isinstance(found, str) else found


def locate(known: Known, mapped: int) -> Located | str:
    """Which parameter an array is, or why that cannot be told.

    Args:
      known: The array.
      mapped: How many of its leading axes a ``vmap`` runs over.
    """
    origin = known.origin
    if not isinstance(origin, Origin) or origin.is_stopped:
        return "is made of parameters by more than a change of layout or of each entry"
    lanes, axes = origin.axes[:mapped], origin.axes[mapped:]
    if not all(isinstance(axis, int) for axis in axes):
        return "is only a part of a parameter"
    taken = dict(origin.taken)
    for lane in lanes:
        if isinstance(lane, tuple):
            taken[lane[0]] = lane[1]
        elif lane is not None:
            taken[lane] = None
    stacked = tuple(taken)
    indices = tuple(taken[axis] for axis in stacked)
    return Located(origin.parameter, axes, stacked, indices, origin.is_mapped, origin.is_cast)


def layout_in(located: Located, layout: Layout) -> Layout:
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
