"""Products of inputs and kernel: Dense, DenseGeneral, Einsum."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from singd_optax.layers._layout import Layout
from singd_optax.layers._operation import Operation, PlainRows, batch_and_shared

Axes = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Product(Operation):
    """A contraction of inputs and kernel over some axes, with others shared and the rest free.

    Axes are counted from the end, so that the operation holds for any number of leading axes.

    Attributes:
      inputs: Axes of the inputs that are summed over, in the kernel's order.
      outputs: Axes of the outputs that come from the kernel, in the kernel's order.
      input_batch: Axes of the inputs that inputs, kernel and outputs share.
      output_batch: The same axes in the outputs.

    >>> Product().input_rows(jnp.ones((8, 3, 5))).rows.shape
    (8, 3, 5)
    """

    inputs: Axes = (-1,)
    outputs: Axes = (-1,)
    input_batch: Axes = ()
    output_batch: Axes = ()

    def arrange(self, inputs: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(leading, kernel batch, inputs) and (leading, kernel batch, outputs)."""
        return (
            _arranged(inputs, self.input_batch, self.inputs),
            _arranged(gradient, self.output_batch, self.outputs),
        )

    def dimensions(self, layout: Layout, rank: int) -> tuple[tuple[Axes, Axes], tuple[Axes, Axes]]:
        """The axes as ``jax.lax.dot_general`` wants them, of inputs of this rank and a kernel."""
        summed = tuple(axis % rank for axis in self.inputs)
        shared = tuple(axis % rank for axis in self.input_batch)
        return (summed, layout.inputs), (shared, layout.batch)

    def leading(self, gradient: jax.Array) -> tuple[int, ...]:
        """All axes but the kernel's."""
        return gradient.shape[: gradient.ndim - 1 - len(self.output_batch)]

    def expected_leading(self, inputs: jax.Array) -> Axes:
        """Those of the inputs."""
        return self.leading(inputs)

    def input_rows(self, inputs: jax.Array) -> PlainRows:
        """The inputs, batch axes of the kernel first."""
        return PlainRows(self.output_rows(inputs))

    def output_rows(self, gradient: jax.Array) -> jax.Array:
        """The gradient, batch axes of the kernel first."""
        leading = self.leading(gradient)
        shared = gradient.shape[len(leading) : -1]
        rows = gradient.reshape(*batch_and_shared(leading), *shared, gradient.shape[-1])
        return jnp.moveaxis(rows, range(2, 2 + len(shared)), range(len(shared)))


def _arranged(array: jax.Array, batch: Axes, features: Axes) -> jax.Array:
    last = [axis % array.ndim for axis in (*batch, *features)]
    first = [axis for axis in range(array.ndim) if axis not in last]
    permuted = jnp.transpose(array, (*first, *last))
    split = permuted.ndim - len(features)
    return permuted.reshape(*permuted.shape[:split], math.prod(permuted.shape[split:]))


def parse_product(equation: str, input_rank: int) -> tuple[Product, Layout]:
    """The operation and the kernel's layout that an einsum equation states.

    Args:
      equation: ``"inputs,kernel->outputs"``; the inputs and outputs may have an ellipsis.
      input_rank: The number of axes of the inputs.

    Returns:
      The operation, and which axes of the kernel are what.

    Raises:
      ValueError: The equation is no product of inputs and a matrix, or several matrices.

    >>> parse_product("...ti,hid->...thd", 4)[1]
    Layout(inputs=(1,), outputs=(0, 2), batch=(), bias=())
    """
    operands, arrow, result = equation.replace(" ", "").partition("->")
    terms = operands.split(",")
    if not arrow or len(terms) != 2 or "..." in terms[1]:
        raise ValueError(
            f"The equation {equation!r} is not 'inputs,kernel->outputs' with an explicit kernel. "
            "Write it like '...i,io->...o', with no ellipsis in the kernel."
        )
    inputs, kernel = terms
    if "..." in inputs:
        spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
        ellipsis = "".join(spare[: input_rank - len(inputs) + 3])
        inputs, result = inputs.replace("...", ellipsis), result.replace("...", ellipsis)
    for name, term in (("inputs", inputs), ("kernel", kernel), ("outputs", result)):
        if len(set(term)) != len(term):
            raise ValueError(
                f"The equation {equation!r} uses an index twice in its {name}. Give each axis a "
                "letter of its own."
            )
    lost = [c for c in (*inputs, *kernel) if (c in inputs) + (c in kernel) + (c in result) < 2]
    if lost:
        raise ValueError(
            f"The equation {equation!r} sums over {lost} of one operand alone. An index must be in "
            "two of inputs, kernel and outputs."
        )
    batch = [c for c in kernel if c in inputs and c in result]
    summed = [c for c in kernel if c in inputs and c not in result]
    free = [c for c in kernel if c not in inputs]
    if not summed or not free:
        raise ValueError(
            f"The kernel of {equation!r} is no matrix. It must have an index that is summed over "
            "with the inputs, and one that is in the outputs alone."
        )

    def axes(term: str, letters: list[str]) -> Axes:
        return tuple(term.index(c) - len(term) for c in letters)

    operation = Product(
        axes(inputs, summed), axes(result, free), axes(inputs, batch), axes(result, batch)
    )
    order = [c for c in result if c in kernel]
    bias = tuple(order.index(c) for c in (*batch, *free))
    layout = Layout(
        inputs=tuple(map(kernel.index, summed)),
        outputs=tuple(map(kernel.index, free)),
        batch=tuple(map(kernel.index, batch)),
        bias=() if bias == tuple(range(len(bias))) else bias,
    )
    return operation, layout
