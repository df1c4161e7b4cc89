"""Does a restored optimizer state belong to this optimizer?"""

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.layers import RuleState, rule_states
from singd_optax.layers._check_form import differing_form
from singd_optax.layers._check_state import describe_factor
from singd_optax.layers._roles import role_of_factors
from singd_optax.layers._tree import path_name
from singd_optax.training._check_refreshes import check_refreshes
from singd_optax.training._check_values import damaged


def check_opt_state(opt_state: PyTree, tx: PyTree, params: PyTree) -> None:
    """Raise unless an optimizer state is of this optimizer and model, with what differs.

    Checkpoint libraries restore what they find; some of them even under other shapes than asked
    for. Call this after a restore. Where the state has numbers, they are looked at too: factors
    that are not finite, or zero, and cached products that are not those of their factors, raise;
    layers that are not refreshed any more are warned of, see ``check_refreshes``.

    Args:
      opt_state: The state as it was restored.
      tx: The optimizer that is to go on with it.
      params: The parameters; arrays or ``jax.ShapeDtypeStruct``s.

    Raises:
      ValueError: Rule, layers, structures, sizes, dtypes or parts of the state differ, or its
        numbers are of no use.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> old = singd_optax.singd(0.1, layers).init(params)
      >>> tx = singd_optax.singd(0.1, layers.replace("", structures=("dense", "diagonal")))
      >>> singd_optax.training.check_opt_state(old, tx, params)
      Traceback (most recent call last):
      ValueError: The optimizer state is not one of this optimizer:
        layer 'params': C is Dense() 3 x 3 float32, expected Diagonal() 3 x 3 float32
      Use the layers, structures and factor dtypes with which it was written, ...
    """
    expected = jax.eval_shape(tx.init, params)
    got_states, expected_states = rule_states(opt_state), rule_states(expected)
    lines = _differing_factors(_by_path(got_states), _by_path(expected_states))
    if not lines:
        lines = [line for line in (differing_form(opt_state, expected),) if line]
        lines += _differing_leaves(opt_state, expected)
    if lines:
        more = f"\n  and {len(lines) - 20} more" if len(lines) > 20 else ""
        raise ValueError(
            "The optimizer state is not one of this optimizer:\n  "
            + "\n  ".join(lines[:20])
            + more
            + "\nUse the layers, structures and factor dtypes with which it was written, or start "
            "with a new state from tx.init(params)."
        )
    lines = damaged(opt_state)
    if lines:
        raise ValueError(
            "The optimizer state is of this optimizer, and damaged:\n  "
            + "\n  ".join(lines[:20])
            + "\nRestore an earlier checkpoint, or start with a new state from tx.init(params)."
        )
    check_refreshes(opt_state)


def _by_path(states: list[RuleState]) -> dict[str, PyTree]:
    return {path: pair for state in states for path, pair in state.rule_states.items()}


def _differing_factors(got: dict[str, PyTree], expected: dict[str, PyTree]) -> list[str]:
    lines = []
    for path in sorted({*got, *expected}):
        if path not in expected:
            lines.append(f"layer {path!r}: has factors, expected none")
        elif path not in got:
            lines.append(f"layer {path!r}: has no factors, expected some")
        else:
            for name in role_of_factors(type(expected[path])):
                pair = [getattr(tree[path], name, None) for tree in (got, expected)]
                if None in pair:
                    continue  # another rule, or other options: said below
                found, wanted = (describe_factor(one) for one in pair if one is not None)
                if found != wanted:
                    lines.append(f"layer {path!r}: {name} is {found}, expected {wanted}")
    return lines


def _differing_leaves(got: PyTree, expected: PyTree) -> list[str]:
    trees = [
        {
            path_name(path): f"{jnp.result_type(leaf).name}{list(jnp.shape(leaf))}"
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (got, expected)
    ]
    lines = [
        f"{path}: is {trees[0].get(path, 'missing')}, expected {trees[1].get(path, 'nothing')}"
        for path in sorted({*trees[0], *trees[1]})
        if trees[0].get(path) != trees[1].get(path)
    ]
    kinds = [str(jax.tree.structure(tree)) for tree in (got, expected)]
    if not lines and kinds[0] != kinds[1]:
        lines = [f"containers: are {kinds[0]}, expected {kinds[1]}"]
    return lines
