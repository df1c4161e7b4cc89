"""Which inputs of a traced function can reach its outputs."""

from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def reaches_output(closed: ClosedJaxpr, tainted: Sequence[bool]) -> bool:
    """Whether any output of the jaxpr depends on one of the tainted inputs.

    Calls, loops and branches are looked into; a primitive whose inner function is not understood
    counts as passing everything on, so that no dependence is missed.
    """
    return any(_outputs(closed.jaxpr, list(tainted)))


def _outputs(jaxpr: Jaxpr, tainted: list[bool]) -> list[bool]:
    marks = {var for var, mark in zip(jaxpr.invars, tainted, strict=True) if mark}

    def is_marked(atom: Any) -> bool:
        return not isinstance(atom, Literal) and atom in marks

    for equation in jaxpr.eqns:
        inputs = [is_marked(atom) for atom in equation.invars]
        if any(inputs):
            outputs = _through(equation, inputs)
            marks.update(v for v, mark in zip(equation.outvars, outputs, strict=True) if mark)
    return [is_marked(atom) for atom in jaxpr.outvars]


def _through(equation: Any, inputs: list[bool]) -> list[bool]:
    """Which outputs of an equation depend on marked inputs.

    Nothing but the inner jaxprs and their arities is read: parameters of primitives have other
    names from one release of JAX to the next.
    """
    name = equation.primitive.name
    inner = [_open(jaxpr) for jaxpr in jaxprs_in(equation.params)]
    sizes = [(len(jaxpr.invars), len(jaxpr.outvars)) for jaxpr in inner]
    arity = len(inputs), len(equation.outvars)
    if name == "cond" and inner and set(sizes) == {(arity[0] - 1, arity[1])}:
        branches = [_outputs(branch, inputs[1:]) for branch in inner]
        return [inputs[0] or any(marks) for marks in zip(*branches, strict=True)]
    if name == "while" and len(inner) == 2:
        condition, body = sorted(inner, key=_is_condition, reverse=True)
        if _is_condition(condition) and not _is_condition(body):
            return _through_while(condition, body, inputs)
    if name == "scan" and sizes == [arity]:
        return _through_scan(inner[0], equation, inputs)
    if sizes == [arity]:
        return _outputs(inner[0], inputs)
    return [True] * arity[1]


def _through_scan(body: Jaxpr, equation: Any, inputs: list[bool]) -> list[bool]:
    # Consts and the carry have one shape inside and outside; what is scanned over has an axis more.
    def is_whole(inner: Any, outer: Any) -> bool:
        return inner.aval.shape == outer.aval.shape

    whole = sum(map(is_whole, body.invars, equation.invars))
    carried = sum(map(is_whole, body.outvars, equation.outvars))
    carry = slice(whole - carried, whole)
    inputs = list(inputs)
    while True:
        outputs = _outputs(body, inputs)
        grown = [a or b for a, b in zip(inputs[carry], outputs, strict=False)]
        if grown == inputs[carry]:
            return outputs
        inputs[carry] = grown


def _through_while(condition: Jaxpr, body: Jaxpr, inputs: list[bool]) -> list[bool]:
    # Operands: constants of the condition, those of the body, the carry.
    carried = len(body.outvars)
    first = len(condition.invars) - carried
    tested, constants = inputs[:first], inputs[first : len(inputs) - carried]
    carry = inputs[len(inputs) - carried :]
    while True:
        outputs = _outputs(body, constants + carry)
        grown = [a or b for a, b in zip(carry, outputs, strict=True)]
        if any(_outputs(condition, tested + grown)):
            return [True] * len(carry)
        if grown == carry:
            return carry
        carry = grown


def _is_condition(jaxpr: Jaxpr) -> bool:
    types = [(var.aval.shape, var.aval.dtype.name) for var in jaxpr.outvars]
    return types == [((), "bool")]


def jaxprs_in(params: dict[str, Any]) -> list[Jaxpr | ClosedJaxpr]:
    """The jaxprs among the parameters of an equation, also those in tuples."""
    values = [
        v for value in params.values() for v in (value if isinstance(value, tuple) else [value])
    ]
    return [value for value in values if isinstance(value, Jaxpr | ClosedJaxpr)]


def _open(jaxpr: Jaxpr | ClosedJaxpr) -> Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
