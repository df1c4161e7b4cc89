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
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        operands = inputs[1:]
        branches = [_outputs(_open(branch), operands) for branch in params["branches"]]
        return [inputs[0] or any(marks) for marks in zip(*branches, strict=True)]
    if name == "while":
        return _through_while(params, inputs)
    if name == "scan":
        return _through_scan(params, inputs)
    inner = [value for value in params.values() if isinstance(value, Jaxpr | ClosedJaxpr)]
    if len(inner) == 1 and len(_open(inner[0]).invars) == len(inputs):
        outputs = _outputs(_open(inner[0]), inputs)
        if len(outputs) == len(equation.outvars):
            return outputs
    return [True] * len(equation.outvars)


def _through_scan(params: dict[str, Any], inputs: list[bool]) -> list[bool]:
    body, first = _open(params["jaxpr"]), params["num_consts"]
    carry = slice(first, first + params["num_carry"])
    inputs = list(inputs)
    while True:
        outputs = _outputs(body, inputs)
        grown = [a or b for a, b in zip(inputs[carry], outputs, strict=False)]
        if grown == inputs[carry]:
            return outputs
        inputs[carry] = grown


def _through_while(params: dict[str, Any], inputs: list[bool]) -> list[bool]:
    split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    condition, body = inputs[: split[0]], inputs[split[0] : split[1]]
    carry = inputs[split[1] :]
    while True:
        outputs = _outputs(_open(params["body_jaxpr"]), body + carry)
        grown = [a or b for a, b in zip(carry, outputs, strict=True)]
        if any(_outputs(_open(params["cond_jaxpr"]), condition + grown)):
            return [True] * len(carry)
        if grown == carry:
            return carry
        carry = grown


def _open(jaxpr: Jaxpr | ClosedJaxpr) -> Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
