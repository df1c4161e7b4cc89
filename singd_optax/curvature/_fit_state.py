"""How far a fit is."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree


class FitState(NamedTuple):
    """How far ``fit`` is: a pytree of arrays, which can be saved and handed to ``fit(state=)``.

    Attributes:
      passed: Passes over the data that are complete, an int.
      seen: Batches of this pass that were seen, an int.
      sums: Of this pass.
      first: Of the first pass, if this is the second.
      bases: Likewise.
    """

    passed: int
    seen: int
    sums: PyTree
    first: PyTree = None
    bases: PyTree = None


def check_fit_state(state: FitState, sums: PyTree, passes: int) -> None:
    """Raise unless a state is one of this fit.

    Args:
      state: What the user passed as ``state``.
      sums: Sums like those of this fit.
      passes: How many passes over the data this fit makes.

    Raises:
      TypeError: It is something else.
      ValueError: It is of a fit with other arguments.
    """
    if not isinstance(state, FitState):
        raise TypeError(
            "`state` must be a FitState, as `on_batch` is given, got one of type "
            f"{type(state).__name__}. Restore a saved one into the form of that."
        )
    shapes = lambda tree: [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    if shapes(state.sums) != shapes(sums) or state.passed >= passes:
        raise ValueError(
            f"`state` is of a fit with other arguments: it is in pass {int(state.passed) + 1} of "
            f"{passes}, with sums of shapes {shapes(state.sums)[:10]}, and this fit has "
            f"{shapes(sums)[:10]}. Pass the loss, layers, kind and others that it was made with."
        )


#: Is told of each batch.
OnBatch: TypeAlias = Callable[[FitState], None]
