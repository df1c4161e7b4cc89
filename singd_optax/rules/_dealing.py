"""Batches of matrices that are dealt to the devices of a mesh, as cards are to players.

Each device gets its share of the batch, so that no decomposition is made on two of them.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from singd_optax.layers import MatrixView


class Deal(NamedTuple):
    """How a batch is dealt: (n, ...) becomes (devices, share, ...).

    Where n is not divisible, copies of the first matrix fill the batch up.

    Attributes:
      devices: The number of devices.
      placed: Puts an array (devices, share, ...) on the devices, by its first axis.
    """

    devices: int = 1
    placed: Callable[[jax.Array], jax.Array] = lambda batch: batch

    @classmethod
    def of(cls, views: Mapping[str, MatrixView]) -> "Deal":
        """The deal for views, by their placement; they are on one mesh."""
        placements = [view.placement for view in views.values()]
        if not placements:
            return cls()
        largest = max(placements, key=lambda placement: placement.device_count)
        return cls(largest.device_count, largest.dealt)

    def apply(
        self, function: Callable[..., tuple[jax.Array, ...]], *batch: jax.Array
    ) -> tuple[jax.Array, ...]:
        """Call a function with the dealt batch; its results are put together again, (n, ...)."""
        count = batch[0].shape[0]
        share = -(-count // self.devices)
        rest = share * self.devices - count

        def dealt(array: jax.Array) -> jax.Array:
            if rest:
                filling = jnp.broadcast_to(array[:1], (rest, *array.shape[1:]))
                array = jnp.concatenate([array, filling])
            return self.placed(array.reshape(self.devices, share, *array.shape[1:]))

        results = function(*map(dealt, batch))
        return tuple(x.reshape(-1, *x.shape[2:])[:count] for x in results)
