"""One use of a kernel, however a framework spells it."""

import dataclasses

import jax

from singd_optax.layers import Layout, Operation


@dataclasses.dataclass(frozen=True)
class Use:
    """How one call uses a kernel; static.

    Attributes:
      kind: What the layer is, for people.
      layout: Which axes of the kernel are its inputs and outputs in this call.
      operation: The product.
      kernel: The kernel's name in the mapping that holds it.
      bias: The bias's name there, if it has one.
    """

    kind: str
    layout: Layout
    operation: Operation
    kernel: str = "kernel"
    bias: str | None = "bias"

    def fits(self, inputs: jax.Array, outputs: jax.Array) -> bool:
        """Whether the outputs can be the product of the inputs and the kernel."""
        operation = self.operation
        arranged = jax.eval_shape(operation.arrange, inputs, outputs)
        return operation.leading(arranged[1]) == operation.expected_leading(arranged[0])


def is_transposed(use: Layout, own: Layout) -> bool:
    """Whether a use sees the transpose of a kernel that has its own layout."""
    return use != own and use.transposed == dataclasses.replace(own, bias=())
