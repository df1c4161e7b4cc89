"""IKFAC: inverse-free KFAC, the bridge between KFAC and INGD."""

import dataclasses

import jax

from singd_optax.layers import Factors, LayerSpec, Statistics
from singd_optax.rules._base import (
    DampingMode,
    FactorStepNorm,
    Hyperparameter,
    Rule,
    check_factor_options,
    hyperparameter_at,
    identity_factors,
    kronecker_precondition,
    multiplicative_step,
    store,
)
from singd_optax.structures import Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class IKFAC(Rule):
    """The update of IKFAC (arXiv 2312.05705, figure 1).

    Each factor moves by itself::

        m_K = 1/2 [ H_K + λ Π(KᵀK) - I ],    K <- K (I - b1 m_K)

    and C likewise with H_C. K Kᵀ follows KFAC's (S_K + λ I)^-1, where S_K is the moving average
    of U with weight b1, up to O(b1²) (theorem 1).

    Attributes:
      damping: λ >= 0; in units of Tr U / d_i for K and Tr G / d_o for C if ``damping_mode`` is
        "relative".
      damping_mode: "absolute" (the paper's) or "relative".
      factor_learning_rate: b1 >= 0.
      factor_step_norm: None (the paper's), "max_abs" or "spectral": divide b1 by max(1, ‖m‖).
      precision: Of all products.
    """

    damping: Hyperparameter
    factor_learning_rate: Hyperparameter
    damping_mode: DampingMode = "absolute"
    factor_step_norm: FactorStepNorm = None
    precision: Precision = "highest"

    def __post_init__(self) -> None:
        check_factor_options(
            damping=self.damping,
            damping_mode=self.damping_mode,
            factor_learning_rate=self.factor_learning_rate,
            factor_step_norm=self.factor_step_norm,
        )

    def init(self, spec: LayerSpec) -> tuple[Factors, tuple[()]]:
        """K = C = I, and nothing beside them."""
        return identity_factors(spec), ()

    def refresh(
        self,
        spec: LayerSpec,
        factors: Factors,
        memory: tuple[()],
        statistics: Statistics,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[Factors, tuple[()]]:
        """One step on K and C."""
        damping = hyperparameter_at(self.damping, count)
        step_size = hyperparameter_at(self.factor_learning_rate, count)
        moments = (statistics.H_K, statistics.H_C)
        means = (statistics.mean_U, statistics.mean_G)
        new = []
        for factor, H, mean, name, k in zip(
            factors, moments, means, spec.factor_dtype, jax.random.split(key, 2), strict=True
        ):
            factor = factor.astype(spec.statistics_dtype)
            own_damping = damping * mean if self.damping_mode == "relative" else damping
            damped = H + factor.gram(precision=self.precision) * own_damping
            m = damped.add_identity(-1.0) * 0.5
            step = multiplicative_step(factor, m, step_size, self.factor_step_norm, self.precision)
            new.append(store(step, name, k))
        return Factors(*new), memory

    def precondition(self, factors: Factors, gradient: jax.Array) -> jax.Array:
        """K Kᵀ G C Cᵀ."""
        return kronecker_precondition(factors, gradient, self.precision)
