"""The tap: an identity behind a layer whose backward pass measures the layer.

Statistics are cotangents. The tap hands the gradient of its output on, and as the "gradient" of
its slot (zeros, one for each layer) returns the layer's statistics. So one differentiation gives
gradients and statistics; calls of a shared module add up; inside a scan over layers each
iteration reduces its own rows, and no activations of several layers are kept for it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from singd_optax._types import PyTree
from singd_optax.layers import LayerSpec
from singd_optax.layers._groups import member_of
from singd_optax.layers._operation import Operation
from singd_optax.measures import SIDES, Measure, Statistics, layer_statistics
from singd_optax.placement import laid_out_like, partitions_of
from singd_optax.structures import Precision

#: Arrays of a rule's state, by field.
Fields = dict[str, PyTree]
#: These, and the place of a layer in their stack, if they are of several.
Carried = tuple[Fields, jax.Array | None]


@flax.struct.dataclass
class Tap:
    """What measures a layer, or a stack of them along the first axes of all arrays.

    Attributes:
      slot: Zeros, whose "gradient" is the statistics.
      carried: What measures need of the rule's state, by field: factors that whiten, say.
      refresh: 0 on steps without statistics, else the number of the step, from 1.
      spec: The layer.
      measures: What is wanted.
      precision: The precision of the products, as ``jax.numpy.einsum`` takes it.
      place: The place of the layer in the stack of its group, of which ``carried`` then is; or
        None.
      always: Whether to measure on each step, without a branch.
    """

    slot: Statistics
    carried: Fields
    refresh: jax.Array
    spec: LayerSpec = flax.struct.field(pytree_node=False)
    measures: tuple[Measure, ...] = flax.struct.field(pytree_node=False)
    precision: Precision = flax.struct.field(pytree_node=False)
    place: jax.Array | None = None
    always: bool = flax.struct.field(pytree_node=False, default=False)

    def at(self, indices: tuple[int, ...]) -> "Tap":
        """The tap of one layer of a stack."""
        if not indices:
            return self
        arrays = (self.slot, self.carried, self.refresh)
        slot, carried, refresh = jax.tree.map(lambda array: array[indices], arrays)
        return self.replace(slot=slot, carried=carried, refresh=refresh)  # type: ignore[attr-defined]

    def mapped(self, function: Callable[[jax.Array], jax.Array]) -> "Tap":
        """The tap with a function of the arrays of its slot."""
        return self.replace(slot=jax.tree.map(function, self.slot))  # type: ignore[attr-defined]

    def numbered(self, number: jax.Array) -> "Tap":
        """The tap with another number of the refresh."""
        return self.replace(refresh=number)  # type: ignore[attr-defined]


class OrientedProduct(NamedTuple):
    """How one call uses its kernel; static.

    Attributes:
      operation: The product.
      transposed: Whether it uses the kernel as its transpose.
    """

    operation: Operation
    transposed: bool = False


def attach(
    tap: Tap,
    call: OrientedProduct,
    inputs: jax.Array,
    outputs: jax.Array,
    weights: jax.Array | None = None,
) -> jax.Array:
    """The outputs, tapped.

    Args:
      tap: The tap of one layer.
      call: How the kernel is used.
      inputs: The inputs of the call, in the dtype in which the layer multiplies them: any other
        makes the backward pass keep a second copy.
      outputs: The outputs of the call.
      weights: How many positions each one counts for, of the shape of the first leading axes.
    """
    return _tap(
        Static(tap.spec, call, tap.measures, tap.precision, tap.always),
        outputs,
        tap.slot,
        (inputs, weights),
        (tap.carried, tap.place),
        tap.refresh,
    )


class Static(NamedTuple):
    """What is known of a call before it is traced: see ``Tap`` and ``OrientedProduct``."""

    spec: LayerSpec
    call: OrientedProduct
    measures: tuple[Measure, ...]
    precision: Precision
    always: bool


Data = tuple[jax.Array, jax.Array | None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tap(
    static: Static,
    outputs: jax.Array,
    slot: Statistics,
    data: Data,
    carried: Carried,
    refresh: jax.Array,
) -> jax.Array:
    del static, slot, data, carried, refresh
    return outputs


def _tap_forward(
    static: Static,
    outputs: jax.Array,
    slot: Statistics,
    data: Data,
    carried: Carried,
    refresh: jax.Array,
) -> tuple[jax.Array, PyTree]:
    # Tapped again, as a loss may take derivatives of its own (forces, gradient penalties): this
    # pass is then a part of what is differentiated.
    tapped = _tap(static, outputs, slot, data, carried, refresh)
    # The mean is the smallest part of the slot: it tells vmap whether the kernel is mapped.
    return tapped, (slot.mean_U, partitions_of(slot), data, carried, refresh)


def _tap_backward(static: Static, residuals: PyTree, gradient: jax.Array) -> tuple[PyTree, ...]:
    mean_U, like, (inputs, weights), carried, refresh = residuals
    spec, call = static.spec, static.call
    # A loss may itself take gradients (of a network that solves an equation, say), and so
    # differentiate this pass: through the gradient that is handed on, never through statistics.

    def measure(*data: PyTree) -> Statistics:
        inputs, gradient, weights, carried, mean_U, refresh = data
        arranged = (*call.operation.arrange(inputs, gradient), weights)
        statistics = _of_shape(_nameless(static))(arranged, carried, mean_U, refresh)
        if not spec.tied:
            return statistics
        unused = jax.tree.map(jnp.zeros_like, statistics)
        uses = (unused, statistics) if call.transposed else (statistics, unused)
        return uses[0]._replace(transposed=uses[1])

    data = jax.lax.stop_gradient((inputs, gradient, weights, carried, mean_U, refresh))
    statistics = laid_out_like(measure, like, *data)
    return gradient, statistics, None, None, None


Arranged = tuple[jax.Array, jax.Array, jax.Array | None]


def _nameless(static: Static) -> Static:
    """The same for all layers that differ in their paths alone."""
    bias = None if static.spec.bias_path is None else "bias"
    spec = dataclasses.replace(static.spec, path="", kernel_path="kernel", bias_path=bias)
    return static._replace(spec=spec)


@functools.lru_cache(maxsize=1024)
def _of_shape(static: Static) -> Callable[..., Statistics]:
    """What measures a call, jitted so that it is traced once for all layers of one shape."""
    return jax.jit(_gated_statistics(static, 0))


def _gated_statistics(static: Static, mapped: int) -> Callable[..., Statistics]:
    """Statistics if ``refresh``, else zeros, for ``mapped`` leading axes that run over kernels.

    Under vmap: an axis that maps the kernel too (an ensemble) becomes one more mapped axis, gated
    by one flag so that it stays a branch; an axis that maps only the data (per-example models)
    is one more leading axis of the data, as if the model had been written for batches.
    """
    spec, call, measures, precision, always = static

    def form(data: Arranged, carried: Carried, number: jax.Array) -> Statistics:
        inputs, gradient, weights = data
        fields, place = carried
        if place is not None:  # cut here, where it costs nothing on steps without a refresh
            index = place
            fields = jax.tree.map(lambda stack: member_of(stack, index), fields)
        statistics = layer_statistics(
            spec,
            measures,
            call.operation,
            inputs,
            gradient,
            weights,
            fields,
            precision,
            transposed=call.transposed,
            number=number,
        )
        return spec.placement.constrained_moments(statistics, SIDES)

    for _ in range(mapped):
        form = jax.vmap(form, in_axes=(0, 0, None))
    # Traced once for the shapes of the zeros and for the branch, into which it is inlined.
    form = jax.jit(form, inline=True)

    @custom_vmap
    def gated(
        data: Arranged, carried: Carried, mean_U: jax.Array, refresh: jax.Array
    ) -> Statistics:
        del mean_U
        if always:
            return form(data, carried, refresh)
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(form, data, carried, refresh),
        )
        return jax.lax.cond(refresh > 0, form, lambda *_: zeros, data, carried, refresh)

    @gated.def_vmap
    def gated_vmap(
        size: int, batched: list[PyTree], *arguments: PyTree
    ) -> tuple[Statistics, PyTree]:
        data_batched, carried_batched, kernel_batched, refresh_batched = batched
        data, carried, mean_U, refresh = arguments
        refresh = jnp.max(refresh) if refresh_batched else refresh
        data = _broadcast(data, data_batched, size)
        if kernel_batched or any(jax.tree.leaves(carried_batched)):
            carried = _broadcast(carried, carried_batched, size)
            mean_U = _broadcast(mean_U, kernel_batched, size)
            result = _gated_statistics(static, mapped + 1)(data, carried, mean_U, refresh)
            return result, jax.tree.map(lambda _: True, result)
        data = jax.tree.map(lambda x: jnp.moveaxis(x, 0, mapped), data)
        result = gated(data, carried, mean_U, refresh)
        return result, jax.tree.map(lambda _: False, result)

    return gated


def _broadcast(tree: PyTree, is_batched: PyTree, size: int) -> PyTree:
    def broadcast(leaf: jax.Array, batched: bool) -> jax.Array:
        return leaf if batched else jnp.broadcast_to(leaf, (size, *leaf.shape))

    return jax.tree.map(broadcast, tree, is_batched)


_tap.defvjp(_tap_forward, _tap_backward)
