"""Are the numbers of an optimizer state of any use?"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.layers import rule_states
from singd_optax.layers._roles import roles_of
from singd_optax.structures import StructuredMatrix, contract

#: How far a cached product may be from that of its factors, of its largest entry.
_TOLERANCE = 1e-2


def damaged(opt_state: PyTree) -> list[str]:
    """What is wrong with the numbers of factors, and of what is kept beside them.

    Args:
      opt_state: The state of any optimizer of this package; shapes and traced arrays have no
        numbers.

    Returns:
      A line for each fault.
    """
    arrays = jax.tree.leaves(opt_state)
    if any(isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct) for x in arrays):
        return []
    return [line for kept in _kept(opt_state) for line in _faults(*kept)]


def _kept(opt_state: PyTree) -> Iterator[tuple[str, PyTree, PyTree]]:
    for state in rule_states(opt_state):
        for path, own in state.rule_states.items():
            yield path, own, state.size_states[path]


def _faults(path: str, state: PyTree, size: PyTree) -> Iterator[str]:
    roles = roles_of(type(state))
    for name, role in roles.items():
        part = getattr(state, name)
        if part is None:
            continue
        if role.kind in ("factor", "basis"):
            if not _all_finite(part):
                yield f"layer {path!r}: {name} is not finite"
            elif not part.max_abs().all():
                yield f"layer {path!r}: {name} is zero"
        elif not _all_finite(part):
            yield f"layer {path!r}: {name} beside the factors is not finite"
    if not _all_finite(size):
        yield f"layer {path!r}: its size beside the factors is not finite"
    for name, role in roles.items():
        product = getattr(state, name)
        if role.kind == "product" and product is not None:
            of = next(n for n, r in roles.items() if r.kind == "factor" and r.side == role.side)
            if _is_stale(getattr(state, of), product):
                yield f"layer {path!r}: the cached product of {of} is not that of {of}"


def _all_finite(tree: PyTree) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def _is_stale(factor: StructuredMatrix, product: StructuredMatrix) -> bool:
    dense = factor.to_dense()
    wanted = contract("...ik,...jk->...ij", dense, dense)
    off = jnp.abs(product.to_dense() - wanted).max((-2, -1))
    return not bool((off <= _TOLERANCE * jnp.abs(wanted).max((-2, -1))).all())
