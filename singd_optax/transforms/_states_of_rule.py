"""The states of a rule by layer, out of whatever optimizer they are in."""

import functools

import jax

from singd_optax._types import PyTree
from singd_optax.layers import Layers
from singd_optax.layers._check import check_layers
from singd_optax.layers._states import known_rule_states
from singd_optax.rules import Rule
from singd_optax.transforms._refreshing import widened


def check_rule_and_layers(rule: Rule, layers: Layers) -> None:
    """Raise unless they are such.

    Raises:
      TypeError: One is something else.
    """
    if not isinstance(rule, Rule):
        raise TypeError(f"`rule` must be a singd_optax.rules.Rule, got {rule!r}.")
    check_layers(layers)


def states_of_rule(rule: Rule, layers: Layers, opt_state: PyTree) -> dict[str, PyTree]:
    """Path of a layer -> its state, with factors in the dtype of statistics.

    Args:
      rule: That of the optimizer.
      layers: Its layers.
      opt_state: Its state.

    Raises:
      ValueError: The state is of another rule or other layers.
    """
    found: dict[str, PyTree] = {}
    for state in known_rule_states(opt_state):
        if state.rule_tag.name != rule.state_name:
            raise ValueError(
                f"`opt_state` is of the rule {state.rule_tag.name!r}, and `rule` is "
                f"{rule.state_name!r}. Pass the rule that the optimizer was made with."
            )
        found |= {path: state.rule_states[path] for path in state.rule_states}
    other = [path for path in found if path not in layers]
    if other:
        raise ValueError(
            f"`opt_state` has the layers {other}, which `layers` have not: {list(layers)}. Pass "
            "the layers that the optimizer was made with."
        )
    for path, own in found.items():
        wanted = type(jax.eval_shape(functools.partial(rule.init, layers[path])))
        if type(own) is not wanted:
            raise ValueError(
                f"`opt_state` has a {type(own).__name__} for layer {path!r}, and `rule` keeps a "
                f"{wanted.__name__}. Pass the rule, with its options, that the optimizer has."
            )
    return {path: widened(layers[path], own) for path, own in found.items()}
