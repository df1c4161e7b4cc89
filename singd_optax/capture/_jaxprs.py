"""Programs that JAX traced: what of a jaxpr is read.

This is what ``jax.extend.core`` documents: the equations, their primitives' names, operands and
types, and the jaxprs among their parameters.
"""

from collections.abc import Sequence
from typing import TypeAlias, cast

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

#: A program, closed or not; and what its equations work on.
AnyJaxpr: TypeAlias = Jaxpr | ClosedJaxpr
Atom: TypeAlias = Var | Literal


def names(text: str) -> frozenset[str]:
    """Names of primitives, from a text that has them with blanks between."""
    return frozenset(text.split())


def array_type(atom: Atom) -> jax.core.ShapedArray:
    """The type of an array in a program."""
    return cast(jax.core.ShapedArray, atom.aval)


def inner_programs(equation: JaxprEqn) -> list[Jaxpr | ClosedJaxpr]:
    """The jaxprs among the parameters of an equation, also those in tuples and lists."""
    found = []
    for value in equation.params.values():
        entries = value if isinstance(value, tuple | list) else (value,)
        found += [entry for entry in entries if isinstance(entry, Jaxpr | ClosedJaxpr)]
    return found


def equations(program: AnyJaxpr) -> Sequence[JaxprEqn]:
    """The equations of a program."""
    return open_jaxpr(program).eqns


def open_jaxpr(program: AnyJaxpr) -> Jaxpr:
    """A program without its constants."""
    return program.jaxpr if isinstance(program, ClosedJaxpr) else program


def arity_of(program: AnyJaxpr) -> tuple[int, int]:
    """How many inputs and outputs a program has."""
    jaxpr = open_jaxpr(program)
    return len(jaxpr.invars), len(jaxpr.outvars)


def _rank(atom: Atom) -> int | None:
    return len(shape) if (shape := getattr(atom.aval, "shape", None)) is not None else None


def same_rank(inner: Atom, outer: Atom) -> bool:
    """Whether two values have as many axes."""
    return _rank(inner) == _rank(outer)


def ranks_of(program: Jaxpr | JaxprEqn) -> list[int | None]:
    """How many axes inputs and outputs have."""
    return [_rank(atom) for atom in (*program.invars, *program.outvars)]


def is_condition(program: AnyJaxpr) -> bool:
    """Whether the one output of a program is a truth value."""
    outputs = [getattr(atom.aval, "dtype", None) for atom in open_jaxpr(program).outvars]
    return list(map(str, outputs)) == ["bool"] and _rank(open_jaxpr(program).outvars[0]) == 0
