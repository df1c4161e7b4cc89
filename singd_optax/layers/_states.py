"""What optimizers keep, and how it is found in whatever optax wraps around it."""

import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.layers._roles import role_of_factors
from singd_optax.layers._rule_tag import RuleTag
from singd_optax.layers._tree import is_variable
from singd_optax.structures import StructuredMatrix


class Factors(NamedTuple):
    """The factors of one layer: the two matrices that its gradient is multiplied with.

    Attributes:
      K: The factor of the rows of the gradient, that is of inputs, (*stack, fan_in, fan_in).
      C: The factor of its columns, that is of outputs, (*stack, fan_out, fan_out).
    """

    K: StructuredMatrix
    C: StructuredMatrix


class RuleState(NamedTuple):
    """The optax state of every ``scale_by_<rule>``.

    A refresh makes the factors (the matrices that multiply gradients) anew. Mappings are from the
    path of a layer or parameter; equal layers share one stacked array in them.

    Attributes:
      rule_count: The number of updates made so far, int32.
      refresh_due: Whether the next update refreshes, so that the gradient function has to form
        statistics; int32, 0 or 1, as wrappers that blend states (``optax.lookahead``) turn bools
        into numbers.
      rule_states: Path -> what the rule keeps there: a NamedTuple, whose fields have roles
        (``Role``).
      rule_momentum: The momentum, a tree like the parameters, or None without one.
      size_states: Path -> what is kept to set the size of its update (a running size, or what the
        grafted optimizer keeps), or None.
      skipped_refreshes: Path -> the number of refreshes without effect, because statistics or
        gradients were not finite, empty, or of another step, or a root failed; int32, one for
        each matrix of a stack.
      skipped_in_a_row: Path -> the number of these since the last refresh with an effect.
      places: Path -> the place of a layer in the stack of its group, int32, where that has several.
        Places are constants; as a part of the program they would make the code of each layer
        another one, for which the compiler takes its time.
      rule_tag: The rule that made the state.
    """

    rule_count: jax.Array
    refresh_due: jax.Array
    rule_states: Mapping[str, PyTree]
    rule_momentum: PyTree
    size_states: Mapping[str, PyTree]
    skipped_refreshes: Mapping[str, jax.Array]
    skipped_in_a_row: Mapping[str, jax.Array]
    places: dict[str, jax.Array]
    rule_tag: RuleTag


class AccumulatedState(NamedTuple):
    """The state of a wrapper that accumulates gradients and statistics over micro-batches.

    Attributes:
      multi_steps: The state of ``optax.MultiSteps``, with the optimizer's inside.
      accumulated_curvature: Path of a layer -> statistics of the micro-batches so far.
    """

    multi_steps: PyTree
    accumulated_curvature: dict[str, PyTree]


def rule_states(opt_state: PyTree) -> list[RuleState]:
    """Find all states of rules inside of an optax state, however it is wrapped.

    Boxes around single arrays, as ``nnx.Optimizer`` has, are taken off; numbers of Python, as
    some ways to restore a checkpoint make, become arrays.

    Args:
      opt_state: The state of any optax transformation.

    Returns:
      The ``RuleState``s, in the order in which they are found; an empty list if there are none.
    """
    opt_state = jax.tree.map(_as_array, opt_state, is_leaf=is_variable)
    is_state = lambda node: isinstance(node, RuleState)
    return list(filter(is_state, jax.tree.leaves(opt_state, is_leaf=is_state)))


def measured_states(opt_state: PyTree) -> list[RuleState]:
    """Find all states of rules that want statistics of layers, inside of an optax state.

    Args:
      opt_state: The state of any optax transformation.

    Returns:
      The ``RuleState``s, in the order in which they are found; an empty list if there are none.
    """
    return [state for state in rule_states(opt_state) if state.rule_tag.measures]


def any_due(states: Iterable[RuleState]) -> jax.Array:
    """Whether one of these states is due for a refresh."""
    due = [state.refresh_due > 0 for state in states]
    return functools.reduce(jnp.logical_or, due, jnp.zeros([], bool))


