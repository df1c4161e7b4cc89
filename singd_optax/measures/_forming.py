"""From a layer's inputs and output gradients to second moments, in one place.

All layers share one format, [batch, shared, features]: the shared axis runs over the positions
(tokens, pixels) at which one example uses the same kernel. A layer without it has one position.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from singd_optax.layers import LayerSpec
from singd_optax.layers._operation import Operation, PlainRows, Rows, batch_and_shared, safe_inverse
from singd_optax.measures._measure import Measure, Measured, RowsOfSide
from singd_optax.measures._moments import Moments, moments_of
from singd_optax.measures._sampling import starts, strides, thin
from singd_optax.measures._statistics import Statistics
from singd_optax.structures import Precision, StructuredMatrix


class _Counts(NamedTuple):
    """Of examples and of positions, all of them; and how many each one at hand stands for."""

    examples: jax.Array
    positions: jax.Array
    times: int = 1


def layer_statistics(
    spec: LayerSpec,
    measures: tuple[Measure, ...],
    operation: Operation,
    inputs: jax.Array,
    output_gradients: jax.Array,
    weights: jax.Array | None,
    state: Mapping[str, object],
    precision: Precision,
    *,
    transposed: bool = False,
    number: jax.Array | int = 0,
) -> Statistics:
    """The statistics of one call of one layer: moments of its inputs and output gradients.

    With a for inputs and g for gradients of the loss with respect to outputs, U = mean a aᵀ and
    G = c Σ g gᵀ, where c undoes the averaging of the loss: the batch size N for ``"batch"``,
    N times the number of positions S for ``"batch+sequence"``, 1 for a sum (arXiv 2311.00636).
    With weights, positions of weight 0 count neither in the sums nor in N and N S.

    Args:
      spec: The layer.
      measures: What is wanted of the layer.
      operation: How the call used the kernel.
      inputs: The inputs of the call, as ``operation.arrange`` returns them.
      output_gradients: The gradients of its outputs, as ``operation.arrange`` returns them.
      weights: How many positions each one counts for, of the shape of the first leading axes; or
        None, for one each.
      state: The arrays of the rule's state that measures need, by field.
      precision: The precision of the products, as ``jax.numpy.einsum`` takes it.
      transposed: Whether the call used the kernel as its transpose.
      number: The number of this refresh, from which ``curvature_fraction`` draws its positions;
        sums over these are scaled up, so that their mean over all draws is that of all positions.

    Returns:
      The moments, the average traces of U and G, and what else is measured.
    """
    leading = operation.leading(output_gradients)
    batch, shared = batch_and_shared(leading)
    dtype = spec.statistics_dtype
    if weights is None:
        counts = _Counts(jnp.asarray(batch, dtype), jnp.asarray(batch * shared, dtype))
    else:
        rest = (1,) * (len(leading) - weights.ndim)
        weights = jnp.broadcast_to(weights.reshape(weights.shape + rest), leading).astype(dtype)
        present = jnp.any(weights.reshape(batch, shared) > 0, axis=1)
        counts = _Counts(present.sum(dtype=dtype), weights.sum())
    thinned = strides(spec, operation, leading)
    if thinned:
        first = starts(thinned, jnp.asarray(number))
        inputs, output_gradients = (thin(x, thinned, first) for x in (inputs, output_gradients))
        weights = None if weights is None else thin(weights, thinned, first)
        counts = counts._replace(times=math.prod(stride for _, stride in thinned))
        batch, shared = batch_and_shared(operation.leading(output_gradients))
    if weights is not None:
        weights = weights.reshape(batch, shared)

    def form(rows: Rows, gradients: jax.Array, state: Mapping[str, object]) -> Statistics:
        return _statistics(
            spec, measures, rows, gradients, weights, counts, state, precision, transposed
        )

    for _ in spec.layout.batch:
        form = jax.vmap(form)
    return form(operation.input_rows(inputs), operation.output_rows(output_gradients), state)


def _statistics(
    spec: LayerSpec,
    measures: tuple[Measure, ...],
    rows: Rows,
    gradients: jax.Array,
    weights: jax.Array | None,
    counts: _Counts,
    state: Mapping[str, object],
    precision: Precision,
    transposed: bool,
) -> Statistics:
    dtype = spec.statistics_dtype
    examples, positions, times = counts
    if weights is not None:
        gradients = gradients * (weights > 0)[..., None].astype(gradients.dtype)
    count = positions
    if spec.kfac_approx == "reduce":
        rows = rows.averaged(weights)
        gradients = jnp.sum(gradients, axis=1, dtype=dtype, keepdims=True)
        weights = (
            None if weights is None else jnp.any(weights > 0, axis=1, keepdims=True).astype(dtype)
        )
        count = examples
    undo = {"batch": examples, "batch+sequence": positions, None: jnp.ones((), dtype)}
    bias = spec.bias_shape is not None
    average = safe_inverse(count) * times
    scale = undo[spec.loss_average] * times
    as_they_are = jnp.asarray(times, dtype)
    of_inputs = RowsOfSide(rows, weights, bias, average, average, scale, as_they_are, count)
    totals = scale * undo[spec.loss_average]
    of_gradients = RowsOfSide(
        PlainRows(gradients), None, False, scale, as_they_are, scale, totals, count
    )
    sides = (of_gradients, of_inputs) if transposed else (of_inputs, of_gradients)
    arrays = cast(Mapping[str, StructuredMatrix | jax.Array], state)
    moments = moments_of(measures).of_rows(spec, *sides, arrays, precision)
    (H_K, mean_U), (H_C, mean_G) = moments
    others = tuple(
        Measured(measure.of_rows(spec, *sides, arrays, precision), measure)
        for measure in measures
        if not isinstance(measure, Moments)
    )
    return Statistics(H_K, H_C, mean_U, mean_G, others=others, rows=count / times)
