"""IKFAC: inverse-free KFAC, the bridge between KFAC and INGD."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from singd_optax._validate import check_choice, check_flag
from singd_optax.layers import Factors, LayerSpec, Statistics
from singd_optax.rules._base import (
    FACTOR_INITS,
    DampingMode,
    FactorInit,
    FactorStepNorm,
    Hyperparameter,
    Products,
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
from singd_optax.structures import Precision


class IKFACMemory(NamedTuple):
    """What IKFAC keeps beside the factors.

    Attributes:
      started: Whether the factors were refreshed at all: int32, 0 or 1, of shape ``stack_shape``.
      products: (K Kᵀ, C Cᵀ), or None if none is kept.
    """

    started: jax.Array
    products: Products | None = None


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
      factor_step_norm: None (the paper's), "max_abs" or "spectral": divide m by max(1, ‖m‖).
      factor_init: "identity" (the paper's) or "statistics", as for ``SINGD``.
      cache_products: Whether to keep K Kᵀ and C Cᵀ, as for ``SINGD``.
      precision: Of all products.
    """

    damping: Hyperparameter
    factor_learning_rate: Hyperparameter
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
        check_choice("factor_init", self.factor_init, FACTOR_INITS)
        check_flag("cache_products", self.cache_products)

    def init(self, spec: LayerSpec) -> tuple[Factors, IKFACMemory]:
        """K = C = I."""
        factors = identity_factors(spec)
        products = cached_products(factors, self.cache_products)
        return factors, IKFACMemory(jnp.zeros(spec.stack_shape, jnp.int32), products)

    def refresh(
        self,
        spec: LayerSpec,
        factors: Factors,
        memory: IKFACMemory,
        statistics: Statistics,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[Factors, IKFACMemory]:
        """One step on K and C."""
        damping = hyperparameter_at(self.damping, count)
        step_size = hyperparameter_at(self.factor_learning_rate, count)
        new = []
        for old, H, mean, scale, name, k in zip(
            factors,
            (statistics.H_K, statistics.H_C),
            (statistics.mean_U, statistics.mean_G),
            first_scales(self.factor_init, statistics, memory.started),
            spec.factor_dtype,
            jax.random.split(key, 2),
            strict=True,
        ):
            factor = old.astype(spec.statistics_dtype)
            own_damping = damping * mean if self.damping_mode == "relative" else damping
            damping_term = factor.gram(precision=self.precision) * (own_damping * scale**2)
            m = (H * scale**2 + damping_term).add_identity(-1.0) * 0.5
            step, _ = bounded_step(factor, m, step_size, self.factor_step_norm, self.precision)
            new.append(store(step * scale, name, k))
        kept, started = Factors(*new), jnp.ones_like(memory.started)
        products = cached_products(kept, self.cache_products)
        return kept, IKFACMemory(started, products)

    def precondition(self, factors: Factors, gradient: jax.Array, memory: IKFACMemory) -> jax.Array:
        """K Kᵀ G C Cᵀ."""
        return kronecker_precondition(factors, gradient, self.precision, memory.products)
