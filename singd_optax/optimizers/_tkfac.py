"""TKFAC: a Kronecker product with the Fisher's own trace."""

import dataclasses
from typing import ClassVar, Self

import jax
import optax

from singd_optax.layers import Layers
from singd_optax.measures import NO_MOMENTS, Cross, Measure, Statistics
from singd_optax.optimizers._kfac import KFAC, AnyState
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import Hyperparameter, MatrixView
from singd_optax.structures import StructuredMatrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class TKFAC(KFAC):
    """TKFAC: the Kronecker product with the partial traces of the Fisher (arXiv 2011.10741).

    For inputs a and output gradients g of a layer, with π as in ``KFAC``::

        S_K <- (1 - b1) S_K + b1 E[|g|² a aᵀ],    S_C <- (1 - b1) S_C + b1 E[|a|² g gᵀ]
        ∇   -> (S_K / √t + π √λ I)^-1 ∇ (S_C / √t + √λ / π I)^-1,    t = Tr S_K = Tr S_C

    S_K and S_C are the two partial traces of the Fisher matrix F = E[(a aᵀ) ⊗ (g gᵀ)]. The product
    S_K ⊗ S_C / t has both of them, and so the trace of F. KFAC's U ⊗ G has not, unless inputs and
    gradients are independent, where the two methods are the same. In the paper's words the product
    is δ Φ ⊗ Ψ with δ = t. What is averaged is S_K and S_C, before the division, so that this holds
    for averages, too. State and options are those of ``KFAC``, without "cg".
    """

    methods: ClassVar[tuple[str, ...]] = ("cholesky", "root", "eigh")

    @classmethod
    def paper(cls, damping: Hyperparameter = 1e-3) -> Self:
        """Absolute damping, √λ I on both sides.

        Args:
          damping: The damping λ, a number > 0 or a schedule.
        """
        return cls(damping=damping, damping_mode="absolute", use_pi=False)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The cross moments E[|g|² a aᵀ] and E[|a|² g gᵀ]."""
        return NO_MOMENTS, Cross()

    def refresh(
        self,
        view: MatrixView,
        state: AnyState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[AnyState, bool]:
        """KFAC's refresh, with the cross moments."""
        assert statistics is not None
        cross = statistics.value_of(Cross())
        own = statistics._replace(H_K=cross.K, H_C=cross.C)
        return super().refresh(view, state, own, gradient, count, key)

    def _scaled(
        self, S_K: StructuredMatrix, S_C: StructuredMatrix
    ) -> tuple[StructuredMatrix, StructuredMatrix]:
        # The two traces are one number but for rounding, and for averages that start at I.
        total = S_K.average_trace() * S_K.dim, S_C.average_trace() * S_C.dim
        scale = total[0] ** -0.25 * total[1] ** -0.25  # their product may be out of range
        return S_K * scale, S_C * scale


@shows_scaling_of(TKFAC)
def scale_by_tkfac(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by TKFAC's preconditioner: a Kronecker product with the Fisher's own trace.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K / √t + π √λ I)^-1 G (S_C / √t + √λ / π I)^-1, where S_K and S_C are averages of the partial
    traces of the Fisher matrix, t is the trace of both, λ is the damping, and π divides it.

    References:
      Gao et al., A Trace-restricted Kronecker-Factored Approximation to Natural Gradient,
      AAAI 2021, arXiv 2011.10741.
    """
    return scaling_of(scale_by_tkfac, TKFAC, layers, options)


@shows_recipe_of(TKFAC)
def tkfac(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """TKFAC in the place of AdamW: KFAC whose Kronecker product has the Fisher's own trace.

    Take it where the sizes of inputs and of output gradients depend on each other; where they do
    not, it is ``kfac``, for a little more work. Gao et al., AAAI 2021, arXiv 2011.10741.
    """
    return optimizer_of(tkfac, TKFAC, learning_rate, layers, options)
