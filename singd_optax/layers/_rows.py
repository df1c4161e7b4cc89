"""From a layer's inputs and output gradients to second moments, in one place.

All layers share one format, [batch, shared, features]: the shared axis runs over the positions
(tokens, pixels) at which one example uses the same kernel. A layer without it has one position.
"""

import jax
import jax.numpy as jnp

from singd_optax.layers._exchange import Factors, Statistics
from singd_optax.layers._spec import LayerSpec
from singd_optax.structures import Precision, StructuredMatrix, contract


def layer_statistics(
    spec: LayerSpec,
    inputs: jax.Array,
    output_gradients: jax.Array,
    factors: Factors,
    precision: Precision,
) -> Statistics:
    """The statistics of one call of one layer.

    With a for inputs and g for gradients of the loss with respect to outputs, U = mean a aᵀ and
    G = c Σ g gᵀ, where c undoes the averaging of the loss: the batch size N for ``"batch"``,
    N times the number of positions S for ``"batch+sequence"``, 1 for a sum (arXiv 2311.00636).

    Args:
      spec: The layer.
      inputs: (..., inputs); the first axis is the batch, all others are shared positions.
      output_gradients: (..., outputs), with the same leading axes.
      factors: K and C to whiten with.
      precision: Of the products.

    Returns:
      Π(Kᵀ U K), Π(Cᵀ G C), and the average traces of U and G.
    """
    a, g = _shared_format(inputs), _shared_format(output_gradients)
    batch, shared, _ = a.shape
    if spec.kfac_approx == "reduce":
        dtype = spec.statistics_dtype
        a = jnp.mean(a, axis=1, dtype=dtype)
        g = jnp.sum(g, axis=1, dtype=dtype)
    else:
        a, g = a.reshape(batch * shared, -1), g.reshape(batch * shared, -1)
    if spec.bias_shape is not None:
        a = jnp.concatenate([a, jnp.ones_like(a, shape=(a.shape[0], 1))], axis=1)
    gradient_scale = {"batch": batch, "batch+sequence": batch * shared, None: 1}[spec.loss_average]
    H_K, mean_U = _moment(a, factors.K, 1 / a.shape[0], spec, precision)
    H_C, mean_G = _moment(g, factors.C, float(gradient_scale), spec, precision)
    return Statistics(H_K, H_C, mean_U, mean_G)


def _shared_format(rows: jax.Array) -> jax.Array:
    batch = rows.shape[0] if rows.ndim > 1 else 1
    return rows.reshape(batch, -1, rows.shape[-1])


def _moment(
    rows: jax.Array,
    factor: StructuredMatrix,
    scale: float,
    spec: LayerSpec,
    precision: Precision,
) -> tuple[StructuredMatrix, jax.Array]:
    moment = factor.gram(rows, precision=precision)
    squares = contract("ni,ni->", rows, rows, precision=precision)
    dtype = spec.statistics_dtype
    trace = squares.astype(dtype) * (scale / rows.shape[-1])
    return moment.astype(dtype) * scale, trace
