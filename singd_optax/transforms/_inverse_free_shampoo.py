"""Inverse-free Shampoo as an optax transformation."""

from collections.abc import Mapping
from typing import Any

import optax

from singd_optax.layers import MatrixAxes
from singd_optax.rules import (
    DampingMode,
    FactorStepNorm,
    GradientFactorInit,
    Hyperparameter,
    InverseFreeShampoo,
)
from singd_optax.structures import Precision, Structure
from singd_optax.transforms._gradient_rule import scale_by_gradient_rule
from singd_optax.transforms._grafting import Grafting
from singd_optax.transforms._interval import Interval


def scale_by_inverse_free_shampoo(
    *,
    structures: str | Structure | tuple[str | Structure, str | Structure] = "auto",
    damping: Hyperparameter = 0.03,
    damping_mode: DampingMode = "relative",
    factor_learning_rate: Hyperparameter = 0.5,
    factor_momentum: Hyperparameter = 0.5,
    factor_step_norm: FactorStepNorm = "spectral",
    batch_size: Hyperparameter = 1.0,
    factor_init: GradientFactorInit = "gradient",
    factor_dtype: Any = None,
    refresh_every: Interval = 1,
    grafting: Grafting = None,
    matrix_axes: Mapping[str, MatrixAxes | None] | None = None,
    precision: Precision = "highest",
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by structured inverse- and root-free Shampoo, from gradients alone.

    The relative of SINGD for any tree of parameters: no model, no layers, no inverse and no root.
    A gradient G becomes K Kᵀ G C Cᵀ; K and C approach roots of the inverse second moment of the
    gradient by matrix products alone, may have any structure, and may be kept in bfloat16. The
    equations are in ``singd_optax.rules.InverseFreeShampoo``. How arrays make matrices is said
    at ``scale_by_gradient_rule``; scalars and vectors pass through.
    ``singd_optax.inverse_free_shampoo`` is a complete optimizer.

    As nothing takes a root, the update is smaller where gradients are larger: scale it, by
    ``grafting`` or as the complete optimizer does.

    Args:
      structures: Of (K, C): rows, that is inputs, and columns; as for ``find_layers``.
      damping: λ, a number >= 0 or a schedule.
      damping_mode: "relative" to the mean square of the gradient, or "absolute".
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_momentum: a1 in [0, 1), or a schedule.
      factor_step_norm: Divide b1 by max(1, ‖m‖): None, "max_abs" or "spectral".
      batch_size: For a loss that is a mean over examples, their number: squares of a mean gradient
        are that much smaller than the curvature that they stand for. It is of no effect on the
        direction where damping is relative, and only scales it.
      factor_init: "gradient" gives K and C the size that fits the first gradient; "identity" is
        the paper's.
      factor_dtype: Of K and C, one or a pair; None for float32 (float64 for float64 parameters).
      refresh_every: Steps between refreshes of K and C, or a schedule step -> int.
      grafting: Whose step's norm each parameter's update gets: None, "sgd", "rmsprop", "adam".
      matrix_axes: Which axes are rows and columns, by regular expressions on paths.
      precision: Of all products.
      seed: Of the random bits with which bfloat16 factors are rounded.

    Returns:
      A transformation; its state counts refreshes that were skipped, in ``failed_refreshes``.

    Raises:
      ValueError: A hyper-parameter is out of range.
      TypeError: A hyper-parameter is of another type.

    References:
      Lin et al., Can We Remove the Square-Root in Adaptive Gradient Methods? A Second-Order
      Perspective, ICML 2024, arXiv 2402.03496.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> tx = optax.chain(
      ...   singd_optax.scale_by_inverse_free_shampoo(structures="diagonal", grafting="sgd"),
      ...   optax.scale_by_learning_rate(0.1))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> opt_state = tx.init(params)
      >>> updates, opt_state = tx.update(params, opt_state, params)
      >>> round(float(optax.tree.norm(updates["kernel"])), 4)
      0.2449
    """
    rule = InverseFreeShampoo(
        damping=damping,
        damping_mode=damping_mode,
        factor_learning_rate=factor_learning_rate,
        factor_momentum=factor_momentum,
        factor_step_norm=factor_step_norm,
        batch_size=batch_size,
        factor_init=factor_init,
        precision=precision,
    )
    return scale_by_gradient_rule(
        rule,
        structures=structures,
        factor_dtype=factor_dtype,
        matrix_axes=matrix_axes,
        refresh_every=refresh_every,
        grafting=grafting,
        seed=seed,
    )
