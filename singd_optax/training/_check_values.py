"""Are the numbers of an optimizer state of any use?"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from singd_optax.layers import curvature_states, gradient_states, path_name
from singd_optax.structures import StructuredMatrix, contract

#: How far a cached product may be from that of its factors, of its largest entry.
_TOLERANCE = 1e-2


def damaged(opt_state: Any) -> list[str]:
    """What is wrong with the numbers of factors, and of what is kept beside them.

    Args:
      opt_state: Of any optimizer of this package; shapes and traced arrays have no numbers.

    Returns:
      A line for each fault.
    """
    arrays = jax.tree.leaves(opt_state)
    if any(isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct) for x in arrays):
        return []
    return [line for path, pair, memory in _kept(opt_state) for line in _faults(path, pair, memory)]


def _kept(opt_state: Any) -> Iterator[tuple[str, Any, Any]]:
    for state in curvature_states(opt_state):
        yield from ((path, pair, state.factor_memory[path]) for path, pair in state.factors.items())
    for own in gradient_states(opt_state):
        for path, pair in own.gradient_factors.items():
            yield path, pair, (own.gradient_memory[path], own.graft_memory[path])


def _faults(path: str, pair: Any, memory: Any) -> Iterator[str]:
    for side in ("K", "C"):
        factor = getattr(pair, side)
        if not _all_finite(factor):
            yield f"layer {path!r}: {side} is not finite"
        elif not factor.max_abs().all():
            yield f"layer {path!r}: {side} is zero"
    beside = (pair._replace(K=None, C=None), memory)
    for where, leaf in jax.tree_util.tree_leaves_with_path(beside):
        if not _all_finite(leaf):
            yield f"layer {path!r}: {path_name(where[1:])} beside the factors is not finite"
    products = getattr(memory, "products", None)
    for side in ("K", "C") if products is not None else ():
        factor, product = getattr(pair, side), getattr(products, side)
        if product is not None and _is_stale(factor, product):
            yield f"layer {path!r}: the cached product of {side} is not that of {side}"


def _all_finite(tree: Any) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def _is_stale(factor: StructuredMatrix, product: StructuredMatrix) -> bool:
    dense = factor.to_dense()
    wanted = contract("...ik,...jk->...ij", dense, dense)
    off = jnp.abs(product.to_dense() - wanted).max((-2, -1))
    return not bool((off <= _TOLERANCE * jnp.abs(wanted).max((-2, -1))).all())
