"""Updates of one size for every matrix, whatever the optimizer that made them."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from singd_optax._validate import check_number
from singd_optax.layers import (
    Leaves,
    MatrixAxes,
    check_matrix_axes,
    laid_out_like,
    matrix_specs,
    partitions_of,
)


def scale_by_matrix_rms(
    rms: float = 0.2, *, matrix_axes: Mapping[str, MatrixAxes | None] | None = None
) -> optax.GradientTransformation:
    """Scale the update of each matrix-shaped parameter to one root mean square.

    As ``scale_by_consistent_rms``, for trees without layers. Scalars and vectors pass through;
    the matrices of a stack are scaled one by one.

    Args:
      rms: The root mean square of each matrix's update, before the learning rate.
      matrix_axes: As for ``scale_by_gradient_rule``.

    Returns:
      A stateless transformation. An update of zeros stays zeros.

    Raises:
      ValueError: ``rms`` is not positive.
      TypeError: ``matrix_axes`` is not a mapping.

    >>> tx = scale_by_matrix_rms(0.2)
    >>> updates = {"kernel": jnp.full((2, 2), 7.0), "bias": jnp.ones(2)}
    >>> scaled, _ = tx.update(updates, tx.init(updates))
    >>> round(float(jnp.sqrt(jnp.mean(scaled["kernel"] ** 2))), 4)
    0.2
    """
    check_number("rms", rms, strict=True, schedule=False)
    check_matrix_axes(matrix_axes)

    def update_fn(updates: optax.Updates, params: Any = None) -> optax.Updates:
        del params
        return laid_out_like(scaled_updates, partitions_of(updates), updates)

    def scaled_updates(updates: optax.Updates) -> optax.Updates:
        leaves = Leaves(updates)
        changed = {}
        for path, spec in matrix_specs(leaves, structures="auto", matrix_axes=matrix_axes).items():
            matrix = spec.to_matrix(leaves[path]).astype(spec.statistics_dtype)
            size = jnp.sqrt(jnp.mean(matrix**2, axis=(-2, -1), keepdims=True))
            scaled = matrix * (rms / jnp.where(size > 0, size, 1))
            changed[path] = spec.from_matrix(scaled).astype(leaves[path].dtype)
        return leaves.replaced(changed)

    return optax.stateless(update_fn)
