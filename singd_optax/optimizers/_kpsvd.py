"""KPSVD: the Kronecker product that is nearest to the Fisher."""

import dataclasses

import jax
import optax

from singd_optax.layers import Layers
from singd_optax.measures import NO_MOMENTS, Cross, Measure, Statistics
from singd_optax.measures._cross import norm_of
from singd_optax.optimizers._kfac import KFAC, AnyState
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import Hyperparameter, MatrixView
from singd_optax.structures import StructuredMatrix

CROSS = Cross(weighted_by=("S_K", "S_C"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class KPSVD(KFAC):
    """The update of KPSVD (arXiv 2201.10285).

    One step of a power iteration for the Kronecker product R ⊗ S that is nearest to the Fisher
    F = E[(a aᵀ) ⊗ (g gᵀ)] in the Frobenius norm, at each refresh, from where the last one ended::

        S_K <- (1 - b1) S_K + b1 E[(gᵀ S_C g) a aᵀ] / ‖S_C‖
        S_C <- (1 - b1) S_C + b1 E[(aᵀ S_K a) g gᵀ] / ‖S_K‖
        natural gradient = (S_K / √σ + π √λ I)^-1 ∇ (S_C / √σ + √λ / π I)^-1

    where both right-hand sides have the old S_K and S_C, which start at I, and σ = (‖S_K‖
    ‖S_C‖)^1/2, which tends to the leading singular value of F with its axes rearranged. Both
    factors stay positive semi-definite. The first refresh is, but for a factor, that of ``TKFAC``.
    π is as in ``KFAC``, and the state is KFAC's.
    """

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Cross moments, weighted by the factors so far."""
        return NO_MOMENTS, CROSS

    def init(self, view: MatrixView) -> AnyState:
        """Inverses I, and S_K = S_C = I, as weights."""
        S_K, S_C = (
            structure.eye(dim, view.statistics_dtype, view.stack_shape)
            for structure, dim in zip(view.structures, view.dims, strict=True)
        )
        return super().init(view)._replace(S_K=S_K, S_C=S_C)

    def refresh(
        self,
        view: MatrixView,
        state: AnyState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[AnyState, bool]:
        """As KFAC's, with weighted cross moments."""
        assert statistics is not None
        cross = statistics.value_of(CROSS)
        if self.bias_correction:  # then averages start at 0, and weights at I
            started = (state.averaged > 0).astype(view.statistics_dtype)
            state = state._replace(S_K=state.S_K * started, S_C=state.S_C * started)
        own = statistics._replace(H_K=cross.K, H_C=cross.C)
        return super().refresh(view, state, own, gradient, count, key)

    def _inverted(
        self,
        view: MatrixView,
        state: AnyState,
        S_K: StructuredMatrix,
        S_C: StructuredMatrix,
        count: jax.Array,
    ) -> AnyState:
        # The root of each norm by itself: their product may be out of range.
        scale = norm_of(S_K) ** -0.25 * norm_of(S_C) ** -0.25
        return super()._inverted(view, state, S_K * scale, S_C * scale, count)


@shows_scaling_of(KPSVD)
def scale_by_kpsvd(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by KPSVD's preconditioner: the Kronecker product nearest to the Fisher.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K / √σ + π √λ I)^-1 G (S_C / √σ + √λ / π I)^-1. The equations are in
    ``singd_optax.optimizers.KPSVD``; parameters outside ``layers`` pass through unchanged.

    References:
      Koroko et al., Efficient Approximations of the Fisher Matrix in Neural Networks using
      Kronecker Product Singular Value Decomposition, 2022, arXiv 2201.10285.
    """
    return scaling_of(scale_by_kpsvd, KPSVD, layers, options)


@shows_recipe_of(KPSVD)
def kpsvd(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """KPSVD, the Kronecker product nearest to the Fisher, as a drop-in for AdamW."""
    return optimizer_of(kpsvd, KPSVD, learning_rate, layers, options)
