"""How far a fit is."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

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


#: Is told of each batch.
OnBatch: TypeAlias = Callable[[FitState], None]
