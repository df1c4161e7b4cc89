"""Reading a program that JAX traced: what flows from its inputs to its outputs.

This is the only place that looks into jaxprs. It reads what ``jax.extend.core`` documents: the
equations, their primitives' names, operands and types, and the jaxprs among their parameters.
How operands and results of a call, a loop or a branch belong to those of its inner jaxpr is told
by their number and shapes, never by a parameter's name, since names change from one release of
JAX to the next. What is not understood gets the answer that assumes the most.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar, cast

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

Value = TypeVar("Value")

#: A program, closed or not; and what its equations work on.
AnyJaxpr: TypeAlias = Jaxpr | ClosedJaxpr
Atom: TypeAlias = Var | Literal


def names(text: str) -> frozenset[str]:
    """Names of primitives, from a text that has them with blanks between."""
    return frozenset(text.split())


def array_type(atom: Atom) -> jax.core.ShapedArray:
    """The type of an array in a program."""
    return cast(jax.core.ShapedArray, atom.aval)


class DataflowAnalysis(abc.ABC, Generic[Value]):
    """What is known of every value of a program; sub-classes say what that is.

    Attributes:
      is_final: Whether what is seen now is what the program does. While a loop is gone through
        again and again until nothing changes, it is False.
      loops: How many loops what is seen now is inside of.
    """

    def __init__(self) -> None:
        """Nothing is read yet."""
        self.is_final = True
        self.loops = 0

    @abc.abstractmethod
    def constant(self, atom: Atom) -> Value:
        """What is known of a value that is part of the program: a literal, or an array."""

    @abc.abstractmethod
    def join(self, values: Sequence[Value]) -> Value:
        """What is known of a value that is one of these, nobody knows which."""

    @abc.abstractmethod
    def equation(self, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
        """The results of an equation that has no inner program."""

    @abc.abstractmethod
    def unknown(self, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
        """The results of an equation whose inner program cannot be followed."""

    @abc.abstractmethod
    def slice_of(self, value: Value) -> Value:
        """One step's slice of a value that a loop runs over, along its first axis."""

    @abc.abstractmethod
    def stack_of(self, value: Value) -> Value:
        """The results of all steps of a loop, stacked along a new first axis."""

    @abc.abstractmethod
    def chosen(self, by: Value, values: list[Value]) -> list[Value]:
        """Values of which another one, a condition, decides what they are."""

    def custom(self, program: AnyJaxpr, run: Callable[[], list[Value]]) -> list[Value]:
        """The results of a function that has a derivative of its own."""
        del program
        return run()


def run_dataflow(
    closed: ClosedJaxpr, inputs: Sequence[Value], analysis: DataflowAnalysis[Value]
) -> list[Value]:
    """What is known of the outputs of a program, from what is known of its inputs."""
    return _run(closed, list(inputs), analysis)


def inner_programs(equation: JaxprEqn) -> list[Jaxpr | ClosedJaxpr]:
    """The jaxprs among the parameters of an equation, also those in tuples and lists."""
    found = []
    for value in equation.params.values():
        entries = value if isinstance(value, tuple | list) else (value,)
        found += [entry for entry in entries if isinstance(entry, Jaxpr | ClosedJaxpr)]
    return found


def equations(program: AnyJaxpr) -> Sequence[JaxprEqn]:
    """The equations of a program."""
    return _open(program).eqns


def _run(program: AnyJaxpr, inputs: list[Value], analysis: DataflowAnalysis[Value]) -> list[Value]:
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    known: dict[Var, Value] = {var: analysis.constant(var) for var in jaxpr.constvars}
    known.update(zip(jaxpr.invars, inputs, strict=True))

    def value_of(atom: Atom) -> Value:
        return analysis.constant(atom) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        outputs = _through(equation, [value_of(atom) for atom in equation.invars], analysis)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [value_of(atom) for atom in jaxpr.outvars]


