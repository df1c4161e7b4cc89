"""What a loss depends on: parameters as such, or through calls of layers that are measured.

Calls of layers are cut out of the program: in the trace that is read here, the outputs of a call
depend on its inputs and on the call itself, but not on its kernel (see ``_markers``). So whatever a
loss still owes to a kernel is a use that is not measured.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Var

from singd_optax.capture._jaxprs import AnyJaxpr, Atom, array_type, equations, inner_programs, names
from singd_optax.capture._markers import CALL_MARKER
from singd_optax.capture._origins import Origin, Source, mapped, moved, sliced, stopped

#: Data of a program: what it is given beside parameters, and what calls of layers made of it.
NO_DATA, GIVEN, ACTIVATIONS = 0, 1, 2

_ENTRY_BY_ENTRY = names(
    """
    add sub mul div max min pow integer_pow sqrt rsqrt cbrt exp exp2 log log1p expm1 tanh sin
    cos tan asin acos atan atan2 sinh cosh asinh acosh atanh logistic erf erfc erf_inv lgamma
    digamma neg abs sign floor ceil round clamp select_n square add_any nextafter rem
    is_finite real imag conj complex not and or xor eq ne lt le gt ge stop_gradient pad cumsum
    """
)
_MOVES = frozenset(("transpose", "broadcast_in_dim", "reshape", "squeeze"))
_REDUCTIONS = names("reduce_sum reduce_max reduce_min reduce_prod argmax argmin")


class Dependence(NamedTuple):
    """What is known of a value. Sets are bit masks.

    Attributes:
      parameters: Which parameters it depends on with a derivative, entries still being entries.
      penalties: Those that it depends on after a reduction: norms, penalties.
      products: Those that it depends on after such entries met data outside of a measured call.
      calls: Which calls it depends on with a derivative.
      data: Which data it depends on, with a derivative or without.
      is_spread: Whether entries of parameters were repeated along a new axis, as for a product
        that is written entry by entry.
      origin: Which parameter it is.
    """

    parameters: int = 0
    penalties: int = 0
    products: int = 0
    calls: int = 0
    data: int = NO_DATA
    is_spread: bool = False
    origin: Source = None

    @property
    def all_parameters(self) -> int:
        """Those that it depends on with a derivative in any way."""
        return self.parameters | self.penalties | self.products


class MarkerEvaluation(NamedTuple):
    """One evaluation of a marker.

    Attributes:
      operands: What is known of its arrays.
      vmapped: How many leading axes of each one a ``vmap`` runs over.
      is_custom: Whether it is in a function that has a derivative of its own.
      is_looped: Whether it is in a loop.
    """

    operands: tuple[Dependence, ...]
    vmapped: tuple[int, ...]
    is_custom: bool
    is_looped: bool = False


class DependenceAnalysis:
    """What values depend on, as ``_dataflow`` goes through a program.

    Attributes:
      is_final: Whether what is seen now is what the program does. While a loop is gone through
        again and again until nothing changes, it is False.
      loops: How many loops what is seen now is inside of.
      evaluations: The evaluations of each marker, by its index.
      has_forward: Whether a function is differentiated in forward mode that has no such derivative.
    """

    def __init__(self) -> None:
        """Nothing is read yet."""
        self.is_final = True
        self.loops = 0
        self.evaluations: dict[int, list[MarkerEvaluation]] = {}
        self.has_forward = False
        self._custom = 0

    def constant(self, atom: Atom) -> Dependence:
        """A literal, or an array that the loss function closes over, which may be its data."""
        return Dependence(data=GIVEN) if getattr(atom.aval, "ndim", 0) else Dependence()

    def join(self, values: Sequence[Dependence]) -> Dependence:
        """A value that is one of these: the union; an origin only where all have the same."""
        result = _union(values)
        origins = {value.origin for value in values}
        return result._replace(origin=origins.pop() if len(origins) == 1 else None)

    def equation(self, equation: JaxprEqn, inputs: list[Dependence]) -> list[Dependence]:
        """The results of an equation that has no inner program."""
        if equation.primitive is CALL_MARKER:
            return [self._marker(equation.params["index"], equation.params["vmapped"], inputs)]
        name = equation.primitive.name
        self.has_forward |= name == "custom_lin"
        joined = _union(inputs)
        origins = [value.origin for value in inputs]
        if name in _ENTRY_BY_ENTRY:
            met = _meets(inputs, GIVEN if joined.is_spread else ACTIVATIONS)
            results = [_mapped_origin(equation, origins)]
        else:
            met = name not in _REDUCTIONS and _meets(inputs, GIVEN)
            results = moved(equation, origins)
            met = met and not any(results)
        if name == "broadcast_in_dim" and joined.parameters:
            joined = joined._replace(is_spread=joined.is_spread or _is_spread(equation))
        if name == "stop_gradient":
            return [_cut(joined)._replace(origin=stopped(origins[0]))]
        if met:
            joined = joined._replace(products=joined.products | joined.parameters)
        return [
            _finished(joined._replace(origin=origin), equation, var)
            for origin, var in zip(results, equation.outvars, strict=False)
        ] + [_finished(joined, equation, var) for var in equation.outvars[len(results) :]]

    def unknown(self, equation: JaxprEqn, inputs: list[Dependence]) -> list[Dependence]:
        """The results where an inner program cannot be followed: all may depend on all."""
        joined = _union(inputs)
        if _meets(inputs, GIVEN):
            joined = joined._replace(products=joined.products | joined.parameters)
        return [joined for _ in equation.outvars]

    def slice_of(self, value: Dependence) -> Dependence:
        """One step's slice of a value that a loop runs over, along its first axis."""
        return value._replace(origin=sliced(value.origin))

    def stack_of(self, value: Dependence) -> Dependence:
        """The results of all steps of a loop, stacked: that is no parameter."""
        return value._replace(origin=None)

    def chosen(self, by: Dependence, values: list[Dependence]) -> list[Dependence]:
        """Values that a condition decides: with its data."""
        return [value._replace(data=max(value.data, by.data)) for value in values]

    def custom(self, program: AnyJaxpr, run: Callable[[], list[Dependence]]) -> list[Dependence]:
        """The results of a function with a derivative of its own; markers inside are noted so."""
        is_own = _is_marker(program)
        self._custom += not is_own
        try:
            return run()
        finally:
            self._custom -= not is_own

    def _marker(self, index: int, vmapped: tuple[int, ...], inputs: list[Dependence]) -> Dependence:
        if self.is_final:
            seen = MarkerEvaluation(tuple(inputs), vmapped, self._custom > 0, self.loops > 0)
            self.evaluations.setdefault(index, []).append(seen)
        # A kernel that was made by earlier calls, as MAML's fast weights are, depends on these.
        return Dependence(calls=_union(inputs).calls | 1 << index, data=ACTIVATIONS)


