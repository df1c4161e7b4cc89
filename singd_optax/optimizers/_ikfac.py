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
      K: The factor of the inputs, fan_in x fan_in in its structure.
      C: The factor of the outputs, fan_out x fan_out in its structure.
      product_K: K Kᵀ, or None if it is not kept.
      product_C: C Cᵀ, or None if it is not kept.
      started: Whether the factors were refreshed at all: int32, 0 or 1.
    """

    K: RowFactor
    C: ColumnFactor
    product_K: RowProduct
    product_C: ColumnProduct
    started: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class IKFAC(InverseFree):
    """IKFAC: KFAC whose inverses come from matrix products alone (arXiv 2312.05705, figure 1).

    Let U (d_i x d_i) and G (d_o x d_o) be the second moments of a layer's inputs and output
    gradients, Π the projection onto a structure, and H_K = Π(Kᵀ U K). A refresh moves each factor
    by itself, and each step multiplies the gradient ∇ (d_i x d_o) by both::

        m_K = 1/2 [ H_K + λ Π(KᵀK) - I ],    K <- K (I - b1 m_K)
        ∇ -> K Kᵀ ∇ C Cᵀ

    C moves likewise, with H_C = Π(Cᵀ G C). K Kᵀ follows KFAC's (S_K + λ I)^-1 up to O(b1²), where
    S_K is the moving average of U with weight b1 (theorem 1).

    Attributes:
      damping: λ, what is added to the curvature of each side, in the units of ``damping_mode``: a
        number >= 0 or a schedule. The default ``damping_schedule(0.3)`` falls from 1 to 0.3. With
        0.03 in the end the loss of a deep autoencoder in bfloat16 was 20.2, and with 0.3 it was
        13.9 (in float32 13.97 and 13.84).
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by Tr U / d_i for
        K, and by Tr G / d_o for C. None is "relative" if ``factor_step_norm`` is "spectral", else
        "absolute".
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics. None is "statistics" if ``factor_step_norm`` is
        "spectral", else "identity".
    """

    damping: Hyperparameter = damping_schedule(0.3)
    damping_mode: DampingMode | None = None
    factor_init: FactorInit | None = None

    State: ClassVar[type] = IKFACState

    @classmethod
    def paper(
        cls, damping: Hyperparameter = 1e-3, factor_learning_rate: Hyperparameter = 1e-2
    ) -> Self:
        """The rule of the paper: absolute damping, K = C = I at first, and steps without a bound.

        Args:
          damping: The damping λ, a number >= 0 or a schedule.
          factor_learning_rate: The step b1 on K and C, a number >= 0 or a schedule.
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
        """The moments H_K and H_C."""
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

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    K Kᵀ G C Cᵀ. K Kᵀ follows KFAC's inverse (S_K + λ I)^-1, where S_K is the moving average of the
    inputs' second moment, by matrix products alone; C Cᵀ is alike for output gradients.

    References:
      Lin et al., Structured Inverse-Free Natural Gradient, ICML 2024, arXiv 2312.05705, theorem 1.
    """
    return scaling_of(scale_by_ikfac, IKFAC, layers, options)


@shows_recipe_of(IKFAC)
def ikfac(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """IKFAC in the place of AdamW: KFAC without inverses, each side of a layer by itself.

    It lies between ``kfac``, which it follows for small steps of its factors, and ``singd``, whose
    two factors depend on each other: take it to compare them. Lin et al., ICML 2024, arXiv
    2312.05705.
    """
    return optimizer_of(ikfac, IKFAC, learning_rate, layers, options)
