"""Reading a program that JAX traced: what flows from its inputs to its outputs.

How operands and results of a call, a loop or a branch belong to those of its inner jaxpr is told
by their number and shapes, never by a parameter's name, since names change from one release of
JAX to the next. What is not understood gets the answer that assumes the most.
"""

from collections.abc import Callable, Sequence

from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var

from singd_optax.capture._dependence import Dependence, DependenceAnalysis
from singd_optax.capture._jaxprs import (
    AnyJaxpr,
    Atom,
    arity_of,
    inner_programs,
    is_condition,
    open_jaxpr,
    ranks_of,
    same_rank,
)


def run_dataflow(
    closed: ClosedJaxpr, inputs: Sequence[Dependence], analysis: DependenceAnalysis
) -> list[Dependence]:
    """What is known of the outputs of a program, from what is known of its inputs."""
    return _run(closed, list(inputs), analysis)


def _run(
    program: AnyJaxpr, inputs: list[Dependence], analysis: DependenceAnalysis
) -> list[Dependence]:
    jaxpr = open_jaxpr(program)
    known: dict[Var, Dependence] = {var: analysis.constant(var) for var in jaxpr.constvars}
    known.update(zip(jaxpr.invars, inputs, strict=True))

    def value_of(atom: Atom) -> Dependence:
        return analysis.constant(atom) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        outputs = _through(equation, [value_of(atom) for atom in equation.invars], analysis)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [value_of(atom) for atom in jaxpr.outvars]


def _through(
    equation: JaxprEqn, inputs: list[Dependence], analysis: DependenceAnalysis
) -> list[Dependence]:
    programs = inner_programs(equation)
    if not programs:
        return analysis.equation(equation, inputs)
    name = equation.primitive.name
    arities = [arity_of(program) for program in programs]
    arity = len(inputs), len(equation.outvars)
    if name == "cond" and set(arities) == {(arity[0] - 1, arity[1])}:
        branches = [_run(program, inputs[1:], analysis) for program in programs]
        return analysis.chosen(inputs[0], list(map(analysis.join, zip(*branches, strict=True))))
    if name == "while" and len(programs) == 2:
        body, condition = sorted(programs, key=is_condition)
        if not is_condition(body) and is_condition(condition):
            return _through_while(condition, body, inputs, analysis)
    elif name == "scan" and arities == [arity]:
        return _through_scan(programs[0], equation, inputs, analysis)
    elif arities == [arity] and ranks_of(open_jaxpr(programs[0])) == ranks_of(equation):
        if name.startswith("custom_") and name != "custom_vmap_call":
            return analysis.custom(programs[0], lambda: _run(programs[0], inputs, analysis))
        return _run(programs[0], inputs, analysis)
    return analysis.unknown(equation, inputs)


def _through_scan(
    body: AnyJaxpr, equation: JaxprEqn, inputs: list[Dependence], analysis: DependenceAnalysis
) -> list[Dependence]:
    # Constants and the carry have one shape inside and outside, what is scanned over one axis more.
    jaxpr = open_jaxpr(body)
    whole = sum(map(same_rank, jaxpr.invars, equation.invars))
    carried = sum(map(same_rank, jaxpr.outvars, equation.outvars))
    constants, carry = inputs[: whole - carried], inputs[whole - carried : whole]
    slices = [analysis.slice_of(value) for value in inputs[whole:]]

    def step(carry: list[Dependence]) -> list[Dependence]:
        return _run_in_loop(body, [*constants, *carry, *slices], analysis)

    carry = _settled(lambda carry: step(carry)[:carried], carry, analysis)
    outputs = step(carry)
    return [
        *_joined(outputs[:carried], carry, analysis),
        *(analysis.stack_of(value) for value in outputs[carried:]),
    ]


def _through_while(
    condition: AnyJaxpr, body: AnyJaxpr, inputs: list[Dependence], analysis: DependenceAnalysis
) -> list[Dependence]:
    # Operands: constants of the condition, those of the body, the carry.
    carried = len(open_jaxpr(body).outvars)
    first = len(open_jaxpr(condition).invars) - carried
    tested, constants = inputs[:first], inputs[first : len(inputs) - carried]

    def step(carry: list[Dependence]) -> list[Dependence]:
        return _run_in_loop(body, [*constants, *carry], analysis)

    carry = _settled(step, inputs[len(inputs) - carried :], analysis)
    carry = _joined(step(carry), carry, analysis)
    return analysis.chosen(_run(condition, [*tested, *carry], analysis)[0], carry)


def _run_in_loop(
    body: AnyJaxpr, inputs: list[Dependence], analysis: DependenceAnalysis
) -> list[Dependence]:
    analysis.loops += 1
    try:
        return _run(body, inputs, analysis)
    finally:
        analysis.loops -= 1


def _settled(
    step: Callable[[list[Dependence]], list[Dependence]],
    carry: list[Dependence],
    analysis: DependenceAnalysis,
) -> list[Dependence]:
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


def _joined(
    new: list[Dependence], old: list[Dependence], analysis: DependenceAnalysis
) -> list[Dependence]:
    return [analysis.join(pair) for pair in zip(new, old, strict=True)]
