"""Which axes of a kernel make the rows, and which the columns, of its matrix."""

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a kernel is a matrix of fan-in x fan-out, or several of them.

    Axes are those of the kernel of one layer, without the axes of a stack of layers.

    Attributes:
      inputs: The axes that are summed over with the inputs, in the order that makes the rows.
      outputs: The axes that are left in the outputs, in the order that makes the columns.
      batch: The axes that inputs, kernel and outputs share: one matrix for each index.
      bias: The axes of the bias in the order (batch, outputs); empty if they are in that order.

    >>> layout = Layout(inputs=(2, 0, 1), outputs=(3,))  # a convolution: channel, row, column
    >>> layout.to_matrix(jnp.zeros((3, 5, 8, 16))).shape
    (120, 16)
    """

    inputs: tuple[int, ...] = (0,)
    outputs: tuple[int, ...] = (1,)
    batch: tuple[int, ...] = ()
    bias: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        """How many axes the kernel has."""
        return len(self.inputs + self.outputs + self.batch)

    @property
    def transposed(self) -> "Layout":
        """The layout with inputs and outputs exchanged, of a kernel used as its transpose."""
        return Layout(inputs=self.outputs, outputs=self.inputs, batch=self.batch)

    def sizes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
        """For a kernel of this shape, (the sizes of batch axes, the fan-in, the fan-out)."""
        return (
            tuple(shape[axis] for axis in self.batch),
            math.prod(shape[axis] for axis in self.inputs),
            math.prod(shape[axis] for axis in self.outputs),
        )

    def to_matrix(self, kernel: jax.Array, stacked: int = 0) -> jax.Array:
        """The kernel (*stack, ...) as matrices (*stack, *batch, inputs, outputs).

        Args:
          kernel: The kernel, or its gradient, with the axes of a stack of layers first.
          stacked: How many axes the stack has.
        """
        stack, shape = kernel.shape[:stacked], kernel.shape[stacked:]
        batch, rows, columns = self.sizes(shape)
        return _permute(kernel, self._order, stacked).reshape(*stack, *batch, rows, columns)

    def from_matrix(self, matrix: jax.Array, shape: tuple[int, ...], stacked: int = 0) -> jax.Array:
        """The inverse of ``to_matrix``: matrices as a kernel (*stack, *shape).

        Args:
          matrix: The matrices, (*stack, *batch, inputs, outputs).
          shape: The kernel's shape in one layer.
          stacked: How many axes the stack has.
        """
        permuted = tuple(shape[axis] for axis in self._order)
        parts = matrix.reshape(*matrix.shape[:stacked], *permuted)
        return _permute(parts, _inverse(self._order), stacked)

    def bias_to_row(self, bias: jax.Array, kernel: tuple[int, ...], stacked: int = 0) -> jax.Array:
        """The bias (*stack, ...) as rows (*stack, *batch, 1, outputs).

        Args:
          bias: The bias, or its gradient, with the axes of a stack of layers first.
          kernel: The kernel's shape in one layer.
          stacked: How many axes the stack has.
        """
        batch, _, columns = self.sizes(kernel)
        own = _permute(bias, self.bias, stacked)
        return own.reshape(*bias.shape[:stacked], *batch, 1, columns)

    def bias_from_row(self, row: jax.Array, shape: tuple[int, ...], stacked: int = 0) -> jax.Array:
        """The inverse of ``bias_to_row``: rows as a bias (*stack, *shape).

        Args:
          row: The rows, (*stack, *batch, 1, outputs).
          shape: The bias's shape in one layer.
          stacked: How many axes the stack has.
        """
        permuted = tuple(shape[axis] for axis in self.bias) or shape
        parts = row.reshape(*row.shape[:stacked], *permuted)
        return _permute(parts, _inverse(self.bias), stacked)

    @property
    def _order(self) -> tuple[int, ...]:
        return (*self.batch, *self.inputs, *self.outputs)


def _permute(array: jax.Array, axes: tuple[int, ...], stacked: int) -> jax.Array:
    if not axes:
        return array
    return jnp.transpose(array, (*range(stacked), *(stacked + axis for axis in axes)))


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))
