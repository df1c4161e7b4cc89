"""The published algorithms as optax transformations."""

import optax

from singd_optax.layers import Layers
from singd_optax.rules import IKFAC, SINGD, DampingMode, FactorInit, FactorStepNorm, Hyperparameter
from singd_optax.structures import Precision
from singd_optax.transforms._curvature import scale_by_curvature
from singd_optax.transforms._interval import Interval
from singd_optax.transforms._kl_clip import KLClip


def scale_by_singd(
    layers: Layers,
    *,
    damping: Hyperparameter = 1e-3,
    damping_mode: DampingMode = "absolute",
    factor_learning_rate: Hyperparameter = 1e-2,
    factor_momentum: Hyperparameter = 0.9,
    factor_step_norm: FactorStepNorm = None,
    factor_init: FactorInit = "identity",
    cache_products: bool = False,
    refresh_every: Interval = 1,
    kl_clip: Hyperparameter | None = None,
    kl_learning_rate: Hyperparameter = 1.0,
    precision: Precision = "highest",
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by SINGD's preconditioner: structured, inverse-free natural gradient.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    K Kᵀ G C Cᵀ. K and C approach roots of the inverse curvature by matrix products alone; the
    equations are in ``singd_optax.rules.SINGD``. With dense structures this is INGD.

    Parameters outside ``layers`` pass through unchanged. The algorithm of the paper is
    ``optax.chain(scale_by_singd(layers), optax.add_decayed_weights(weight_decay),
    optax.trace(momentum), optax.scale_by_learning_rate(learning_rate))``; ``singd_optax.singd``
    is a recipe with defaults for practice.

    Args:
      layers: From ``find_layers``.
      damping: λ, a number >= 0 or a schedule.
      damping_mode: "absolute", or "relative" to the product of the mean traces of this layer's
        statistics, so that the scale of loss and activations drops out.
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_momentum: a1 in [0, 1), or a schedule.
      factor_step_norm: Divide m by max(1, ‖m‖): None, "max_abs" or "spectral".
      factor_init: Where K and C start: "identity", or "statistics", multiples of the identity that
        fit the first statistics, so that the scale of loss and activations drops out.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice
        the memory for half the work of each step.
      refresh_every: Steps between refreshes of K and C, or a schedule step -> int.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144), or None:
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all layers.
      kl_learning_rate: η there, the learning rate that comes after.
      precision: Of all products.
      seed: Of the random bits with which bfloat16 factors are rounded.

    Returns:
      A transformation whose ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: A hyper-parameter is out of range.
      TypeError: ``layers`` or a hyper-parameter is of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="diagonal")
      >>> tx = optax.chain(singd_optax.scale_by_singd(layers), optax.scale_by_learning_rate(0.1))
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      >>> updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      >>> params = optax.apply_updates(params, updates)

    References:
      Lin et al., Structured Inverse-Free Natural Gradient, ICML 2024, arXiv 2312.05705.
      Lin et al., Simplifying Momentum-based Positive-definite Submanifold Optimization (INGD),
      ICML 2023, arXiv 2302.09738.
    """
    rule = SINGD(
        damping=damping,
        damping_mode=damping_mode,
        factor_learning_rate=factor_learning_rate,
        factor_momentum=factor_momentum,
        factor_step_norm=factor_step_norm,
        factor_init=factor_init,
        cache_products=cache_products,
        precision=precision,
    )
    clip = None if kl_clip is None else KLClip(kl_clip, kl_learning_rate)
    return scale_by_curvature(rule, layers, refresh_every=refresh_every, kl_clip=clip, seed=seed)


def scale_by_ikfac(
    layers: Layers,
    *,
    damping: Hyperparameter = 1e-3,
    damping_mode: DampingMode = "absolute",
    factor_learning_rate: Hyperparameter = 1e-2,
    factor_step_norm: FactorStepNorm = None,
    factor_init: FactorInit = "identity",
    cache_products: bool = False,
    refresh_every: Interval = 1,
    kl_clip: Hyperparameter | None = None,
    kl_learning_rate: Hyperparameter = 1.0,
    precision: Precision = "highest",
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by IKFAC's preconditioner: KFAC without inverses.

    As ``scale_by_singd``, but each factor by itself and without momentum: K Kᵀ follows KFAC's
    (S_K + λ I)^-1 up to O(b1²), S_K the moving average of the inputs' second moments with weight
    b1. The equations are in ``singd_optax.rules.IKFAC``.

    Args:
      layers: From ``find_layers``.
      damping: λ, a number >= 0 or a schedule.
      damping_mode: "absolute", or "relative" to the mean trace of each factor's own statistic.
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: Divide m by max(1, ‖m‖): None, "max_abs" or "spectral".
      factor_init: Where K and C start: "identity", or "statistics", multiples of the identity that
        fit the first statistics, so that the scale of loss and activations drops out.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice
        the memory for half the work of each step.
      refresh_every: Steps between refreshes of K and C, or a schedule step -> int.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144), or None:
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all layers.
      kl_learning_rate: η there, the learning rate that comes after.
      precision: Of all products.
      seed: Of the random bits with which bfloat16 factors are rounded.

    Returns:
      A transformation whose ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: A hyper-parameter is out of range.
      TypeError: ``layers`` or a hyper-parameter is of another type.

    References:
      Lin et al., Structured Inverse-Free Natural Gradient, ICML 2024, arXiv 2312.05705, theorem 1.
    """
    rule = IKFAC(
        damping=damping,
        damping_mode=damping_mode,
        factor_learning_rate=factor_learning_rate,
        factor_step_norm=factor_step_norm,
        factor_init=factor_init,
        cache_products=cache_products,
        precision=precision,
    )
    clip = None if kl_clip is None else KLClip(kl_clip, kl_learning_rate)
    return scale_by_curvature(rule, layers, refresh_every=refresh_every, kl_clip=clip, seed=seed)
