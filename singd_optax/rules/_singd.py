"""SINGD: structured inverse-free natural gradient descent; INGD is its dense case."""

import dataclasses

import jax
import jax.numpy as jnp

from singd_optax._validate import check_choice, check_flag, check_number
from singd_optax.layers import Factors, LayerSpec, Statistics
from singd_optax.rules._base import (
    FACTOR_INITS,
    DampingMode,
    FactorInit,
    FactorStepNorm,
    Hyperparameter,
    InverseFreeMemory,
    Rule,
    bounded_step,
    cached_products,
    check_factor_options,
    first_scales,
    hyperparameter_at,
    identity_factors,
    kronecker_precondition,
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
        "spectral"; with this one, the momentum is bounded too, and I - b1 m is never singular.
      factor_init: "identity" (the paper's), or "statistics": multiples of the identity that fit
        the first statistics, K = (Tr U / d_i)^-1/2 I, so that the scale of loss and activations
        drops out, and only shape has to be learnt.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice
        the memory for half the work of each step.
      precision: Of all products.
    """

    damping: Hyperparameter
    factor_learning_rate: Hyperparameter
    factor_momentum: Hyperparameter
    damping_mode: DampingMode = "absolute"
    factor_step_norm: FactorStepNorm = None
    factor_init: FactorInit = "identity"
    cache_products: bool = False
    precision: Precision = "highest"

    def __post_init__(self) -> None:
        check_factor_options(
            damping=self.damping,
            damping_mode=self.damping_mode,
            factor_learning_rate=self.factor_learning_rate,
            factor_step_norm=self.factor_step_norm,
            precision=self.precision,
        )
        check_number("factor_momentum", self.factor_momentum, maximum=1, strict_maximum=True)
        check_choice("factor_init", self.factor_init, FACTOR_INITS)
        check_flag("cache_products", self.cache_products)

    def init(self, spec: LayerSpec) -> tuple[Factors, InverseFreeMemory]:
        """K = C = I, and zero momenta."""
        factors = identity_factors(spec)
        momenta = Factors(factors.K * 0, factors.C * 0) if self._has_momentum else None
        started = jnp.zeros(spec.stack_shape, jnp.int32)
        products = cached_products(factors, self.cache_products)
        return factors, InverseFreeMemory(momenta, started, products)

    @property
    def _has_momentum(self) -> bool:
        # A traced value may become another; a plain zero never does, and needs no memory.
        return not (isinstance(self.factor_momentum, int | float) and self.factor_momentum == 0)

    def refresh(
        self,
        spec: LayerSpec,
        factors: Factors,
        memory: InverseFreeMemory,
        statistics: Statistics,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[Factors, InverseFreeMemory]:
        """One step on K and C."""
        dtype = spec.statistics_dtype
        K, C = (matrix.astype(dtype) for matrix in factors)
        H_K, H_C = statistics.H_K, statistics.H_C
        mean_U, mean_G = statistics.mean_U, statistics.mean_G
        damping = hyperparameter_at(self.damping, count)
        if self.damping_mode == "relative":
            damping = damping * mean_U * mean_G
        scales = first_scales(self.factor_init, statistics, memory.started)
        both = (scales[0] * scales[1]) ** 2
        momentum = hyperparameter_at(self.factor_momentum, count)
        fresh = 0.5 if self.factor_step_norm is None else 0.5 * (1 - momentum)

        def direction(
            factor: StructuredMatrix,
            H: StructuredMatrix,
            other: StructuredMatrix,
            other_H: StructuredMatrix,
        ) -> StructuredMatrix:
            other_gram = both * other.frobenius_norm() ** 2 / other.dim
            curvature = H * (both * other_H.average_trace())
            damped = curvature + factor.gram(precision=self.precision) * (damping * other_gram)
            return damped.add_identity(-1.0) * fresh

        directions = [direction(K, H_K, C, H_C), direction(C, H_C, K, H_K)]
        if memory.factor_momenta is not None:
            directions = [
                m.astype(dtype) * momentum + new
                for m, new in zip(memory.factor_momenta, directions, strict=True)
            ]
        step_size = hyperparameter_at(self.factor_learning_rate, count)
        steps = [
            bounded_step(factor, m, step_size, self.factor_step_norm, self.precision)
            for factor, m in zip((K, C), directions, strict=True)
        ]
        stored = [
            store(matrix, name, k)
            for matrix, name, k in zip(
                (
                    *(factor * scale for (factor, _), scale in zip(steps, scales, strict=True)),
                    *(m for _, m in steps),
                ),
                spec.factor_dtype * 2,
                jax.random.split(key, 4),
                strict=True,
            )
        ]
        new = Factors(*stored[:2])
        momenta = None if memory.factor_momenta is None else Factors(*stored[2:])
        started = jnp.ones_like(memory.started)
        return new, InverseFreeMemory(momenta, started, cached_products(new, self.cache_products))

    def precondition(
        self, factors: Factors, gradient: jax.Array, memory: InverseFreeMemory
    ) -> jax.Array:
        """K Kᵀ G C Cᵀ."""
        return kronecker_precondition(factors, gradient, self.precision, memory.products)
