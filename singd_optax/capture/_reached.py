"""Which layers a loss function reached, told by the backward pass at trace time."""

import functools
import warnings
from collections.abc import Iterable
from typing import Any

import jax

from singd_optax.layers import Statistics


class Reached:
    """Notes whose slots get a cotangent.

    The backward pass of an identity runs only if something comes back. It is traced anew with
    each differentiation, also where a jit inside of the loss function has its trace cached.
    """

    def __init__(self) -> None:
        """Nothing is reached yet."""
        self.paths: set[str] = set()

    def watch(self, slots: dict[str, Statistics]) -> dict[str, Statistics]:
        """The slots, watched."""
        return {path: _watched(self, path, slot) for path, slot in slots.items()}

    def warn_of_others(self, paths: Iterable[str]) -> None:
        """Warn of layers that were not reached."""
        others = [path for path in paths if path not in self.paths]
        if others:
            warnings.warn(
                f"The loss does not depend on the layers {others} through a call that is measured, "
                "so that their factors stay as they are, and each of their refreshes is counted "
                "as skipped. If the model was changed after find_layers, call it again. If the "
                "loss leaves them out on purpose, use layers.without(...) or freeze them.",
                stacklevel=3,
            )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _watched(reached: Reached, path: str, slot: Statistics) -> Statistics:
    del reached, path
    return slot


def _forward(reached: Reached, path: str, slot: Statistics) -> tuple[Statistics, None]:
    del reached, path
    return slot, None


def _backward(reached: Reached, path: str, _: None, cotangent: Any) -> tuple[Any]:
    reached.paths.add(path)
    return (cotangent,)


_watched.defvjp(_forward, _backward)
