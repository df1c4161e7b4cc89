"""Complete optimizers: chains of the transformations, with defaults that were measured."""

import dataclasses
from typing import Any

import optax

from singd_optax._recipe import (
    DEFAULT_DAMPING,
    DEFAULT_REFRESH,
    check_one_size,
    recipe,
)
from singd_optax.layers import Layers, check_layers
from singd_optax.rules import DampingMode, FactorStepNorm, Hyperparameter, InverseMethod
from singd_optax.structures import Dense, Precision
from singd_optax.transforms import (
    Interval,
    damping_schedule,
    scale_by_ikfac,
    scale_by_kfac,
    scale_by_singd,
)

# With 0.03 a deep autoencoder in bfloat16 ends at 20.2, with 0.3 at 13.9 (13.97, 13.84 in float32).
_IKFAC_DAMPING = damping_schedule(0.3)


def singd(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    momentum: float = 0.85,
    nesterov: bool = True,
    weight_decay: Hyperparameter = 1e-4,
    mask: Any = None,
    damping: Hyperparameter = DEFAULT_DAMPING,
    damping_mode: DampingMode = "relative",
    factor_learning_rate: Hyperparameter = 0.5,
    factor_momentum: Hyperparameter = 0.0,
    factor_step_norm: FactorStepNorm = "spectral",
    refresh_every: Interval = DEFAULT_REFRESH,
    consistent_rms: float | None = 0.8,
    kl_clip: Hyperparameter | None = None,
    fallback: optax.GradientTransformation | None = None,
    cache_products: bool = True,
    precision: Precision = "highest",
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """SINGD as a drop-in for AdamW: one learning rate, decoupled weight decay.

    For Kronecker layers: Nesterov momentum of the gradient, SINGD's preconditioner (with
    ``factor_init="statistics"``), the update scaled to one root mean square, decoupled weight
    decay. All other parameters go to ``fallback``. The paper's own order of things is a chain of
    public pieces, see ``scale_by_singd``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      momentum: Decay of the momentum buffer, in [0, 1).
      nesterov: Whether the buffer looks one step ahead, as in ``optax.sgd``.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      damping: λ, in the units of ``damping_mode``; by default ``damping_schedule()``, which falls
        from 1 to 0.03.
      damping_mode: "relative" to the layer's statistics, or "absolute".
      factor_learning_rate: The step on K and C.
      factor_momentum: Momentum of the factors' steps, in [0, 1); at 0, none is kept.
      factor_step_norm: What bounds the factors' steps: "spectral", "max_abs" or None.
      refresh_every: Steps between refreshes, an int or a schedule; by default
        ``refresh_schedule()``: 1, growing to 10 over the first 250 steps.
      consistent_rms: Root mean square of each layer's update before the learning rate; with the
        default, AdamW's learning rates carry over. None keeps the natural gradient's own size.
      kl_clip: A bound on what a step does to the predictions, see ``scale_by_singd``; needs
        ``consistent_rms=None``, since both set the size of the update.
      fallback: For parameters outside ``layers``; default
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 factors, see
        ``scale_by_singd``.
      precision: Of the products on factors.
      seed: Of the random bits with which bfloat16 factors are rounded.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: A hyper-parameter is out of range, or both ``kl_clip`` and ``consistent_rms``
        are given.
      TypeError: ``layers`` or a hyper-parameter is of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model = nn.Sequential([nn.Dense(16), nn.tanh, nn.Dense(1)])
      >>> x = jnp.linspace(-1, 1, 32)[:, None]
      >>> params = model.init(jax.random.key(0), x)
      >>> def loss_fn(params, x):
      ...   return jnp.mean((model.apply(params, x) - jnp.sin(3 * x)) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> tx = singd_optax.singd(0.02, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> @jax.jit
      ... def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> for _ in range(100):
      ...   params, opt_state, value = step(params, opt_state, x)
      >>> bool(value < 0.02)
      True
    """
    check_one_size(kl_clip, consistent_rms)
    scale = scale_by_singd(
        layers,
        damping=damping,
        damping_mode=damping_mode,
        factor_learning_rate=factor_learning_rate,
        factor_momentum=factor_momentum,
        factor_step_norm=factor_step_norm,
        factor_init="statistics",
        refresh_every=refresh_every,
        kl_clip=kl_clip,
        kl_learning_rate=1.0 if kl_clip is None else learning_rate,
        cache_products=cache_products,
        precision=precision,
        seed=seed,
    )
    return recipe(
        scale,
        layers,
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        mask=mask,
        consistent_rms=consistent_rms,
        fallback=fallback,
    )


def ingd(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    momentum: float = 0.85,
    nesterov: bool = True,
    weight_decay: Hyperparameter = 1e-4,
    mask: Any = None,
    damping: Hyperparameter = DEFAULT_DAMPING,
    damping_mode: DampingMode = "relative",
    factor_learning_rate: Hyperparameter = 0.5,
    factor_momentum: Hyperparameter = 0.0,
    factor_step_norm: FactorStepNorm = "spectral",
    refresh_every: Interval = DEFAULT_REFRESH,
    consistent_rms: float | None = 0.8,
    kl_clip: Hyperparameter | None = None,
    fallback: optax.GradientTransformation | None = None,
    cache_products: bool = True,
    precision: Precision = "highest",
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """INGD: SINGD with dense factors (arXiv 2302.09738).

    Args:
      learning_rate: As for ``singd``, and so are all others.
      layers: From ``find_layers`` with dense structures.
      momentum: As for ``singd``.
      nesterov: As for ``singd``.
      weight_decay: As for ``singd``.
      mask: As for ``singd``.
      damping: As for ``singd``.
      damping_mode: As for ``singd``.
      factor_learning_rate: As for ``singd``.
      factor_momentum: As for ``singd``.
      factor_step_norm: As for ``singd``.
      refresh_every: As for ``singd``.
      consistent_rms: As for ``singd``.
      kl_clip: As for ``singd``.
      fallback: As for ``singd``.
      cache_products: As for ``singd``.
      precision: As for ``singd``.
      seed: As for ``singd``.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: A structure is not dense, or a hyper-parameter is out of range.
    """
    check_layers(layers)
    # Where the layer allows it: K of an embedding is diagonal, as its second moment is.
    dense = (Dense(), Dense())
    other = [
        spec.path
        for spec in layers.values()
        if spec.structures != dataclasses.replace(spec, structures=dense).structures
    ]
    if other:
        raise ValueError(
            f"INGD has dense factors, got other structures for the layers {other}. Find layers "
            "with structures='dense', or use singd, which takes all structures."
        )
    return singd(
        learning_rate,
        layers,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        mask=mask,
        damping=damping,
        damping_mode=damping_mode,
        factor_learning_rate=factor_learning_rate,
        factor_momentum=factor_momentum,
        factor_step_norm=factor_step_norm,
        refresh_every=refresh_every,
        consistent_rms=consistent_rms,
        kl_clip=kl_clip,
        fallback=fallback,
        cache_products=cache_products,
        precision=precision,
        seed=seed,
    )


def ikfac(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    momentum: float = 0.85,
    nesterov: bool = True,
    weight_decay: Hyperparameter = 1e-4,
    mask: Any = None,
    damping: Hyperparameter = _IKFAC_DAMPING,
    damping_mode: DampingMode = "relative",
    factor_learning_rate: Hyperparameter = 0.5,
    factor_step_norm: FactorStepNorm = "spectral",
    refresh_every: Interval = DEFAULT_REFRESH,
    consistent_rms: float | None = 0.8,
    kl_clip: Hyperparameter | None = None,
    fallback: optax.GradientTransformation | None = None,
    cache_products: bool = True,
    precision: Precision = "highest",
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """IKFAC, KFAC without inverses, in the recipe of ``singd``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      momentum: As for ``singd``.
      nesterov: As for ``singd``.
      weight_decay: As for ``singd``.
      mask: As for ``singd``.
      damping: λ, in the units of ``damping_mode``; by default ``damping_schedule(0.3)``, which
        falls from 1 to 0.3: each side is damped by itself, while ``singd``'s λ is of both.
      damping_mode: "relative" to the mean trace of each factor's own statistic, or "absolute".
      factor_learning_rate: The step on K and C.
      factor_step_norm: What bounds the factors' steps: "spectral", "max_abs" or None.
      refresh_every: As for ``singd``.
      consistent_rms: As for ``singd``.
      kl_clip: As for ``singd``.
      fallback: As for ``singd``.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 factors, see
        ``scale_by_singd``.
      precision: Of the products on factors.
      seed: Of the random bits with which bfloat16 factors are rounded.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: A hyper-parameter is out of range.
      TypeError: ``layers`` or a hyper-parameter is of another type.
    """
    check_one_size(kl_clip, consistent_rms)
    scale = scale_by_ikfac(
        layers,
        damping=damping,
        damping_mode=damping_mode,
        factor_learning_rate=factor_learning_rate,
        factor_step_norm=factor_step_norm,
        factor_init="statistics",
        refresh_every=refresh_every,
        kl_clip=kl_clip,
        kl_learning_rate=1.0 if kl_clip is None else learning_rate,
        cache_products=cache_products,
        precision=precision,
        seed=seed,
    )
    return recipe(
        scale,
        layers,
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        mask=mask,
        consistent_rms=consistent_rms,
        fallback=fallback,
    )


def kfac(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    momentum: float = 0.85,
    nesterov: bool = True,
    weight_decay: Hyperparameter = 1e-4,
    mask: Any = None,
    damping: Hyperparameter = DEFAULT_DAMPING,
    damping_mode: DampingMode = "relative",
    factor_learning_rate: Hyperparameter = 0.05,
    inverse_method: InverseMethod = "cholesky",
    inverse_every: int = 1,
    refresh_every: Interval = DEFAULT_REFRESH,
    kl_clip: Hyperparameter | None = None,
    consistent_rms: float | None = 0.8,
    fallback: optax.GradientTransformation | None = None,
    precision: Precision = "highest",
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """KFAC, with inverses, in the recipe of ``singd``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``; structures dense, diagonal or block-diagonal.
      momentum: As for ``singd``.
      nesterov: As for ``singd``.
      weight_decay: As for ``singd``.
      mask: As for ``singd``.
      damping: λ > 0, as for ``singd``, in the units of ``damping_mode``.
      damping_mode: "relative" to the mean traces of the averaged moments, or "absolute".
      factor_learning_rate: The weight of a new statistic in the averages.
      inverse_method: "cholesky" or "eigh", see ``scale_by_kfac``.
      inverse_every: At least this many steps between inversions.
      refresh_every: As for ``singd``.
      kl_clip: A bound on what a step does to the predictions, see ``scale_by_kfac``; needs
        ``consistent_rms=None``, since both set the size of the update.
      consistent_rms: As for ``singd``.
      fallback: As for ``singd``.
      precision: Of the products on factors.
      seed: Of the random bits with which bfloat16 inverses are rounded.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: A hyper-parameter is out of range, or both ``kl_clip`` and ``consistent_rms``
        are given.
      TypeError: ``layers`` or a hyper-parameter is of another type.
    """
    check_one_size(kl_clip, consistent_rms)
    scale = scale_by_kfac(
        layers,
        damping=damping,
        damping_mode=damping_mode,
        factor_learning_rate=factor_learning_rate,
        inverse_method=inverse_method,
        inverse_every=inverse_every,
        refresh_every=refresh_every,
        kl_clip=kl_clip,
        kl_learning_rate=1.0 if kl_clip is None else learning_rate,
        precision=precision,
        seed=seed,
    )
    return recipe(
        scale,
        layers,
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        mask=mask,
        consistent_rms=consistent_rms,
        fallback=fallback,
    )