def _through(
    equation: JaxprEqn, inputs: list[Value], analysis: DataflowAnalysis[Value]
) -> list[Value]:
    programs = inner_programs(equation)
    if not programs:
        return analysis.equation(equation, inputs)
    name = equation.primitive.name
    arities = [_arity(program) for program in programs]
    arity = len(inputs), len(equation.outvars)
    if name == "cond" and set(arities) == {(arity[0] - 1, arity[1])}:
        branches = [_run(program, inputs[1:], analysis) for program in programs]
        return analysis.chosen(inputs[0], list(map(analysis.join, zip(*branches, strict=True))))
    if name == "while" and len(programs) == 2:
        body, condition = sorted(programs, key=_is_condition)
        if not _is_condition(body) and _is_condition(condition):
            return _through_while(condition, body, inputs, analysis)
    elif name == "scan" and arities == [arity]:
        return _through_scan(programs[0], equation, inputs, analysis)
    elif arities == [arity] and _ranks(_open(programs[0])) == _ranks(equation):
        if name.startswith("custom_") and name != "custom_vmap_call":
            return analysis.custom(programs[0], lambda: _run(programs[0], inputs, analysis))
        return _run(programs[0], inputs, analysis)
    return analysis.unknown(equation, inputs)


def _through_scan(
    body: AnyJaxpr, equation: JaxprEqn, inputs: list[Value], analysis: DataflowAnalysis[Value]
) -> list[Value]:
    # Constants and the carry have one shape inside and outside, what is scanned over one axis more.
    jaxpr = _open(body)
    whole = sum(map(_same_rank, jaxpr.invars, equation.invars))
    carried = sum(map(_same_rank, jaxpr.outvars, equation.outvars))
    constants, carry = inputs[: whole - carried], inputs[whole - carried : whole]
    slices = [analysis.slice_of(value) for value in inputs[whole:]]

    def step(carry: list[Value]) -> list[Value]:
        return _run_in_loop(body, [*constants, *carry, *slices], analysis)

    carry = _settled(lambda carry: step(carry)[:carried], carry, analysis)
    outputs = step(carry)
    return [
        *_joined(outputs[:carried], carry, analysis),
        *(analysis.stack_of(value) for value in outputs[carried:]),
    ]


def _through_while(
    condition: AnyJaxpr, body: AnyJaxpr, inputs: list[Value], analysis: DataflowAnalysis[Value]
) -> list[Value]:
    # Operands: constants of the condition, those of the body, the carry.
    carried = len(_open(body).outvars)
    first = len(_open(condition).invars) - carried
    tested, constants = inputs[:first], inputs[first : len(inputs) - carried]

    def step(carry: list[Value]) -> list[Value]:
        return _run_in_loop(body, [*constants, *carry], analysis)

    carry = _settled(step, inputs[len(inputs) - carried :], analysis)
    carry = _joined(step(carry), carry, analysis)
    return analysis.chosen(_run(condition, [*tested, *carry], analysis)[0], carry)


def _run_in_loop(
    body: AnyJaxpr, inputs: list[Value], analysis: DataflowAnalysis[Value]
) -> list[Value]:
    analysis.loops += 1
    try:
        return _run(body, inputs, analysis)
    finally:
        analysis.loops -= 1


def _settled(
    step: Callable[[list[Value]], list[Value]],
    carry: list[Value],
    analysis: DataflowAnalysis[Value],
) -> list[Value]:
    """The carry that one more step of a loop does not change."""
    was_final, analysis.is_final = analysis.is_final, False
    try:
        while True:
            grown = _joined(step(carry), carry, analysis)
            if grown == carry:
                return carry
            carry = grown
    finally:
        analysis.is_final = was_final


def _joined(new: list[Value], old: list[Value], analysis: DataflowAnalysis[Value]) -> list[Value]:
    return [analysis.join(pair) for pair in zip(new, old, strict=True)]


def _open(program: AnyJaxpr) -> Jaxpr:
    return program.jaxpr if isinstance(program, ClosedJaxpr) else program


def _arity(program: AnyJaxpr) -> tuple[int, int]:
    jaxpr = _open(program)
    return len(jaxpr.invars), len(jaxpr.outvars)


def _rank(atom: Atom) -> int | None:
    return len(shape) if (shape := getattr(atom.aval, "shape", None)) is not None else None


def _same_rank(inner: Atom, outer: Atom) -> bool:
    return _rank(inner) == _rank(outer)


def _ranks(program: Jaxpr | JaxprEqn) -> list[int | None]:
    return [_rank(atom) for atom in (*program.invars, *program.outvars)]


def _is_condition(program: AnyJaxpr) -> bool:
    outputs = [getattr(atom.aval, "dtype", None) for atom in _open(program).outvars]
    return list(map(str, outputs)) == ["bool"] and _rank(_open(program).outvars[0]) == 0
