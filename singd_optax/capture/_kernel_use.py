"""One use of a kernel, however a framework spells it."""

import dataclasses

import jax

from singd_optax.layers import Layout
from singd_optax.layers._operation import Operation
from singd_optax.layers._product import Product


@dataclasses.dataclass(frozen=True)
class KernelUse:
    """How one call uses a kernel; static.

    Attributes:
      kind: What the layer is, for people.
      layout: Which axes of the kernel are its inputs and outputs in this call.
      operation: The product.
      kernel: The kernel's name in the mapping that holds it.
      bias: The bias's name there, if it has one.
      changes_kernel: Whether the call changes the kernel's numbers before it multiplies, inside of
        itself, where no trace of the program shows it.
    """

    kind: str
    layout: Layout
    operation: Operation
    kernel: str = "kernel"
    bias: str | None = "bias"
    changes_kernel: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the kernel and of the bias, if there is one."""
        return (self.kernel,) if self.bias is None else (self.kernel, self.bias)

    def fits(self, inputs: jax.Array, outputs: jax.Array) -> bool:
        """Whether the outputs can be the product of the inputs and the kernel."""
        operation = self.operation
        arranged = jax.eval_shape(operation.arrange, inputs, outputs)
        return operation.leading(arranged[1]) == operation.expected_leading(arranged[0])

    def fits_kernel(self, shape: tuple[int, ...], inputs: jax.Array, outputs: jax.Array) -> bool:
        """Whether inputs and outputs have the sizes that the axes of the kernel say."""
        if self.layout.rank != len(shape):
            return False
        if not isinstance(self.operation, Product):
            return True
        rows, columns = jax.eval_shape(self.operation.arrange, inputs, outputs)
        batch, fan_in, fan_out = self.layout.sizes(shape)
        kernel_batch = rows.shape[rows.ndim - 1 - len(batch) : -1]
        return (kernel_batch, rows.shape[-1], columns.shape[-1]) == (batch, fan_in, fan_out)


def is_transposed(use: Layout, own: Layout) -> bool:
    """Whether a use sees the transpose of a kernel that has its own layout."""
    return use != own and use.transposed == dataclasses.replace(own, bias=())
