"""SINGD: structured inverse-free natural gradient descent; INGD is its dense case."""

import dataclasses

import jax

from singd_optax._validate import check_number
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
from singd_optax.structures import Precision, StructuredMatrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class SINGD(Rule):
    """The update of SINGD (arXiv 2312.05705, figure 1; arXiv 2302.09738 for dense factors).

    With Π the projection onto a structure, H_K = Π(Kᵀ U K), H_C = Π(Cᵀ G C)::

        m_K <- a1 m_K + 1/2 [ (Tr H_C / d_o) H_K + λ (Tr CᵀC / d_o) Π(KᵀK) - I ]
        m_C <- a1 m_C + 1/2 [ (Tr H_K / d_i) H_C + λ (Tr KᵀK / d_i) Π(CᵀC) - I ]
        K   <- K (I - b1 m_K),    C <- C (I - b1 m_C)

    where all right-hand sides have the old K and C. With a step norm, the fresh term (the
    bracket) is scaled by 1 - a1, and b1 divided by max(1, ‖m‖), for each factor.

    Attributes:
      damping: λ >= 0; in units of (Tr U / d_i)(Tr G / d_o) if ``damping_mode`` is "relative".
      damping_mode: "absolute" (the paper's) or "relative".
      factor_learning_rate: b1 >= 0.
      factor_momentum: a1 in [0, 1).
      factor_step_norm: None (the paper's), "max_abs" (the reference implementation's option) or
        "spectral".
      precision: Of all products.
    """

    damping: Hyperparameter
    factor_learning_rate: Hyperparameter
    factor_momentum: Hyperparameter
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
        check_number("factor_momentum", self.factor_momentum, maximum=1, strict_maximum=True)

    def init(self, spec: LayerSpec) -> tuple[Factors, Factors]:
        """K = C = I, and zero momenta (m_K, m_C) beside them."""
        factors = identity_factors(spec)
        return factors, Factors(factors.K * 0, factors.C * 0)

    def refresh(
        self,
        spec: LayerSpec,
        factors: Factors,
        memory: Factors,
        statistics: Statistics,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[Factors, Factors]:
        """One step on K and C."""
        dtype = spec.statistics_dtype
        K, C, m_K, m_C = (matrix.astype(dtype) for matrix in (*factors, *memory))
        H_K, H_C = statistics.H_K, statistics.H_C
        mean_U, mean_G = statistics.mean_U, statistics.mean_G
        damping = hyperparameter_at(self.damping, count)
        if self.damping_mode == "relative":
            damping = damping * mean_U * mean_G

        def direction(
            m: StructuredMatrix,
            factor: StructuredMatrix,
            H: StructuredMatrix,
            other: StructuredMatrix,
            other_H: StructuredMatrix,
        ) -> StructuredMatrix:
            momentum = hyperparameter_at(self.factor_momentum, count)
            fresh = 0.5 if self.factor_step_norm is None else 0.5 * (1 - momentum)
            other_gram = other.frobenius_norm() ** 2 / other.dim
            curvature = H * other_H.average_trace()
            damped = curvature + factor.gram(precision=self.precision) * (damping * other_gram)
            return m * momentum + damped.add_identity(-1.0) * fresh

        new_m = Factors(direction(m_K, K, H_K, C, H_C), direction(m_C, C, H_C, K, H_K))
        step_size = hyperparameter_at(self.factor_learning_rate, count)
        new = Factors(
            *(
                multiplicative_step(factor, m, step_size, self.factor_step_norm, self.precision)
                for factor, m in zip((K, C), new_m, strict=True)
            )
        )
        keys = jax.random.split(key, 4)
        names = spec.factor_dtype
        stored = [
            store(matrix, name, k)
            for matrix, name, k in zip((*new, *new_m), names * 2, keys, strict=True)
        ]
        return Factors(*stored[:2]), Factors(*stored[2:])

    def precondition(self, factors: Factors, gradient: jax.Array) -> jax.Array:
        """K Kᵀ G C Cᵀ."""
        return kronecker_precondition(factors, gradient, self.precision)
