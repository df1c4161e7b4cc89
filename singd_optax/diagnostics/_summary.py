"""What an optimizer's state costs in memory."""

import math

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.layers._check_state import describe_factor
from singd_optax.layers._rendered import Part, Table
from singd_optax.layers._states import factors_of, known_rule_states
from singd_optax.layers._table import format_bytes


def summary(opt_state: PyTree) -> Table:
    """A table of what each layer keeps in the optimizer's state, with its size in bytes.

    It lists the factors K and C, the matrices that multiply the layer's gradient, and what is kept
    beside them.

    Args:
      opt_state: The optimizer's state; arrays or ``jax.ShapeDtypeStruct``s (as
        ``jax.eval_shape(tx.init, params)`` makes them, to see what it would cost).

    Returns:
      The table as text, for ``print``; a notebook shows it as a table.

    Raises:
      ValueError: The state is of another optimizer.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures=("dense", "diagonal"))
      >>> print(singd_optax.diagnostics.summary(singd_optax.singd(0.1, layers).init(params)))
        layer              K                      C                         K, C   beside them
        params             Dense() 6 x 6 float32  Diagonal() 3 x 3 float32  156 B  152 B
        all layers                                                          156 B  152 B
        rest of the state                                                   92 B
        whole state                                                        400 B
    """
    states = known_rule_states(opt_state)
    rows = [["layer", "K", "C", "K, C", "beside them"]]
    totals = [0, 0]
    for state in states:
        for path, own in state.rule_states.items():
            pair = factors_of(own)
            beside = _bytes(own) - _bytes(pair) + _bytes(state.size_states[path])
            sizes = [_bytes(pair), beside]
            totals = [total + size for total, size in zip(totals, sizes, strict=True)]
            described = ("-", "-") if pair is None else tuple(map(describe_factor, pair))
            rows.append([path or "(root)", *described, *map(format_bytes, sizes)])
    whole = _bytes(opt_state)
    rows.append(["all layers", "", "", *map(format_bytes, totals)])
    rows.append(["rest of the state", "", "", format_bytes(whole - sum(totals)), ""])
    rows.append(["whole state", "", "", format_bytes(whole), ""])
    return Table.of([Part("", rows)])


def _bytes(tree: PyTree) -> int:
    return sum(
        math.prod(jnp.shape(leaf)) * jnp.result_type(leaf).itemsize
        for leaf in jax.tree.leaves(tree)
    )
