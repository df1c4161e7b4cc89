"""Decompositions of many matrices, which CPUs make one after the other."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from singd_optax._types import PyTree

Result = TypeVar("Result", bound=PyTree)


def in_turn(
    function: Callable[[jax.Array], Result],
    matrices: jax.Array,
    on_tpu: Callable[[jax.Array], Result] | None = None,
) -> Result:
    """Call a function with matrices (devices, share, k, k); on CPUs, with one after the other.

    This holds under ``jax.vmap``, too. On a CPU, XLA would hand a batch of decompositions to the
    threads on which it runs the program itself, and wait for them; as was seen with jaxlib 0.10.2,
    two batches on two threads can wait forever. TPUs compute ``on_tpu`` instead, if it is given.
    """

    def each(batch: jax.Array) -> Result:
        found = lax.map(one_by_one(function), jnp.moveaxis(batch, 1, 0))
        moved: Result = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), found)
        return moved

    on_tpus = {} if on_tpu is None else {"tpu": on_tpu}
    result: Result = lax.platform_dependent(matrices, cpu=each, default=function, **on_tpus)
    return result


def decomposed(function: Callable[[jax.Array], Result], matrices: jax.Array) -> Result:
    """Call a function with matrices (..., rows, columns), as ``in_turn`` does."""
    *stack, rows, columns = matrices.shape
    found = in_turn(function, matrices.reshape(1, -1, rows, columns))
    result: Result = jax.tree.map(lambda x: x.reshape(*stack, *x.shape[2:]), found)
    return result


def one_by_one(function: Callable[[jax.Array], Result]) -> Callable[[jax.Array], Result]:
    """The same function, but a ``jax.vmap`` around it calls it in a loop, never with a batch.

    Where it is differentiated, the function is called as it is: such loops have no gradient.
    """

    def of_one(matrix: jax.Array) -> Result:  # what has defaults would have them traced
        return function(matrix)

    called = jax.custom_jvp(jax.custom_batching.sequential_vmap(of_one))
    called.defjvp(lambda primals, tangents: jax.jvp(function, primals, tangents))
    return called
