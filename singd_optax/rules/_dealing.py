"""Batches of matrices that are dealt to the devices of a mesh, as cards are to players.

Each device gets its share of the batch, so that no decomposition is made on two of them.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from singd_optax._types import PyTree
from singd_optax.layers import MatrixView

Result = TypeVar("Result", bound=PyTree)


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


def in_turn(
    function: Callable[[jax.Array], Result],
    matrices: jax.Array,
    on_tpu: Callable[[jax.Array], Result] | None = None,
) -> Result:
    """Call a function with matrices (devices, share, k, k); on CPUs, with one after the other.

    This holds under ``jax.vmap``, too. On a CPU, XLA would hand a batch of decompositions to the
    threads on which it runs the program itself, and wait for them; as was seen with jaxlib 0.10.2,
    two batches on two threads can wait forever. TPUs compute ``on_tpu`` instead, if it is given.
    """

    def each(batch: jax.Array) -> Result:
        found = lax.map(one_by_one(function), jnp.moveaxis(batch, 1, 0))
        moved: Result = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), found)
        return moved

    on_tpus = {} if on_tpu is None else {"tpu": on_tpu}
    result: Result = lax.platform_dependent(matrices, cpu=each, default=function, **on_tpus)
    return result


def decomposed(function: Callable[[jax.Array], Result], matrices: jax.Array) -> Result:
    """Call a function with matrices (..., k, k), as ``in_turn`` does."""
    *stack, rows, columns = matrices.shape
    found = in_turn(function, matrices.reshape(1, -1, rows, columns))
    result: Result = jax.tree.map(lambda x: x.reshape(*stack, *x.shape[2:]), found)
    return result


def one_by_one(function: Callable[[jax.Array], Result]) -> Callable[[jax.Array], Result]:
    """The same function, but a ``jax.vmap`` around it calls it in a loop, never with a batch.

    Where it is differentiated, the function is called as it is: such loops have no gradient.
    """
    called = jax.custom_jvp(jax.custom_batching.sequential_vmap(function))
    called.defjvp(lambda primals, tangents: jax.jvp(function, primals, tangents))
    return called
