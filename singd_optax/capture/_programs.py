"""Reading a program that JAX traced: what flows from its inputs to its outputs.

This is the only place that looks into jaxprs. It reads what ``jax.extend.core`` documents: the
equations, their primitives' names, operands and types, and the jaxprs among their parameters.
How operands and results of a call, a loop or a branch belong to those of its inner jaxpr is told
by their number and shapes, never by a parameter's name, since names change from one release of
JAX to the next. What is not understood gets the answer that assumes the most.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

Value = TypeVar("Value")


class Reading(abc.ABC, Generic[Value]):
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
    def constant(self, atom: Any) -> Value:
        """What is known of a value that is part of the program: a literal, or an array."""

    @abc.abstractmethod
    def join(self, values: Sequence[Value]) -> Value:
        """What is known of a value that is one of these, nobody knows which."""

    @abc.abstractmethod
    def equation(self, equation: Any, inputs: list[Value]) -> list[Value]:
        """The results of an equation that has no inner program."""

    @abc.abstractmethod
    def unknown(self, equation: Any, inputs: list[Value]) -> list[Value]:
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

    def custom(self, program: Any, run: Callable[[], list[Value]]) -> list[Value]:
        """The results of a function that has a derivative of its own."""
        del program
        return run()


def read(closed: ClosedJaxpr, inputs: Sequence[Value], reading: Reading[Value]) -> list[Value]:
    """What is known of the outputs of a program, from what is known of its inputs."""
    return _run(closed, list(inputs), reading)


def inner_programs(equation: Any) -> list[Jaxpr | ClosedJaxpr]:
    """The jaxprs among the parameters of an equation, also those in tuples and lists."""
    found = []
    for value in equation.params.values():
        entries = value if isinstance(value, tuple | list) else (value,)
        found += [entry for entry in entries if isinstance(entry, Jaxpr | ClosedJaxpr)]
    return found


def equations(program: Any) -> Sequence[Any]:
    """The equations of a program."""
    return _open(program).eqns


def _run(program: Any, inputs: list[Value], reading: Reading[Value]) -> list[Value]:
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    known: dict[Any, Value] = {var: reading.constant(var) for var in jaxpr.constvars}
    known.update(zip(jaxpr.invars, inputs, strict=True))

    def value_of(atom: Any) -> Value:
        return reading.constant(atom) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        outputs = _through(equation, [value_of(atom) for atom in equation.invars], reading)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [value_of(atom) for atom in jaxpr.outvars]


def _through(equation: Any, inputs: list[Value], reading: Reading[Value]) -> list[Value]:
    programs = inner_programs(equation)
    if not programs:
        return reading.equation(equation, inputs)
    name = equation.primitive.name
    arities = [_arity(program) for program in programs]
    arity = len(inputs), len(equation.outvars)
    if name == "cond" and set(arities) == {(arity[0] - 1, arity[1])}:
        branches = [_run(program, inputs[1:], reading) for program in programs]
        return reading.chosen(inputs[0], list(map(reading.join, zip(*branches, strict=True))))
    if name == "while" and len(programs) == 2:
        body, condition = sorted(programs, key=_is_condition)
        if not _is_condition(body) and _is_condition(condition):
            return _through_while(condition, body, inputs, reading)
    elif name == "scan" and arities == [arity]:
        return _through_scan(programs[0], equation, inputs, reading)
    elif arities == [arity] and _ranks(programs[0]) == _ranks(equation):
        if name.startswith("custom_") and name != "custom_vmap_call":
            return reading.custom(programs[0], lambda: _run(programs[0], inputs, reading))
        return _run(programs[0], inputs, reading)
    return reading.unknown(equation, inputs)


def _through_scan(
    body: Any, equation: Any, inputs: list[Value], reading: Reading[Value]
) -> list[Value]:
    # Constants and the carry have one shape inside and outside, what is scanned over one axis more.
    jaxpr = _open(body)
    whole = sum(map(_same_rank, jaxpr.invars, equation.invars))
    carried = sum(map(_same_rank, jaxpr.outvars, equation.outvars))
    constants, carry = inputs[: whole - carried], inputs[whole - carried : whole]
    slices = [reading.slice_of(value) for value in inputs[whole:]]

    def step(carry: list[Value]) -> list[Value]:
        return _run_in_loop(body, [*constants, *carry, *slices], reading)

    carry = _settled(lambda carry: step(carry)[:carried], carry, reading)
    outputs = step(carry)
    return [
        *_joined(outputs[:carried], carry, reading),
        *(reading.stack_of(value) for value in outputs[carried:]),
    ]


def _through_while(
    condition: Any, body: Any, inputs: list[Value], reading: Reading[Value]
) -> list[Value]:
    # Operands: constants of the condition, those of the body, the carry.
    carried = len(_open(body).outvars)
    first = len(_open(condition).invars) - carried
    tested, constants = inputs[:first], inputs[first : len(inputs) - carried]

    def step(carry: list[Value]) -> list[Value]:
        return _run_in_loop(body, [*constants, *carry], reading)

    carry = _settled(step, inputs[len(inputs) - carried :], reading)
    carry = _joined(step(carry), carry, reading)
    return reading.chosen(_run(condition, [*tested, *carry], reading)[0], carry)


def _run_in_loop(body: Any, inputs: list[Value], reading: Reading[Value]) -> list[Value]:
    reading.loops += 1
    try:
        return _run(body, inputs, reading)
    finally:
        reading.loops -= 1


def _settled(
    step: Callable[[list[Value]], list[Value]], carry: list[Value], reading: Reading[Value]
) -> list[Value]:
    """The carry that one more step of a loop does not change."""
    was_final, reading.is_final = reading.is_final, False
    try:
        while True:
            grown = _joined(step(carry), carry, reading)
            if grown == carry:
                return carry
            carry = grown
    finally:
        reading.is_final = was_final


def _joined(new: list[Value], old: list[Value], reading: Reading[Value]) -> list[Value]:
    return [reading.join(pair) for pair in zip(new, old, strict=True)]


def _open(program: Any) -> Jaxpr:
    return program.jaxpr if isinstance(program, ClosedJaxpr) else program


def _arity(program: Any) -> tuple[int, int]:
    jaxpr = _open(program)
    return len(jaxpr.invars), len(jaxpr.outvars)


def _rank(atom: Any) -> int | None:
    return len(shape) if (shape := getattr(atom.aval, "shape", None)) is not None else None


def _same_rank(inner: Any, outer: Any) -> bool:
    return _rank(inner) == _rank(outer)


def _ranks(program: Any) -> list[int | None]:
    jaxpr = _open(program)
    return [_rank(atom) for atom in (*jaxpr.invars, *jaxpr.outvars)]


def _is_condition(program: Any) -> bool:
    outputs = [getattr(atom.aval, "dtype", None) for atom in _open(program).outvars]
    return list(map(str, outputs)) == ["bool"] and _rank(_open(program).outvars[0]) == 0
