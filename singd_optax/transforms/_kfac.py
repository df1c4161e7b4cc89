"""KFAC as an optax transformation."""

import optax

from singd_optax.layers import Layers
from singd_optax.rules import KFAC, DampingMode, Hyperparameter, InverseMethod
from singd_optax.structures import Precision
from singd_optax.transforms._curvature import scale_by_curvature
from singd_optax.transforms._interval import Interval
from singd_optax.transforms._kl_clip import KLClip


def scale_by_kfac(
    layers: Layers,
    *,
    damping: Hyperparameter = 1e-3,
    damping_mode: DampingMode = "absolute",
    factor_learning_rate: Hyperparameter = 0.05,
    bias_correction: bool = True,
    use_pi: bool = True,
    inverse_method: InverseMethod = "cholesky",
    inverse_every: int = 1,
    refresh_every: Interval = 1,
    kl_clip: Hyperparameter | None = None,
    kl_learning_rate: Hyperparameter = 1.0,
    precision: Precision = "highest",
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by KFAC's preconditioner: the method that SINGD makes inverse-free.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K + π √λ I)^-1 G (S_C + √λ / π I)^-1, with S_K and S_C moving averages of the second moments
    of inputs and output gradients. The equations are in ``singd_optax.rules.KFAC``.

    Args:
      layers: From ``find_layers``; structures dense, diagonal or block-diagonal.
      damping: λ, a number > 0 or a schedule.
      damping_mode: "absolute", or "relative" to the product of the mean traces of S_K and S_C.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1].
      bias_correction: Whether averages start at 0 and are corrected for it; else they start at I.
      use_pi: Whether the damping is shared out by the traces.
      inverse_method: "cholesky", or "eigh", which damps the product and not the factors.
      inverse_every: At least this many steps between inversions, on steps that refresh.
      refresh_every: Steps between statistics, or a schedule step -> int.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144), or None:
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all layers.
      kl_learning_rate: η there, the learning rate that comes after.
      precision: Of all products.
      seed: Of the random bits with which bfloat16 inverses are rounded.

    Returns:
      A transformation whose ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: A hyper-parameter is out of range; from ``init``: a structure has no inverse.
      TypeError: ``layers`` or a hyper-parameter is of another type.

    References:
      Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate
      Curvature, ICML 2015, arXiv 1503.05671.
    """
    rule = KFAC(
        damping=damping,
        damping_mode=damping_mode,
        factor_learning_rate=factor_learning_rate,
        bias_correction=bias_correction,
        use_pi=use_pi,
        inverse_method=inverse_method,
        inverse_every=inverse_every,
        precision=precision,
    )
    clip = None if kl_clip is None else KLClip(kl_clip, kl_learning_rate)
    return scale_by_curvature(rule, layers, refresh_every=refresh_every, kl_clip=clip, seed=seed)
