"""Statistics of some positions only."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from singd_optax.layers import LayerSpec
from singd_optax.layers._operation import Operation
from singd_optax.layers._spec import LEAST_EXAMPLES

#: (axis, stride) pairs.
Strides = tuple[tuple[int, int], ...]


def strides(spec: LayerSpec, operation: Operation, leading: tuple[int, ...]) -> Strides:
    """Which leading axes to thin out, and by how much.

    Positions of a sequence first, since they are alike and never sharded over a data axis; then
    examples. Strides divide the axes, so that every position is as likely as any other, and
    equal shards of the batch stay equal. By ``"auto"`` what is left are no fewer rows than
    ``spec.enough_rows`` says, of no fewer than ``LEAST_EXAMPLES`` examples: the pixels of one image
    are too much alike to be worth as many rows of their own.

    Args:
      spec: The layer.
      operation: How the call used the kernel.
      leading: Sizes of the leading axes.
    """
    is_auto = spec.curvature_fraction == "auto"
    wanted = _wanted(spec, leading)
    found = []
    last = len(leading) - 1
    if last > 0 and operation.shares_leading and spec.kfac_approx == "expand":
        found.append((last, largest_divisor(leading[last], wanted)))
        wanted //= found[0][1]
    if leading:
        most = leading[0] // LEAST_EXAMPLES if is_auto else leading[0]
        found.append((0, largest_divisor(leading[0], min(wanted, most))))
    return tuple((axis, stride) for axis, stride in found if stride > 1)


def _wanted(spec: LayerSpec, leading: tuple[int, ...]) -> int:
    """One of how many positions is enough."""
    if isinstance(spec.curvature_fraction, str):
        rows = leading[:1] if spec.kfac_approx == "reduce" else leading
        return max(math.prod(rows) // spec.enough_rows, 1)
    # No stride is longer than its axis, and 1 over the least floats is infinite.
    return round(min(1 / spec.curvature_fraction, math.prod(leading)))


def largest_divisor(size: int, limit: int) -> int:
    """The largest divisor of a size that is no larger than a limit.

    >>> largest_divisor(64, 10), largest_divisor(15, 4), largest_divisor(7, 4)
    (8, 3, 1)
    """
    limit = max(min(limit, size), 1)
    small = [k for k in range(1, math.isqrt(size) + 1) if size % k == 0]
    return max((k for d in small for k in (d, size // d) if k <= limit), default=1)


def starts(thinned: Strides, number: jax.Array) -> list[jax.Array]:
    """Pseudo-random starts, others in each refresh.

    A hash of the step's number, as multiplications and shifts: a random generator in each layer
    took the compiler longer than the layer's statistics.
    """
    return [(_hashed(number, axis) % stride).astype(jnp.int32) for axis, stride in thinned]


def _hashed(number: jax.Array, axis: int) -> jax.Array:
    bits = (number.astype(jnp.uint32) + np.uint32(0x632BE5AB * (axis + 1) % 2**32)) * np.uint32(
        0x9E3779B1
    )
    bits = (bits ^ (bits >> 15)) * np.uint32(0x2C1B3C6D)
    bits = (bits ^ (bits >> 12)) * np.uint32(0x297A2D39)
    return bits ^ (bits >> 15)


def thin(array: jax.Array, thinned: Strides, start: list[jax.Array]) -> jax.Array:
    """Every stride-th entry along the axes."""
    for (axis, stride), first in zip(thinned, start, strict=True):
        shape = (*array.shape[:axis], array.shape[axis] // stride, stride, *array.shape[axis + 1 :])
        array = jax.lax.dynamic_index_in_dim(array.reshape(shape), first, axis + 1, keepdims=False)
    return array
