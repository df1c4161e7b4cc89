"""Updates of one size for every matrix, whatever the optimizer that made them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_number
from singd_optax.layers import (
    Leaves,
    MatrixAxes,
    MatrixSpec,
    check_matrix_axes,
    matrix_specs,
)
from singd_optax.placement import laid_out_like, partitions_of
from singd_optax.rules import Hyperparameter
from singd_optax.transforms._params import check_some_params
from singd_optax.transforms._running_size import scaled_to


class MatrixRMSState(NamedTuple):
    """The state of ``scale_by_matrix_rms``.

    Attributes:
      matrix_rms: Path of a parameter -> the running root mean square of its update, one for each
        matrix of a stack; 0 before the first update.
    """

    matrix_rms: dict[str, jax.Array]


def scale_by_matrix_rms(
    rms: float = 0.2,
    *,
    decay: Hyperparameter = 0.9,
    matrix_axes: Mapping[str, MatrixAxes | None] | None = None,
) -> optax.GradientTransformation:
    """Scale the update of each matrix-shaped parameter to one root mean square.

    As ``scale_by_consistent_rms``, for trees without layers. Scalars and vectors pass through;
    the matrices of a stack are scaled one by one.

    Args:
      rms: The root mean square of each matrix's update, before the learning rate.
      decay: Of the running mean square, as for ``scale_by_consistent_rms``.
      matrix_axes: As for ``scale_by_gradient_rule``.

    Returns:
      A transformation. An update of zeros stays zeros.

    Raises:
      ValueError: ``rms`` is not positive, or ``decay`` out of range. From ``init``: there are no
        parameters.
      TypeError: ``matrix_axes`` is not a mapping, or a number is of another type.

    >>> tx = scale_by_matrix_rms(0.2)
    >>> updates = {"kernel": jnp.full((2, 2), 7.0), "bias": jnp.ones(2)}
    >>> scaled, _ = tx.update(updates, tx.init(updates))
    >>> round(float(jnp.sqrt(jnp.mean(scaled["kernel"] ** 2))), 4)
    0.2
    """
    check_number("rms", rms, strict=True, schedule=False)
    check_number("decay", decay, maximum=1, strict_maximum=True, schedule=False)
    check_matrix_axes(matrix_axes)

    def specs_of(leaves: Leaves) -> dict[str, MatrixSpec]:
        return matrix_specs(leaves, structures="auto", matrix_axes=matrix_axes)

    def init_fn(params: optax.Params) -> MatrixRMSState:
        check_some_params(params)
        leaves = Leaves(params)
        if leaves.is_placeholder:
            # As in ``scale_by_gradient_rule``: nothing here is shaped like a parameter.
            nothing: Any = jnp.zeros([])
            return MatrixRMSState(nothing)
        return MatrixRMSState(
            {
                path: jnp.zeros(spec.stack_shape, spec.statistics_dtype)
                for path, spec in specs_of(leaves).items()
            }
        )

    def update_fn(
        updates: optax.Updates, state: MatrixRMSState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, MatrixRMSState]:
        del params
        return laid_out_like(scaled_updates, partitions_of((updates, state)), updates, state)

    def scaled_updates(
        updates: optax.Updates, state: MatrixRMSState
    ) -> tuple[optax.Updates, MatrixRMSState]:
        leaves = Leaves(updates)
        changed, running = {}, dict(state.matrix_rms)
        for path, spec in specs_of(leaves).items():
            matrix = spec.to_matrix(leaves[path]).astype(spec.statistics_dtype)
            scaled, running[path] = scaled_to(matrix, running[path], rms, decay)
            changed[path] = spec.from_matrix(scaled).astype(leaves[path].dtype)
        return leaves.replaced(changed), MatrixRMSState(running)

    return optax.GradientTransformation(init_fn, update_fn)
