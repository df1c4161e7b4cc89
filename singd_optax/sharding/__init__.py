"""From one chip to a mesh: who holds what of the optimizer, and who computes it."""

from singd_optax.sharding._place import spread
from singd_optax.sharding._rules import named_shardings
from singd_optax.sharding._state import state_shardings

__all__ = ["named_shardings", "spread", "state_shardings"]
