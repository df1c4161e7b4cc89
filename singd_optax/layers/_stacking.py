"""Axes of a parameter that run over layers: scan over layers, vmap over an ensemble."""

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Stacking:
    """The axes of a parameter that run over layers: over those of a scan, or of an ensemble.

    Transforms (``nn.scan``, ``nn.vmap``) take these axes off before the layer sees the parameter.
    Each is the index that the transform uses (``nn.scan``'s ``variable_axes``), negative ones
    counted from the end of what is left at that point. It applies to every array beside the
    kernel alike, whatever its rank.

    Attributes:
      removed: The axes in the order in which they are taken off, outermost first; empty for a
        layer that is not stacked.

    >>> stacking = Stacking((1,))
    >>> stacking.split((96, 12, 384))
    ((12,), (96, 384))
    >>> stacking.beside(jnp.zeros((12, 7, 7)), rank=3).shape  # sliced on axis 1, as the kernel is
    (7, 12, 7)
    """

    removed: tuple[int, ...] = ()

    def positions(self, rank: int) -> tuple[int, ...]:
        """The indices of the stacked axes in an array of this rank, outermost first."""
        left = list(range(rank))
        return tuple(left.pop(axis) for axis in self.removed)

    def split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A shape as (the sizes of the stacked axes, the shape in one layer)."""
        positions = self.positions(len(shape))
        own = tuple(size for axis, size in enumerate(shape) if axis not in positions)
        return tuple(shape[axis] for axis in positions), own

    def to_front(self, array: jax.Array) -> jax.Array:
        """The array with its stacked axes moved to the front, outermost first."""
        return jnp.moveaxis(array, self.positions(array.ndim), tuple(range(len(self.removed))))

    def from_front(self, array: jax.Array) -> jax.Array:
        """The inverse of ``to_front``: stacked axes moved from the front to their places."""
        return jnp.moveaxis(array, tuple(range(len(self.removed))), self.positions(array.ndim))

    def beside(self, array: jax.Array, rank: int) -> jax.Array:
        """An array with its stacked axes in front, laid out as a parameter of this rank is.

        The stacked axes go where the parameter's are, so that whatever slices the one slices the
        other. Axes of size 1 are put in at the end where the array has too few, and its last ones
        are merged where it has too many; one slice has its entries in the order of its own.
        """
        stacked = len(self.removed)
        if not stacked:
            return array
        own, wanted = array.shape[stacked:], rank - stacked
        own = own + (1,) * (wanted - len(own))
        own = (*own[: wanted - 1], math.prod(own[wanted - 1 :]))
        return self.from_front(array.reshape(array.shape[:stacked] + own))

    @classmethod
    def at(
        cls, kernel: tuple[int, ...], rank: int, bias: tuple[int, ...] | None, bias_rank: int
    ) -> "Stacking | None":
        """The stacking with these axes; None if the bias is stacked in another way.

        Args:
          kernel: The indices of the stacked axes of the kernel, in the order of the stack.
          rank: The number of axes of the kernel.
          bias: The indices of the stacked axes of the bias, in that order; None without a bias.
          bias_rank: The number of axes of the bias.
        """
        left = list(range(rank))
        from_front, from_end = [], []
        for axis in kernel:
            from_front.append(left.index(axis))
            from_end.append(left.index(axis) - len(left))
            left.remove(axis)
        for stacking in (cls(tuple(from_front)), cls(tuple(from_end))):
            if bias is None or stacking._is_at(bias, bias_rank):
                return stacking
        return None

    def _is_at(self, axes: tuple[int, ...], rank: int) -> bool:
        """Whether these are the stacked axes of an array of this rank."""
        lengths = range(rank, rank - len(self.removed), -1)
        fits = all(-size <= axis < size for axis, size in zip(self.removed, lengths, strict=True))
        return len(axes) == len(self.removed) and fits and self.positions(rank) == axes
