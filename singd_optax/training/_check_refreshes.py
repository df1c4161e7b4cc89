"""Are the factors of all layers still refreshed?"""

import warnings

import jax
import numpy as np

from singd_optax._types import PyTree
from singd_optax._validate import check_size
from singd_optax.layers import rule_states


def check_refreshes(opt_state: PyTree, *, limit: int = 20) -> list[str]:
    """Warn of layers whose refreshes were all skipped for some time.

    A refresh makes a layer's factors (the matrices that multiply its gradient) anew. One of which
    nothing can be made is skipped, and training goes on with the factors that are there. That is
    right for a while, and wrong in the long run: the layer's preconditioner is then of another
    network. Call this between steps, outside of ``jax.jit``, where one looks at
    the loss anyway: it reads numbers from the device. ``train_step`` calls it in eager mode,
    and ``check_opt_state`` does; ``diagnostics.metrics`` has the numbers, as ``skipped_in_a_row``.

    Args:
      opt_state: The optimizer's state.
      limit: The number of skipped refreshes in a row from which on a layer is warned of, an int >=
        1.

    Returns:
      A list of the paths of these layers; empty where numbers are traced.

    Warns:
      UserWarning: There are such layers.

    Raises:
      ValueError: ``limit`` is below 1.
      TypeError: ``limit`` is no int.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.shampoo(0.1)
      >>> check_refreshes(tx.init({"kernel": jnp.ones((3, 2))}))
      []
    """
    check_size("limit", limit)
    in_a_row = [state.skipped_in_a_row for state in rule_states(opt_state)]
    if any(not isinstance(leaf, np.ndarray | jax.Array) for leaf in jax.tree.leaves(in_a_row)):
        return []
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(in_a_row)):
        return []
    stuck = [
        path
        for counts in jax.device_get(in_a_row)
        for path, count in counts.items()
        if np.max(count, initial=0) >= limit
    ]
    if stuck:
        warnings.warn(
            f"The last {limit} refreshes or more of the layers {stuck[:20]} were all skipped: "
            "their preconditioners are at least as old. Either no gradient reaches them (an unused "
            "expert: leave it out by layers.without), or statistics are not finite, or out of the "
            "range of float32 (look at the loss, and scale it to about 1), or `curvature` is of an "
            "earlier step.",
            stacklevel=2,
        )
    return stuck
