"""What optimizers keep, and how it is found in whatever optax wraps around it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from singd_optax.layers._exchange import Factors, Statistics
from singd_optax.layers._rule_name import RuleName
from singd_optax.layers._tree import is_variable


class CurvatureState(NamedTuple):
    """The optax state of every ``scale_by_<rule>``.

    Attributes:
      curvature_count: Updates made so far, int32.
      refresh_due: Whether the next update refreshes the factors, so that the gradient function
        has to form statistics; int32, 0 or 1, as wrappers that blend states (``optax.lookahead``)
        turn bools into numbers.
      factors: Path of a layer -> its factors.
      factor_memory: Path of a layer -> whatever else its rule keeps (momenta).
      skipped_refreshes: Path of a layer -> refreshes that were skipped because a statistic was not
        finite, or empty; int32, one for each layer of a stack.
      skipped_in_a_row: Path of a layer -> those of them since the last one that was not skipped.
      curvature_rule: The rule that the state is of.
    """

    curvature_count: jax.Array
    refresh_due: jax.Array
    factors: dict[str, Factors]
    factor_memory: dict[str, Any]
    skipped_refreshes: dict[str, jax.Array]
    skipped_in_a_row: dict[str, jax.Array]
    curvature_rule: RuleName


class GradientRuleState(NamedTuple):
    """The optax state of every gradients-only ``scale_by_<rule>``.

    Attributes:
      gradient_count: Updates made so far, int32.
      gradient_factors: Path of a parameter -> its factors or roots (of rows, of columns).
      gradient_memory: Path -> whatever else the rule keeps (moments, momenta).
      graft_memory: Path -> what grafting keeps, or None.
      failed_refreshes: Path -> refreshes that failed, or were skipped because a gradient was not
        finite; int32, one for each matrix of a stack.
      failed_in_a_row: Path -> those of them since the last one that did not fail.
      gradient_rule: The rule that the state is of.
    """

    gradient_count: jax.Array
    gradient_factors: dict[str, Factors]
    gradient_memory: dict[str, Any]
    graft_memory: dict[str, Any]
    failed_refreshes: dict[str, jax.Array]
    failed_in_a_row: dict[str, jax.Array]
    gradient_rule: RuleName


class AccumulatedState(NamedTuple):
    """The state of a wrapper that accumulates gradients and statistics over micro-batches.

    Attributes:
      multi_steps: The state of ``optax.MultiSteps``, with the optimizer's inside.
      accumulated_curvature: Path of a layer -> statistics of the micro-batches so far.
    """

    multi_steps: Any
    accumulated_curvature: dict[str, Statistics]


def curvature_states(opt_state: Any) -> list[CurvatureState]:
    """All curvature states inside an optax state, however it is wrapped.

    Boxes around single arrays, as ``nnx.Optimizer`` has, are taken off; numbers of Python, as
    some ways to restore a checkpoint make, become arrays.
    """
    return _states(opt_state, CurvatureState)


def gradient_states(opt_state: Any) -> list[GradientRuleState]:
    """All states of gradients-only rules inside an optax state, as ``curvature_states``."""
    return _states(opt_state, GradientRuleState)


def _states(opt_state: Any, kind: type) -> list[Any]:
    opt_state = jax.tree.map(_as_array, opt_state, is_leaf=is_variable)
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def _as_array(leaf: Any) -> Any:
    if is_variable(leaf):
        leaf = leaf.get_raw_value()
    return as_count(leaf)


def as_count(leaf: Any) -> Any:
    """A Python int as the int32 array that it was; anything else as it is."""
    return jnp.asarray(leaf, jnp.int32) if isinstance(leaf, int) else leaf


def factors(opt_state: Any) -> dict[str, Factors]:
    """The Kronecker factors in an optimizer state.

    Args:
      opt_state: The state of any optax transformation that has a ``scale_by_<rule>`` of this
        package somewhere inside.

    Returns:
      Path of a layer -> (K, C), structured matrices; the preconditioner of the layer is
      (K Kᵀ) ⊗ (C Cᵀ).

    Raises:
      ValueError: There are no factors in this state.
    """
    states = curvature_states(opt_state)
    if not states:
        raise ValueError(
            "This optimizer state has no Kronecker factors: got a state of type "
            f"{type(opt_state).__name__}. Pass the state that tx.init(params) of an optimizer of "
            "singd_optax returned (also inside optax.chain, optax.partition, ...)."
        )
    return {path: pair for state in states for path, pair in state.factors.items()}
