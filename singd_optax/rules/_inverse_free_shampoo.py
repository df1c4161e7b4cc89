"""Inverse-free Shampoo: SINGD's step on the factors, with statistics from gradients alone."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._validate import check_choice, check_number
from singd_optax.layers import Factors, MatrixSpec
from singd_optax.rules._base import (
    DampingMode,
    FactorStepNorm,
    Hyperparameter,
    InverseFreeMemory,
    bounded_step,
    check_factor_options,
    hyperparameter_at,
    kronecker_precondition,
    store,
)
from singd_optax.rules._gradient_rule import GradientRule, choose
from singd_optax.structures import Precision, StructuredMatrix

GradientFactorInit = Literal["identity", "gradient"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseFreeShampoo(GradientRule):
    """Structured inverse- and root-free Shampoo (IF-Shampoo of arXiv 2402.03496, figure 3).

    K Kᵀ ⊗ C Cᵀ approaches the inverse of the damped second moment of the gradient, without the
    square root of Adam or Shampoo, by matrix products alone. For gradients G (rows x columns, of
    d_K and d_C), Π the projection onto a structure, and B = ``batch_size``::

        H_K = Π(Kᵀ G C Cᵀ Gᵀ K) B / d_C,    H_C = Π(Cᵀ Gᵀ K Kᵀ G C) B / d_K
        m_K <- a1 m_K + (1 - a1)/2 [ H_K + λ (Tr CᵀC / d_C) Π(KᵀK) - I ]
        m_C <- a1 m_C + (1 - a1)/2 [ H_C + λ (Tr KᵀK / d_K) Π(CᵀC) - I ]
        K   <- K (I - b1 m_K),    C <- C (I - b1 m_C)

    where all right-hand sides have the old K and C. The preconditioned gradient is K Kᵀ G C Cᵀ.
    With a step norm, b1 is divided by max(1, ‖m‖) for each factor. A gradient of zeros, from
    which nothing can be learnt, changes nothing and is counted as a failure.

    Attributes:
      damping: λ >= 0; in units of B mean(G²) if ``damping_mode`` is "relative".
      damping_mode: "relative" or "absolute" (the paper's).
      factor_learning_rate: b1 >= 0.
      factor_momentum: a1 in [0, 1).
      factor_step_norm: None, "max_abs" or "spectral".
      batch_size: B; 1 for a loss that is a sum, the number of examples for one that is a mean.
      factor_init: "identity" (the paper's), or "gradient": multiples of the identity that fit
        the size of the first gradient, so that nothing has to be learnt but shape.
      precision: Of all products.
    """

    damping: Hyperparameter = 0.03
    damping_mode: DampingMode = "relative"
    factor_learning_rate: Hyperparameter = 0.5
    factor_momentum: Hyperparameter = 0.5
    factor_step_norm: FactorStepNorm = "spectral"
    batch_size: Hyperparameter = 1
    factor_init: GradientFactorInit = "gradient"
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
        check_number("batch_size", self.batch_size, strict=True)
        check_choice("factor_init", self.factor_init, ("identity", "gradient"))

    def init(self, spec: MatrixSpec) -> tuple[Factors, InverseFreeMemory]:
        """K = C = I, and zero momenta."""
        sides = list(zip(spec.structures, spec.dims, spec.factor_dtype, strict=True))
        stack = spec.stack_shape
        factors = Factors(*(structure.eye(dim, name, stack) for structure, dim, name in sides))
        momenta = Factors(*(structure.zeros(dim, name, stack) for structure, dim, name in sides))
        return factors, InverseFreeMemory(momenta, jnp.zeros(stack, jnp.int32))

    def refresh(
        self,
        spec: MatrixSpec,
        factors: Factors,
        memory: InverseFreeMemory,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[Factors, InverseFreeMemory, jax.Array]:
        """One step on K and C."""
        dtype = spec.statistics_dtype
        momenta = memory.factor_momenta
        assert momenta is not None  # as init made it
        K, C, m_K, m_C = (matrix.astype(dtype) for matrix in (*factors, *momenta))
        batch_size = jnp.asarray(hyperparameter_at(self.batch_size, count), dtype)
        gradient = gradient * jnp.sqrt(batch_size)
        mean_square = jnp.mean(gradient**2, axis=(-2, -1))
        good = mean_square > 0
        damping = jnp.asarray(hyperparameter_at(self.damping, count), dtype)
        if self.damping_mode == "relative":
            damping = damping * mean_square
        if self.factor_init == "gradient":
            size = jnp.where(good, mean_square + damping, 1) ** -0.25
            first = jnp.where(memory.started > 0, 1, size)
            K, C = K * first, C * first
        momentum = jnp.asarray(hyperparameter_at(self.factor_momentum, count), dtype)

        def direction(
            m: StructuredMatrix,
            factor: StructuredMatrix,
            other: StructuredMatrix,
            rows: jax.Array,
        ) -> StructuredMatrix:
            # `rows` @ `factor` is the gradient whitened from both sides.
            whitened = other.transpose_matmul(rows, precision=self.precision)
            curvature = factor.gram(whitened, precision=self.precision) * (1 / other.dim)
            other_gram: ArrayLike = other.frobenius_norm() ** 2 / other.dim
            damped = curvature + factor.gram(precision=self.precision) * (damping * other_gram)
            return m * momentum + damped.add_identity(-1.0) * ((1 - momentum) / 2)

        new_m = (
            direction(m_K, K, C, jnp.swapaxes(gradient, -1, -2)),
            direction(m_C, C, K, gradient),
        )
        step_size = hyperparameter_at(self.factor_learning_rate, count)
        steps = [
            bounded_step(factor, m, step_size, self.factor_step_norm, self.precision)
            for factor, m in zip((K, C), new_m, strict=True)
        ]
        new, kept_m = zip(*steps, strict=True)
        keys = jax.random.split(key, 4)
        stored = [
            store(matrix, name, k)
            for matrix, name, k in zip((*new, *kept_m), spec.factor_dtype * 2, keys, strict=True)
        ]
        fresh = Factors(*stored[:2]), Factors(*stored[2:])
        kept = choose(good, fresh, (factors, momenta))
        return kept[0], InverseFreeMemory(kept[1], memory.started | good.astype(jnp.int32)), good

    def precondition(self, factors: Factors, gradient: jax.Array) -> jax.Array:
        """K Kᵀ G C Cᵀ."""
        return kronecker_precondition(factors, gradient, self.precision)