def _is_marker(program: AnyJaxpr) -> bool:
    """Whether this is a marker in its wrappers, among what moves axes for a vmap."""
    left = [one for one in equations(program) if one.primitive.name not in _MOVES]
    if len(left) != 1:
        return False
    return left[0].primitive is CALL_MARKER or any(map(_is_marker, inner_programs(left[0])))


def _union(values: Sequence[Dependence]) -> Dependence:
    parameters = penalties = products = calls = data = 0
    for value in values:
        parameters |= value.parameters
        penalties |= value.penalties
        products |= value.products
        calls |= value.calls
        data = max(data, value.data)
    is_spread = any(value.is_spread for value in values)
    return Dependence(parameters, penalties, products, calls, data, is_spread)


def _is_spread(equation: JaxprEqn) -> bool:
    before, after = array_type(equation.invars[0]).size, array_type(equation.outvars[0]).size
    return 1 < before < after


def _cut(value: Dependence) -> Dependence:
    """What is left where no derivative goes through."""
    return Dependence(data=value.data)


def _meets(inputs: list[Dependence], data: int) -> bool:
    """Whether entries of parameters meet such data in one of the other operands."""
    return any(
        value.parameters
        and any(other.data >= data for other in (*inputs[:place], *inputs[place + 1 :]))
        for place, value in enumerate(inputs)
    )


def _mapped_origin(equation: JaxprEqn, origins: list[Source]) -> Source:
    """The one parameter among the operands that has the shape of the result."""
    shape = array_type(equation.outvars[0]).shape
    found = {
        mapped(origin)
        for origin, atom in zip(origins, equation.invars, strict=True)
        if origin is not None
        and array_type(atom).shape == shape
        and not (isinstance(origin, Origin) and None in origin.axes)
    }
    # In w + stop_gradient(round(w) - w), as quantization has it, the first is what is trained.
    trained = {one for one in found if not (isinstance(one, Origin) and one.is_stopped)}
    found = trained or found
    return found.pop() if len(found) == 1 else None


def _finished(value: Dependence, equation: JaxprEqn, result: Var) -> Dependence:
    """The value as its own type and the equation make it."""
    dtype = getattr(result.aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return _cut(value)._replace(origin=value.origin)
    if value.parameters and _is_reduced(equation, result):
        penalties = value.penalties | value.parameters
        return value._replace(parameters=0, penalties=penalties, is_spread=False)
    return value


def _is_reduced(equation: JaxprEqn, result: Var) -> bool:
    rank, was = array_type(result).ndim, max(getattr(a.aval, "ndim", 0) for a in equation.invars)
    if equation.primitive.name == "dot_general":
        return rank <= 1
    return equation.primitive.name in _REDUCTIONS and (was - rank >= 2 or rank == 0)
