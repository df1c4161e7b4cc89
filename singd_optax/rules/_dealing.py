"""Batches of matrices that are dealt to devices, so that nothing is done on two of them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from singd_optax._types import PyTree
from singd_optax.layers import MatrixView

Result = TypeVar("Result", bound=PyTree)


class Deal(NamedTuple):
    """Who does what of a batch: (n, ...) becomes (devices, share, ...), filled up by the first."""

    devices: int = 1
    placed: Callable[[jax.Array], jax.Array] = lambda batch: batch

    @classmethod
    def of(cls, views: Mapping[str, MatrixView]) -> "Deal":
        """By the placement of views, which are on one mesh."""
        placements = [view.placement for view in views.values()]
        if not placements:
            return cls()
        largest = max(placements, key=lambda placement: placement.device_count)
        return cls(largest.device_count, largest.dealt)

    def apply(
        self, function: Callable[..., tuple[jax.Array, ...]], *batch: jax.Array
    ) -> tuple[jax.Array, ...]:
        """The function of arrays (devices, share, ...), and (n, ...) of what it returns."""
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
    """A function of matrices (devices, share, k, k), on CPUs of one after the other.

    So it is under ``jax.vmap``, too. There XLA hands a batch to the threads on which it runs the
    program itself and waits for them, which, seen with jaxlib 0.10.2, can wait forever. TPUs
    compute ``on_tpu`` instead, if there is one.
    """

    def each(batch: jax.Array) -> Result:
        found = lax.map(one_by_one(function), jnp.moveaxis(batch, 1, 0))
        moved: Result = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), found)
        return moved

    on_tpus = {} if on_tpu is None else {"tpu": on_tpu}
    result: Result = lax.platform_dependent(matrices, cpu=each, default=function, **on_tpus)
    return result


def one_by_one(function: Callable[[jax.Array], Result]) -> Callable[[jax.Array], Result]:
    """The function, which a ``jax.vmap`` around it calls in a loop, and never with a batch.

    Where it is differentiated it is the function itself, as such loops have no gradient.
    """
    called = jax.custom_jvp(jax.custom_batching.sequential_vmap(function))
    called.defjvp(lambda primals, tangents: jax.jvp(function, primals, tangents))
    return called
