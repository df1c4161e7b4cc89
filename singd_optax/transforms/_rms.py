"""Updates of one size, whatever the optimizer that made them."""

from typing import Any

import jax.numpy as jnp
import optax

from singd_optax._validate import check_number
from singd_optax.layers import Layers, Leaves, check_layers, laid_out_like, partitions_of


def scale_by_consistent_rms(layers: Layers, rms: float = 0.2) -> optax.GradientTransformation:
    """Scale the update of each Kronecker layer to one root mean square.

    AdamW's updates have a root mean square of about 0.2 to 0.4 before the learning rate, whatever
    the layer's size; with this, its learning rates carry over. Kernel and bias of a layer are
    scaled together, layers of a stack one by one; all other parameters pass through.

    Args:
      layers: From ``find_layers``.
      rms: The root mean square of each layer's update, before the learning rate.

    Returns:
      A stateless transformation. An update of zeros stays zeros.

    Raises:
      ValueError: ``rms`` is not positive.
    """
    check_layers(layers)
    check_number("rms", rms, strict=True, schedule=False)

    def update_fn(updates: optax.Updates, params: Any = None) -> optax.Updates:
        del params
        return laid_out_like(scaled_updates, partitions_of(updates), updates)

    def scaled_updates(updates: optax.Updates) -> optax.Updates:
        leaves = Leaves(updates)
        changed = {}
        for spec in layers.values():
            if any(path not in leaves for path in spec.shapes):
                continue
            matrix = spec.to_matrix(*(leaves[path] for path in spec.shapes))
            matrix = matrix.astype(spec.statistics_dtype)
            size = jnp.sqrt(jnp.mean(matrix**2, axis=(-2, -1), keepdims=True))
            scaled = matrix * (rms / jnp.where(size > 0, size, 1))
            for path, leaf in zip(spec.shapes, spec.from_matrix(scaled), strict=True):
                changed[path] = leaf.astype(leaves[path].dtype)
        return leaves.replaced(changed)

    return optax.stateless(update_fn)
