"""Lanes: a ``vmap`` around the gradient function runs over what it is given, or closes over."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from singd_optax._types import PyTree


def in_lanes_of(tree: PyTree) -> Callable[[jax.Array], jax.Array]:
    """A function that gives an array the lanes of a tree, each lane a copy of its own.

    A ``vmap`` outside of the gradient function wants statistics of each lane; one inside of the
    loss function runs over data of one and the same loss. What tells them apart is that under the
    first, slots have lanes, too. Nothing is computed for it, with lanes or without.
    """
    tree = jax.lax.stop_gradient(tree)
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.core.Tracer)]
    if not leaves:
        return lambda array: array
    zero = _zero(*leaves)
    return lambda array: array + zero.astype(array.dtype)


@custom_vmap
def _zero(*arrays: jax.Array) -> jax.Array:
    """Zero, with the lanes of any of the arrays."""
    del arrays
    return jnp.zeros(())


@_zero.def_vmap
def _(size: int, batched: list[bool], *arrays: jax.Array) -> tuple[jax.Array, bool]:
    outer = _zero(*arrays)
    return jnp.broadcast_to(outer, (size,)), any(batched)
