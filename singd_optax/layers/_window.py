"""The window of a convolution: where its positions are among the rows and columns of a matrix."""

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Window:
    """How the matrix of a convolution's kernel is a vector of positions for each pair of channels.

    Attributes:
      rows: The sizes of the axes that are merged to rows; the row of a bias is not among them.
      columns: The sizes of the axes that are merged to columns.
      positions: Which of ``(*rows, *columns)`` are positions, by index.

    >>> window = Window((3, 3, 4), (8,), (0, 1))  # a kernel (3, 3, 4, 8), whose matrix is 36 x 8
    >>> kernel, bias = window.split(jnp.zeros((37, 8)))
    >>> kernel.shape, bias.shape
    ((8, 4, 9), (8, 1, 1))
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    positions: tuple[int, ...]

    def split(self, matrix: jax.Array) -> tuple[jax.Array, ...]:
        """Matrices (*stack, rows, columns) as vectors, one for each pair of channels.

        Args:
          matrix: Kernels, or kernels with biases as their last rows.

        Returns:
          The vectors of the kernels, (*stack, outputs, inputs, positions), with outputs for all
          that is among the columns, and inputs for all that is among the rows; and where there are
          biases, each as a vector of one entry, (*stack, outputs, 1, 1).
        """
        count, stack = math.prod(self.rows), matrix.shape[:-2]
        kernel = matrix[..., :count, :].reshape(*stack, *self.rows, *self.columns)
        parts = [self._permuted(kernel, self._order).reshape(*stack, *self._shape)]
        if matrix.shape[-2] > count:
            parts.append(jnp.swapaxes(matrix[..., count:, :], -1, -2)[..., None])
        return tuple(parts)

    def join(self, parts: tuple[jax.Array, ...]) -> jax.Array:
        """The inverse of ``split``."""
        stack, order = parts[0].shape[:-3], self._order
        sizes = (*self.rows, *self.columns)
        cut = parts[0].reshape(*stack, *(sizes[axis] for axis in order))
        inverse = tuple(sorted(range(len(order)), key=order.__getitem__))
        count = math.prod(self.rows)
        kernel = self._permuted(cut, inverse).reshape(*stack, count, math.prod(self.columns))
        biases = [jnp.swapaxes(part[..., 0], -1, -2) for part in parts[1:]]
        return jnp.concatenate([kernel, *biases], axis=-2) if biases else kernel

    def shapes(self, rows: int) -> tuple[tuple[int, int, int], ...]:
        """The shapes of the parts of a matrix of so many rows, see ``split``."""
        shape = self._shape
        return (shape, (shape[0], 1, 1)) if rows > math.prod(self.rows) else (shape,)

    @property
    def _sides(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The axes of outputs, and those of inputs."""
        rank = len(self.rows)
        whole = range(rank + len(self.columns))
        rest = [axis for axis in whole if axis not in self.positions]
        return tuple(a for a in rest if a >= rank), tuple(a for a in rest if a < rank)

    @property
    def _order(self) -> tuple[int, ...]:
        outputs, inputs = self._sides
        return (*outputs, *inputs, *self.positions)

    @property
    def _shape(self) -> tuple[int, int, int]:
        sizes = (*self.rows, *self.columns)
        outputs, inputs, positions = (
            math.prod(sizes[axis] for axis in axes) for axes in (*self._sides, self.positions)
        )
        return outputs, inputs, positions

    @staticmethod
    def _permuted(array: jax.Array, order: tuple[int, ...]) -> jax.Array:
        """The last axes in this order."""
        first = array.ndim - len(order)
        return jnp.transpose(array, (*range(first), *(first + axis for axis in order)))
