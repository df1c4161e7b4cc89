"""A second-order optimizer until it stalls, and then one of first order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_fallback, check_interval, check_number
from singd_optax.layers import RuleState


class HybridState(NamedTuple):
    """The state of ``hybrid``.

    Attributes:
      second_order: The state of the one, which stays as it is after the switch.
      first_order: The state of the other, which stays as it is before.
      window_sum: Of the losses in this window, float32.
      window_count: How many there are, int32.
      window_mean: Of the last window that is full, float32.
      windows: How many are, int32.
      switched: Whether the switch is done, int32, 0 or 1.
    """

    second_order: PyTree
    first_order: PyTree
    window_sum: jax.Array
    window_count: jax.Array
    window_mean: jax.Array
    windows: jax.Array
    switched: jax.Array


def hybrid(
    second_order: optax.GradientTransformation,
    first_order: optax.GradientTransformation,
    *,
    threshold: float = 0.01,
    window: int = 100,
) -> optax.GradientTransformationExtraArgs:
    """Use one optimizer while the loss falls fast enough, and then, for good, another one.

    With L_j the mean loss of the j-th window of steps, the switch happens at the end of the first
    window of which::

        L_(j-1) - L_j < threshold |L_(j-1)|

    Both halves are optax transformations of any kind: complete optimizers, as
    ``hybrid(singd_optax.mkor(1e-2, layers), optax.adamw(1e-3))``, or, as MKOR-H has it,
    preconditioners in front of one that goes on, as ``optax.chain(hybrid(scale_by_mkor(layers,
    grafting="sgd"), optax.identity()), optax.sgd(1e-2, momentum=0.9))``. All is decided inside of
    ``jax.jit``, with one compilation: the step has both, and takes one. After the switch no
    statistics are formed, as the state is due for no refresh; ``refresh_due`` says so, too.

    The paper says that the rate at which the loss falls decides, and no more (its code has no
    switch): the windows are this package's.

    Args:
      second_order: Before the switch; any optimizer or ``scale_by_<rule>``.
      first_order: After it; its state begins there.
      threshold: The least relative decrease from one window to the next, a number >= 0.
      window: How many losses are averaged, an int >= 1. Those that are not finite do not count.

    Returns:
      A transformation. Its ``update`` takes the loss as ``value``, as optax's own that need it do,
      and hands on all other arguments.

    Raises:
      TypeError: One of the two is no transformation.
      ValueError: A number is out of range. From ``update``: there is no ``value``.

    References:
      Mozaffari et al., MKOR: Momentum-Enabled Kronecker-Factor-Based Optimizer Using Rank-1
      Updates, NeurIPS 2023, arXiv 2306.01685: the method MKOR-H.

    Example:
      >>> import singd_optax
      >>> tx = hybrid(singd_optax.shampoo(0.1), optax.sgd(0.1), threshold=0.1, window=2)
      >>> params = {"kernel": jnp.ones((3, 2))}
      >>> state = tx.init(params)
      >>> for loss in (3.0, 3.0, 2.0, 2.0, 1.9, 1.9):
      ...   updates, state = tx.update(params, state, params, value=loss)
      >>> int(state.windows), int(state.switched)
      (3, 1)
    """
    for name, tx in (("second_order", second_order), ("first_order", first_order)):
        if tx is None:
            raise TypeError(
                f"`{name}` must be an optax transformation, got None. To pass gradients on to "
                "what is next in a chain, write optax.identity()."
            )
        check_fallback(name, tx)
    check_number("threshold", threshold, schedule=False)
    check_interval("window", window, schedule=False)
    halves = [optax.with_extra_args_support(tx) for tx in (second_order, first_order)]

    def init(params: PyTree) -> HybridState:
        none, zero = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.float32)
        states = (half.init(params) for half in halves)
        second, first = states
        return HybridState(second, first, zero, none, zero, none, none)

    def update(
        updates: PyTree,
        state: HybridState,
        params: PyTree = None,
        *,
        value: ArrayLike | None = None,
        **extra_args: PyTree,
    ) -> tuple[PyTree, HybridState]:
        if value is None:
            raise ValueError(
                "hybrid() switches by the loss: update() got no `value`. Write tx.update(grads, "
                "opt_state, params, value=value, curvature=curvature), with what grad_fn returned."
            )
        seen = _seen(state, jnp.asarray(value, jnp.float32), threshold, window)

        def branch(index: int) -> tuple[PyTree, tuple[PyTree, PyTree]]:
            both = [state.second_order, state.first_order]
            own = halves[index].update(updates, both[index], params, value=value, **extra_args)
            moved = jax.tree.map(_like, own[0], updates)
            both[index] = jax.tree.map(_like, own[1], both[index])
            return moved, (both[0], both[1])

        is_first = seen.switched > 0
        moved, (second, first) = jax.lax.cond(is_first, lambda: branch(1), lambda: branch(0))
        second = jax.tree.map(
            lambda node: _not_due(node, is_first),
            second,
            is_leaf=lambda node: isinstance(node, RuleState),
        )
        return moved, seen._replace(second_order=second, first_order=first)

    return optax.GradientTransformationExtraArgs(init, update)


def _seen(state: HybridState, loss: jax.Array, threshold: float, window: int) -> HybridState:
    """The state with one more loss."""
    counts = jnp.isfinite(loss)
    total = state.window_sum + jnp.where(counts, loss, 0)
    number = state.window_count + counts
    full = number >= window
    mean = total / jnp.maximum(number, 1)
    last = state.window_mean
    stalled = full & (state.windows > 0) & (last - mean < threshold * jnp.abs(last))
    return state._replace(
        window_sum=jnp.where(full, 0, total),
        window_count=jnp.where(full, 0, number),
        window_mean=jnp.where(full, mean, last),
        windows=state.windows + full,
        switched=jnp.maximum(state.switched, stalled.astype(jnp.int32)),
    )


def _like(new: PyTree, old: PyTree) -> jax.Array:
    """In the dtype of the old one: both branches must agree."""
    dtype = jnp.result_type(old)
    return jnp.asarray(new) if jnp.result_type(new) == dtype else jnp.asarray(new, dtype)


def _not_due(node: PyTree, is_first: jax.Array) -> PyTree:
    if not isinstance(node, RuleState):
        return node
    return node._replace(refresh_due=jnp.where(is_first, 0, node.refresh_due))
