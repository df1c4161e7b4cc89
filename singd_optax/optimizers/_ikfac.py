"""IKFAC: inverse-free KFAC, the bridge between KFAC and INGD."""

import dataclasses
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_choice, check_number
from singd_optax.layers import Layers
from singd_optax.measures import Measure, Statistics
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.optimizers._singd import FactorInit
from singd_optax.rules import (
    ColumnFactor,
    ColumnProduct,
    Counter,
    DampingMode,
    Hyperparameter,
    InverseFree,
    MatrixView,
    RowFactor,
    RowProduct,
    hyperparameter_at,
)
from singd_optax.rules._inverse_free import (
    WHITENED,
    FactorStep,
    first_scales,
    identity_pair,
)
from singd_optax.transforms import damping_schedule


class IKFACState(NamedTuple):
    """What IKFAC keeps of a layer.

    Attributes:
      K: Of the inputs.
      C: Of the outputs.
      product_K: K Kᵀ, or None if it is not kept.
      product_C: C Cᵀ.
      started: Whether the factors were refreshed at all: int32, 0 or 1.
    """

    K: RowFactor
    C: ColumnFactor
    product_K: RowProduct
    product_C: ColumnProduct
    started: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class IKFAC(InverseFree):
    """The update of IKFAC (arXiv 2312.05705, figure 1).

    Each factor moves by itself::

        m_K = 1/2 [ H_K + λ Π(KᵀK) - I ],    K <- K (I - b1 m_K)
        G -> K Kᵀ G C Cᵀ

    and C likewise with H_C. K Kᵀ follows KFAC's (S_K + λ I)^-1, where S_K is the moving average
    of U with weight b1, up to O(b1²) (theorem 1).

    Attributes:
      damping: λ of each side, a number >= 0 or a schedule; by default ``damping_schedule(0.3)``,
        which falls from 1 to 0.3. With 0.03 a deep autoencoder in bfloat16 ended at 20.2, with 0.3
        at 13.9 (13.97 and 13.84 in float32).
      damping_mode: "absolute" (the paper's), or "relative" to Tr U / d_i for K and Tr G / d_o for
        C. None is "relative" with a spectral step norm, else "absolute".
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics. None is "statistics" with a spectral step norm,
        else "identity".
    """

    damping: Hyperparameter = damping_schedule(0.3)
    damping_mode: DampingMode | None = None
    factor_init: FactorInit | None = None

    State: ClassVar[type] = IKFACState

    @classmethod
    def paper(
        cls, damping: Hyperparameter = 1e-3, factor_learning_rate: Hyperparameter = 1e-2
    ) -> Self:
        """The algorithm of the paper: absolute damping, from K = C = I, with unbounded steps.

        Args:
          damping: λ.
          factor_learning_rate: b1.
        """
        return cls(
            damping=damping,
            damping_mode="absolute",
            factor_learning_rate=factor_learning_rate,
            factor_step_norm=None,
            factor_init="identity",
            cache_products=False,
            direction_precision=None,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("damping", self.damping)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative", None))
        check_choice("factor_init", self.factor_init, ("identity", "statistics", None))

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Moments, whitened by K and C."""
        return WHITENED

    def init(self, view: MatrixView) -> IKFACState:
        """K = C = I."""
        K, C = identity_pair(view)
        products = self.products(view, K, C)
        return IKFACState(K, C, *products, jnp.zeros(view.stack_shape, jnp.int32))

    def factor_step(
        self,
        view: MatrixView,
        state: IKFACState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
    ) -> FactorStep:
        """The directions of the docstring."""
        assert statistics is not None
        damping = hyperparameter_at(self.damping, count)
        is_ours = self.factor_step_norm == "spectral"
        is_relative = (self.damping_mode or ("relative" if is_ours else "")) == "relative"
        from_statistics = (self.factor_init or ("statistics" if is_ours else "")) == "statistics"
        scales = first_scales(from_statistics, statistics, state.started)
        directions = []
        for factor, H, mean, scale in zip(
            (state.K, state.C),
            (statistics.H_K, statistics.H_C),
            (statistics.mean_U, statistics.mean_G),
            scales,
            strict=True,
        ):
            own_damping = damping * mean if is_relative else damping
            damping_term = factor.gram(precision=self.precision) * (own_damping * scale**2)
            directions.append((H * scale**2 + damping_term).add_identity(-1.0) * 0.5)
        return FactorStep(state.K, state.C, directions[0], directions[1], scales)


@shows_scaling_of(IKFAC)
def scale_by_ikfac(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by IKFAC's preconditioner: KFAC without inverses.

    K Kᵀ follows KFAC's (S_K + λ I)^-1 up to O(b1²), S_K the moving average of the inputs' second
    moments with weight b1, and C Cᵀ likewise. The equations are in
    ``singd_optax.optimizers.IKFAC``; parameters outside ``layers`` pass through unchanged.

    References:
      Lin et al., Structured Inverse-Free Natural Gradient, ICML 2024, arXiv 2312.05705, theorem 1.
    """
    return scaling_of(scale_by_ikfac, IKFAC, layers, options)


@shows_recipe_of(IKFAC)
def ikfac(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """IKFAC, KFAC without inverses, as a drop-in for AdamW."""
    return optimizer_of(ikfac, IKFAC, learning_rate, layers, options)
