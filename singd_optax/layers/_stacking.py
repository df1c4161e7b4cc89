"""Axes of a parameter that run over layers: scan over layers, vmap over an ensemble."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Stacking:
    """The axes that transforms take off a parameter before the layer sees it, outermost first.

    Each is the index that the transform uses (``nn.scan``'s ``variable_axes``), negative ones
    counted from the end of what is left at that point. It applies to every array beside the
    kernel alike, whatever its rank.

    >>> stacking = Stacking((1,))
    >>> stacking.split((96, 12, 384))
    ((12,), (96, 384))
    >>> stacking.spread(jnp.zeros((12, 7, 7))).shape  # rides beside the kernel, sliced on axis 1
    (1, 12, 7, 7)
    """

    removed: tuple[int, ...] = ()

    def positions(self, rank: int) -> tuple[int, ...]:
        """Where the stacked axes are in an array of this rank, outermost first."""
        left = list(range(rank))
        return tuple(left.pop(axis) for axis in self.removed)

    def split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape as (stacked sizes, the layer's own shape)."""
        positions = self.positions(len(shape))
        own = tuple(size for axis, size in enumerate(shape) if axis not in positions)
        return tuple(shape[axis] for axis in positions), own

    def to_front(self, array: jax.Array) -> jax.Array:
        """The array with its stacked axes first, outermost first."""
        return jnp.moveaxis(array, self.positions(array.ndim), tuple(range(len(self.removed))))

    def from_front(self, array: jax.Array) -> jax.Array:
        """The inverse of ``to_front``."""
        return jnp.moveaxis(array, tuple(range(len(self.removed))), self.positions(array.ndim))

    @property
    def _padding(self) -> tuple[int, int]:
        leading = max((axis for axis in self.removed if axis >= 0), default=0)
        trailing = max((-axis - 1 for axis in self.removed if axis < 0), default=0)
        return leading, trailing

    def spread(self, tree: Any) -> Any:
        """Arrays with stacked axes in front, laid out so that the same transforms slice them.

        The stacked axes go where the kernel's are; singleton axes make room where an array has
        too few of its own.
        """
        leading, trailing = self._padding
        stacked = len(self.removed)

        def spread_leaf(leaf: jax.Array) -> jax.Array:
            own = (1,) * leading + leaf.shape[stacked:] + (1,) * trailing
            return self.from_front(leaf.reshape(leaf.shape[:stacked] + own))

        return jax.tree.map(spread_leaf, tree) if stacked else tree

    def squeeze(self, tree: Any) -> Any:
        """One slice of what ``spread`` laid out, with its singleton axes taken off."""
        return self._strip(tree, 0)

    def gather(self, tree: Any) -> Any:
        """The inverse of ``spread``."""
        if not self.removed:
            return tree
        return self._strip(jax.tree.map(self.to_front, tree), len(self.removed))

    def _strip(self, tree: Any, stacked: int) -> Any:
        leading, trailing = self._padding

        def strip_leaf(leaf: jax.Array) -> jax.Array:
            own = leaf.shape[stacked + leading : leaf.ndim - trailing]
            return leaf.reshape(leaf.shape[:stacked] + own)

        return jax.tree.map(strip_leaf, tree) if self.removed else tree
