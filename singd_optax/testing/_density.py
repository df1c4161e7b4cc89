"""No operation of a structure may form, inside, the matrix that it is there to avoid."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from singd_optax._types import PyTree
from singd_optax.structures import Structure, StructuredMatrix

_COLUMNS = 3


def check_no_hidden_density(structure: Structure, dim: int = 4096) -> None:
    """Check that no operation builds an array of dim x dim entries; nothing is computed.

    ``project`` and ``to_dense``, which start from and end with such an array, are left out.

    Args:
      structure: The structure to check.
      dim: The number of rows of the matrix, much larger than the structure's blocks or ranks.

    Raises:
      AssertionError: An operation builds such an array; the message names it.

    >>> from singd_optax.structures import Dense, Diagonal
    >>> check_no_hidden_density(Diagonal())
    >>> check_no_hidden_density(Dense())
    Traceback (most recent call last):
    AssertionError: Dense().eye at dim 4096 builds an array of 16777216 elements.
    """
    A = jax.eval_shape(lambda: structure.eye(dim))
    x = jax.ShapeDtypeStruct((dim, _COLUMNS), jnp.float32)
    rows = jax.ShapeDtypeStruct((_COLUMNS, dim), jnp.float32)
    for name, (operation, arguments) in _operations(structure, dim, A, x, rows).items():
        size = largest_array(operation, *arguments)
        if size >= dim * dim:
            raise AssertionError(
                f"{structure!r}.{name} at dim {dim} builds an array of {size} elements."
            )


def largest_array(function: Callable[..., PyTree], *args: PyTree) -> int:
    """The number of elements of the largest array in a traced function, in calls and loops too.

    Args:
      function: The function; it is traced, and nothing is computed.
      *args: Its arguments, arrays or ``jax.ShapeDtypeStruct``s.

    >>> largest_array(jax.jit(lambda x: (x[:, None] * x).sum()), jnp.ones(5))
    25
    """
    closed = jax.make_jaxpr(function)(*args)
    return max((size for size in _sizes(closed)), default=0)


def _operations(
    structure: Structure, dim: int, A: StructuredMatrix, x: PyTree, rows: PyTree
) -> dict[str, tuple[Callable[..., PyTree], tuple[PyTree, ...]]]:
    return {
        "eye": (lambda: structure.eye(dim), ()),
        "zeros": (lambda: structure.zeros(dim), ()),
        "project_gram": (structure.project_gram, (rows,)),
        "multiply": (lambda A, B: A @ B, (A, A)),
        "matmul": (lambda A, x: A @ x, (A, x)),
        "transpose_matmul": (lambda A, x: A.transpose_matmul(x), (A, x)),
        "gram": (lambda A: A.gram(), (A,)),
        "gram of rows": (lambda A, rows: A.gram(rows), (A, rows)),
        "add_identity": (lambda A: A.add_identity(2.0), (A,)),
        "average_trace": (lambda A: A.average_trace(), (A,)),
        "max_abs": (lambda A: A.max_abs(), (A,)),
        "frobenius_norm": (lambda A: A.frobenius_norm(), (A,)),
        "spectral_norm_bound": (lambda A: A.spectral_norm_bound(), (A,)),
        "add": (lambda A, B: A + B, (A, A)),
        "subtract": (lambda A, B: A - B, (A, A)),
        "scale": (lambda A: 2.0 * A, (A,)),
        "astype": (lambda A: A.astype(jnp.bfloat16), (A,)),
    }


def _sizes(node: PyTree) -> Iterator[int]:
    """Of all variables of a jaxpr, and of all jaxprs within the parameters of its equations."""
    if isinstance(node, ClosedJaxpr):
        node = node.jaxpr
    if isinstance(node, Jaxpr):
        for variable in (*node.constvars, *node.invars, *node.outvars):
            yield _size(variable)
        for equation in node.eqns:
            yield from map(_size, equation.outvars)
            for value in equation.params.values():
                yield from _sizes(value)
    elif isinstance(node, tuple | list):
        for entry in node:
            yield from _sizes(entry)


def _size(variable: PyTree) -> int:
    return getattr(variable.aval, "size", 0)
