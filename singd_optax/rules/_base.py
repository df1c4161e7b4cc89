"""The contract of a rule: how the factors of one layer are made, refreshed and applied."""

import abc
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._validate import check_choice, check_number, check_precision
from singd_optax.layers import Factors, LayerSpec, Statistics
from singd_optax.structures import (
    DenseMatrix,
    Precision,
    StructuredMatrix,
    contract,
    stochastic_round,
)

DampingMode = Literal["absolute", "relative"]
FactorStepNorm = Literal["max_abs", "spectral"] | None

#: Where K and C start: from I, or from multiples of I that fit the first statistics.
FactorInit = Literal["identity", "statistics"]
FACTOR_INITS: tuple[FactorInit, ...] = ("identity", "statistics")

#: The bound on β ‖m‖: I - β m keeps eigenvalues of at least a tenth.
_LARGEST_STEP = 0.9

#: A float, a traced scalar, or an optax schedule: step -> value.
Hyperparameter = Any


class Products(NamedTuple):
    """K Kᵀ and C Cᵀ; None where one is not kept."""

    K: StructuredMatrix | None
    C: StructuredMatrix | None


class InverseFreeMemory(NamedTuple):
    """What inverse-free rules keep beside the factors.

    Attributes:
      factor_momenta: (m_K, m_C), or None without momentum.
      started: Whether the factors were refreshed at all: int32, 0 or 1, of shape ``stack_shape``.
      products: (K Kᵀ, C Cᵀ), or None if none is kept.
    """

    factor_momenta: Factors | None
    started: jax.Array
    products: Products | None = None


