"""TEKFAC: EKFAC in the eigenbases of TKFAC."""

import dataclasses

import jax
import optax

from singd_optax.layers import Layers
from singd_optax.measures import NO_MOMENTS, Cross, Measure, Statistics
from singd_optax.optimizers._ekfac import EKFAC
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import Hyperparameter
from singd_optax.structures import StructuredMatrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class TEKFAC(EKFAC):
    """TEKFAC: EKFAC with the eigenvectors of the Fisher's partial traces (arXiv 2011.13609).

    For inputs a and output gradients g of a layer, with all squares and quotients entry by entry::

        S_K <- (1 - b1) S_K + b1 E[|g|² a aᵀ] = K Diag(.) Kᵀ
        S_C <- (1 - b1) S_C + b1 E[|a|² g gᵀ] = C Diag(.) Cᵀ
        s   <- (1 - b1) s + b1 E[ (Kᵀ a gᵀ C)² ]
        ∇   -> K [ (Kᵀ ∇ C) / (s + λ)^exponent ] Cᵀ

    The two partial traces of the Fisher matrix E[(a aᵀ) ⊗ (g gᵀ)] are in the place of the plain
    second moments of ``EKFAC``. The two methods agree where inputs and gradients are independent.
    """

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Cross moments, and squares in the basis."""
        wanted = NO_MOMENTS, Cross()
        return (*wanted, self.squares) if self.squares else wanted

    def moments(self, statistics: Statistics) -> tuple[StructuredMatrix, StructuredMatrix]:
        """The two partial traces of the Fisher matrix."""
        cross = statistics.value_of(Cross())
        return cross.K, cross.C

    def scales_of_values(
        self, S_K: StructuredMatrix, values_K: jax.Array, values_C: jax.Array
    ) -> jax.Array:
        """The scales of TKFAC: products of eigenvalues over the trace, which is one for both."""
        total = (S_K.average_trace() * S_K.dim)[..., None]
        return super().scales_of_values(S_K, values_K / total, values_C)


@shows_scaling_of(TEKFAC)
def scale_by_tekfac(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by TEKFAC's preconditioner: EKFAC in the eigenbases of TKFAC.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    K [ (Kᵀ G C) / (s + λ) ] Cᵀ, where K and C are the eigenvectors of the Fisher's partial traces,
    and s is the diagonal of the Fisher matrix in their basis.

    References:
      Gao et al., Eigenvalue-corrected Natural Gradient Based on a New Approximation, 2020,
      arXiv 2011.13609.
    """
    return scaling_of(scale_by_tekfac, TEKFAC, layers, options)


@shows_recipe_of(TEKFAC)
def tekfac(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """TEKFAC in the place of AdamW: EKFAC in the eigenbases of TKFAC.

    Take it where ``tkfac`` is better than ``kfac``, as it is to ``tkfac`` what ``ekfac`` is to
    ``kfac``. Gao et al., 2020, arXiv 2011.13609.
    """
    return optimizer_of(tekfac, TEKFAC, learning_rate, layers, options)
