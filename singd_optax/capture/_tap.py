"""The tap: an identity behind a layer whose backward pass measures the layer.

Statistics are cotangents. The tap hands the gradient of its output on, and as the "gradient" of
its slot (zeros, one for each layer) returns the layer's statistics. So one differentiation gives
gradients and statistics; calls of a shared module add up; inside a scan over layers each
iteration reduces its own rows, and no activations of several layers are kept for it.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from singd_optax.layers import Factors, LayerSpec, Statistics, layer_statistics
from singd_optax.structures import Precision


@flax.struct.dataclass
class Tap:
    """What rides beside a kernel, sliced as the kernel is.

    Its static fields are part of every jit cache's key, so that a function that was traced with
    other options is never taken for this one.
    """

    slot: Statistics
    factors: Factors
    refresh: jax.Array
    spec: LayerSpec = flax.struct.field(pytree_node=False)
    precision: Precision = flax.struct.field(pytree_node=False)

    def squeeze(self) -> "Tap":
        """This slice, without the singleton axes that it rode with."""
        arrays = (self.slot, self.factors, self.refresh)
        slot, factors, refresh = self.spec.stacking.squeeze(arrays)
        return self.replace(slot=slot, factors=factors, refresh=refresh)  # type: ignore[attr-defined]


def attach(tap: Tap, inputs: jax.Array, outputs: jax.Array) -> jax.Array:
    """The outputs, tapped.

    Args:
      tap: Of one layer, squeezed.
      inputs: (..., inputs), in the dtype in which the layer multiplies them: any other makes the
        backward pass keep a second copy.
      outputs: (..., outputs).
    """
    return _tap(
        (tap.spec, tap.precision),
        outputs,
        tap.slot,
        inputs,
        tap.factors,
        tap.refresh.astype(bool),
    )


Static = tuple[LayerSpec, Precision]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tap(
    static: Static,
    outputs: jax.Array,
    slot: Statistics,
    inputs: jax.Array,
    factors: Factors,
    refresh: jax.Array,
) -> jax.Array:
    del static, slot, inputs, factors, refresh
    return outputs


def _tap_forward(
    static: Static,
    outputs: jax.Array,
    slot: Statistics,
    inputs: jax.Array,
    factors: Factors,
    refresh: jax.Array,
) -> tuple[jax.Array, Any]:
    del static
    # The mean is the smallest part of the slot: it tells vmap whether the kernel is mapped.
    return outputs, (slot.mean_U, inputs, factors, refresh)


def _tap_backward(static: Static, residuals: Any, gradient: jax.Array) -> tuple[Any, ...]:
    mean_U, inputs, factors, refresh = residuals
    # A loss may itself take gradients (of a network that solves an equation, say), and so
    # differentiate this pass: through the gradient that is handed on, never through statistics.
    arguments = jax.lax.stop_gradient((inputs, gradient, factors, mean_U, refresh))
    statistics = _gated_statistics(static, 0)(*arguments)
    return gradient, statistics, None, None, None


def _gated_statistics(static: Static, mapped: int) -> Callable[..., Statistics]:
    """Statistics if ``refresh``, else zeros, for ``mapped`` leading axes that run over kernels.

    Under vmap: an axis that maps the kernel too (an ensemble) becomes one more mapped axis, gated
    by one flag so that it stays a branch; an axis that maps only the data (per-example models)
    is one more leading axis of the data, as if the model had been written for batches.
    """
    spec, precision = static

    def form(inputs: jax.Array, gradient: jax.Array, factors: Factors) -> Statistics:
        return layer_statistics(spec, inputs, gradient, factors, precision)

    for _ in range(mapped):
        form = jax.vmap(form)

    @custom_vmap
    def gated(
        inputs: jax.Array,
        gradient: jax.Array,
        factors: Factors,
        mean_U: jax.Array,
        refresh: jax.Array,
    ) -> Statistics:
        del mean_U
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(form, inputs, gradient, factors),
        )
        return jax.lax.cond(refresh, form, lambda *_: zeros, inputs, gradient, factors)

    @gated.def_vmap
    def gated_vmap(size: int, batched: list[Any], *arguments: Any) -> tuple[Statistics, Any]:
        _, _, factors_batched, kernel_batched, refresh_batched = batched
        inputs, gradient, factors, mean_U, refresh = arguments
        refresh = jnp.any(refresh) if refresh_batched else refresh
        inputs = _broadcast(inputs, batched[0], size)
        gradient = _broadcast(gradient, batched[1], size)
        if kernel_batched or any(jax.tree.leaves(factors_batched)):
            factors = jax.tree.map(lambda x, b: _broadcast(x, b, size), factors, factors_batched)
            mean_U = _broadcast(mean_U, kernel_batched, size)
            result = _gated_statistics(static, mapped + 1)(
                inputs, gradient, factors, mean_U, refresh
            )
            return result, jax.tree.map(lambda _: True, result)
        inputs, gradient = (jnp.moveaxis(x, 0, mapped) for x in (inputs, gradient))
        result = gated(inputs, gradient, factors, mean_U, refresh)
        return result, jax.tree.map(lambda _: False, result)

    return gated


def _broadcast(x: jax.Array, is_batched: bool, size: int) -> jax.Array:
    return x if is_batched else jnp.broadcast_to(x, (size, *x.shape))


_tap.defvjp(_tap_forward, _tap_backward)