class Rule(abc.ABC):
    """How a Kronecker-factored method treats one layer. Pure; no params trees.

    Sub-classes are frozen, keyword-only dataclasses of hyper-parameters. All arrays may carry the
    leading axes of a stack of layers, which are treated as separate layers throughout.

    Attributes:
      precision: Of the products on factors.
    """

    precision: Precision = "highest"

    @abc.abstractmethod
    def init(self, spec: LayerSpec) -> tuple[Factors, Any]:
        """The factors of a layer before the first step, and what else the rule keeps for it."""

    @abc.abstractmethod
    def refresh(
        self,
        spec: LayerSpec,
        factors: Factors,
        memory: Any,
        statistics: Statistics,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[Factors, Any]:
        """New factors and memory.

        Args:
          spec: The layer.
          factors: The old factors.
          memory: What ``init`` or the last refresh returned beside the factors.
          statistics: Of this step.
          count: Updates made before this one, for schedules.
          key: A random key of this step and layer, for stochastic rounding.
        """

    @abc.abstractmethod
    def precondition(self, factors: Factors, gradient: jax.Array, memory: Any) -> jax.Array:
        """The preconditioned gradient, from and to (*stack_shape, fan_in, fan_out).

        Args:
          factors: Of the layer.
          gradient: As a matrix.
          memory: What ``init`` or the last refresh returned beside the factors.
        """


def hyperparameter_at(value: Hyperparameter, count: jax.Array) -> ArrayLike:
    """The value of a hyper-parameter at a step."""
    return value(count) if callable(value) else value


def check_factor_options(
    *,
    damping: Hyperparameter,
    damping_mode: str,
    factor_learning_rate: Hyperparameter,
    factor_step_norm: str | None,
    precision: Precision,
) -> None:
    """Check what all inverse-free rules share, before anything is traced.

    Args:
      damping: A number >= 0, or a schedule.
      damping_mode: ``"absolute"`` or ``"relative"``.
      factor_learning_rate: A number >= 0, or a schedule.
      factor_step_norm: None, ``"max_abs"`` or ``"spectral"``.
      precision: What ``jax.numpy.einsum`` takes.

    Raises:
      ValueError: One is out of range.
      TypeError: One is of another type.
    """
    check_number("damping", damping)
    check_choice("damping_mode", damping_mode, ("absolute", "relative"))
    check_number("factor_learning_rate", factor_learning_rate)
    check_choice("factor_step_norm", factor_step_norm, (None, "max_abs", "spectral"))
    check_precision("precision", precision)


def identity_factors(spec: LayerSpec) -> Factors:
    """K = I and C = I, in the layer's structures and factor dtypes."""
    K, C = (
        structure.eye(dim, dtype, spec.stack_shape)
        for structure, dim, dtype in zip(spec.structures, spec.dims, spec.factor_dtype, strict=True)
    )
    return Factors(K, C)


def bounded_step(
    factor: StructuredMatrix,
    direction: StructuredMatrix,
    step_size: ArrayLike,
    step_norm: FactorStepNorm,
    precision: Precision,
) -> tuple[StructuredMatrix, StructuredMatrix]:
    """F (I - β m), the first-order truncation of F Expm(-β m), and the m to keep as momentum.

    With a step norm, m is divided by max(1, ‖m‖), so that the step stays bounded whatever the
    statistics are. The spectral norm bounds two more things: what is kept (or one spike would push
    for many steps), and β ‖m‖ by 0.9, so that I - β m is never singular. A norm that is not finite,
    or none of a matrix that is not zero, bounds nothing: then the step is NaN, which is refused.
    """
    kept = direction
    if step_norm == "max_abs":
        step_size = step_size / jnp.maximum(direction.max_abs(), 1)
    elif step_norm == "spectral":
        norm = direction.spectral_norm_bound(precision=precision)
        usable = jnp.isfinite(norm) & ((norm > 0) | (direction.max_abs() == 0))
        norm = jnp.where(usable, norm, jnp.nan)
        kept = direction * (1 / jnp.maximum(norm, 1))
        step_size = jnp.minimum(step_size / jnp.maximum(norm, 1), _LARGEST_STEP / (norm + 1e-3))
    return factor - factor.multiply(direction, precision=precision) * step_size, kept


def first_scales(
    factor_init: FactorInit, statistics: Statistics, started: jax.Array
) -> tuple[ArrayLike, ArrayLike]:
    """By what to scale K and C on their first refresh, so that they fit the first statistics.

    The rules put these numbers where they belong instead of scaling matrices with them: moments
    and grams grow with their squares.
    """
    if factor_init == "identity":
        return 1.0, 1.0
    mean_U, mean_G = (
        jnp.where((started > 0) | (mean <= 0), 1, mean)
        for mean in (statistics.mean_U, statistics.mean_G)
    )
    return mean_U**-0.5, mean_G**-0.5


def store(matrix: StructuredMatrix, dtype: str, key: jax.Array) -> StructuredMatrix:
    """The matrix in the dtype in which it is kept, rounded so that small steps are not lost."""
    leaves, treedef = jax.tree.flatten(matrix)
    keys = jax.random.split(key, len(leaves))
    rounded = [stochastic_round(leaf, dtype, k) for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(treedef, rounded)


def cached_products(factors: Factors, wanted: bool) -> Products | None:
    """K Kᵀ and C Cᵀ where they are dense and exact enough to keep, None where they are not.

    With them a dense preconditioner takes two products instead of four. In bfloat16, rounding
    K Kᵀ would make it indefinite.
    """
    if not wanted:
        return None
    pair = (
        DenseMatrix(contract("...ik,...jk->...ij", factor.entries, factor.entries))
        if isinstance(factor, DenseMatrix) and factor.dtype != jnp.bfloat16
        else None
        for factor in factors
    )
    return Products(*pair)


def kronecker_precondition(
    factors: Factors, gradient: jax.Array, precision: Precision, products: Products | None = None
) -> jax.Array:
    """K Kᵀ G C Cᵀ for G (*stack_shape, fan_in, fan_out): matrix products only."""

    def apply(
        factor: StructuredMatrix, product: StructuredMatrix | None, x: jax.Array
    ) -> jax.Array:
        if product is not None:
            return product.matmul(x, precision=precision)
        return factor.matmul(factor.transpose_matmul(x, precision=precision), precision=precision)

    K, C = factors
    P_K, P_C = Products(None, None) if products is None else products
    left = jnp.swapaxes(apply(K, P_K, gradient), -1, -2)
    return jnp.swapaxes(apply(C, P_C, left), -1, -2)
