"""One use of a kernel, however a framework spells it."""

import dataclasses

import jax

from singd_optax.capture._tap import Call, Tap, attach
from singd_optax.capture._weights import current_weights
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

    def attach(self, tap: Tap, inputs: jax.Array, outputs: jax.Array, layer: str) -> jax.Array:
        """The outputs of one call, tapped; inputs in the dtype in which they are multiplied."""
        tap = tap.squeeze()
        call = Call(self.operation, transposed=is_transposed(self.layout, tap.spec.layout))
        return attach(tap, call, inputs, outputs, self.weights(inputs, outputs, layer))

    def weights(self, inputs: jax.Array, outputs: jax.Array, layer: str) -> jax.Array | None:
        """The position weights that are in force for this call."""
        arranged = jax.eval_shape(self.operation.arrange, inputs, outputs)
        return current_weights(self.operation.leading(arranged[1]), layer)

    def fits(self, inputs: jax.Array, outputs: jax.Array) -> bool:
        """Whether the outputs can be the product of the inputs and the kernel."""
        operation = self.operation
        arranged = jax.eval_shape(operation.arrange, inputs, outputs)
        return operation.leading(arranged[1]) == operation.expected_leading(arranged[0])


def is_transposed(use: Layout, own: Layout) -> bool:
    """Whether a use sees the transpose of a kernel that has its own layout."""
    return use != own and use.transposed == dataclasses.replace(own, bias=())


def tap_named(taps: object, kernel: str) -> Tap | None:
    """The tap of this kernel among those that ride in one mapping."""
    if isinstance(taps, tuple):
        for tap in taps:
            if isinstance(tap, Tap) and tap.spec.kernel_path.split("/")[-1] == kernel:
                return tap
    return None