def refresh_due(opt_state: PyTree) -> jax.Array:
    """Whether the next step refreshes factors, as the schedule of the optimizer says.

    A refresh makes the factors (the matrices that multiply gradients) anew from statistics. This
    function is for loops that compile two steps, one with and one without statistics, and choose
    between them on the host: neither has a branch, and the one without has the gradient of any
    optimizer. On a GPU each branch makes the host wait for the device; so does a look at this
    number, unless it is taken while the device is at work.

    Args:
      opt_state: The state of any optimizer of this package, however optax wraps it.

    Returns:
      A bool array of shape (), traced under ``jax.jit``.

    Raises:
      ValueError: The state has no state of a rule in it.

    Example:
      >>> import functools
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> tx = singd_optax.singd(0.1, layers, refresh_every=10)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> @functools.partial(jax.jit, static_argnames="refresh", donate_argnums=(0, 1))
      ... def train_step(params, opt_state, x, refresh):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state, refresh=refresh)
      ...   updates, opt_state = tx.update(
      ...     grads, opt_state, params, curvature=curvature, refresh=refresh)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> opt_state = tx.init(params)
      >>> for _ in range(3):
      ...   refresh = bool(singd_optax.refresh_due(opt_state))
      ...   params, opt_state, value = train_step(params, opt_state, x, refresh)
      >>> refresh
      False
    """
    states = rule_states(opt_state)
    if not states:
        raise ValueError(
            "`opt_state` must be the state of an optimizer of singd_optax, got that of another "
            f"optimizer, of type {type(opt_state).__name__}. Pass the state that tx.init(params) "
            "returned (also inside optax.chain, optax.partition, ...)."
        )
    return any_due(states)


def _as_array(leaf: PyTree) -> PyTree:
    if is_variable(leaf):
        leaf = leaf.get_raw_value()
    return as_count(leaf)


def as_count(leaf: PyTree) -> PyTree:
    """A Python int as the int32 array that it was; anything else as it is."""
    return jnp.asarray(leaf, jnp.int32) if isinstance(leaf, int) else leaf


def factors_of(state: PyTree) -> Factors | None:
    """The pair that multiplies gradients, by the roles of a rule's state of one layer.

    None if the rule has no factor on one of the sides; one with an identity there says so.
    """
    found: dict[int | None, StructuredMatrix] = {}
    for name, role in role_of_factors(type(state)).items():
        found.setdefault(role.side, getattr(state, name))
    return Factors(found[0], found[1]) if 0 in found and 1 in found else None


def factors(opt_state: PyTree) -> dict[str, Factors]:
    """The Kronecker factors in an optimizer state: the pair of matrices of each layer.

    Args:
      opt_state: The state of any optax transformation that has a ``scale_by_<rule>`` of this
        package somewhere inside.

    Returns:
      A dict from the path of each layer or parameter to (K, C), structured matrices. The
      preconditioner is (K Kᵀ) ⊗ (C Cᵀ) for singd, ingd, ikfac and inverse_free_shampoo. For others
      these are what the rule keeps in their place: inverses, roots or eigenvectors. Layers that
      were masked out are not in it.

    Raises:
      ValueError: There are no factors in this state.
    """
    states = known_rule_states(opt_state)
    found = {path: factors_of(own) for state in states for path, own in state.rule_states.items()}
    pairs = {path: pair for path, pair in found.items() if pair is not None}
    if found and not pairs:  # all layers may be masked out
        raise _no_factors(opt_state)
    return pairs


def known_rule_states(opt_state: PyTree) -> list[RuleState]:
    """The states of rules in an optimizer's, of which there must be one.

    Raises:
      ValueError: There are none.
    """
    states = rule_states(opt_state)
    if not states:
        raise _no_factors(opt_state)
    return states


def _no_factors(opt_state: PyTree) -> ValueError:
    return ValueError(
        "`opt_state` has no Kronecker factors: got a state of type "
        f"{type(opt_state).__name__}. Pass the state that tx.init(params) of an optimizer of "
        "singd_optax returned (also inside optax.chain, optax.partition, ...). Some optimizers, "
        "such as eva, eva_f and adafisher, keep vectors in the place of factors."
    )
