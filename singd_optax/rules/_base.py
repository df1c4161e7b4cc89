"""The contract of a rule: how the factors of one layer are made, refreshed and applied."""

import abc
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._validate import check_choice, check_number
from singd_optax.layers import Factors, LayerSpec, Statistics
from singd_optax.structures import Precision, StructuredMatrix, stochastic_round

DampingMode = Literal["absolute", "relative"]
FactorStepNorm = Literal["max_abs", "spectral"] | None

#: A float, a traced scalar, or an optax schedule: step -> value.
Hyperparameter = Any


class Rule(abc.ABC):
    """How a Kronecker-factored method treats one layer. Pure; no params trees.

    Sub-classes are frozen, keyword-only dataclasses of hyper-parameters. All arrays may carry the
    leading axes of a stack of layers, which are treated as separate layers throughout.
    """

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
    def precondition(self, factors: Factors, gradient: jax.Array) -> jax.Array:
        """The preconditioned gradient, from and to (*stack_shape, fan_in, fan_out)."""


def hyperparameter_at(value: Hyperparameter, count: jax.Array) -> ArrayLike:
    """The value of a hyper-parameter at a step."""
    return value(count) if callable(value) else value


def check_factor_options(
    *,
    damping: Hyperparameter,
    damping_mode: str,
    factor_learning_rate: Hyperparameter,
    factor_step_norm: str | None,
) -> None:
    """Check what all inverse-free rules share, before anything is traced.

    Args:
      damping: A number >= 0, or a schedule.
      damping_mode: ``"absolute"`` or ``"relative"``.
      factor_learning_rate: A number >= 0, or a schedule.
      factor_step_norm: None, ``"max_abs"`` or ``"spectral"``.

    Raises:
      ValueError: One is out of range.
      TypeError: One is of another type.
    """
    check_number("damping", damping)
    check_choice("damping_mode", damping_mode, ("absolute", "relative"))
    check_number("factor_learning_rate", factor_learning_rate)
    check_choice("factor_step_norm", factor_step_norm, (None, "max_abs", "spectral"))


def identity_factors(spec: LayerSpec) -> Factors:
    """K = I and C = I, in the layer's structures and factor dtypes."""
    K, C = (
        structure.eye(dim, dtype, spec.stack_shape)
        for structure, dim, dtype in zip(spec.structures, spec.dims, spec.factor_dtype, strict=True)
    )
    return Factors(K, C)


def multiplicative_step(
    factor: StructuredMatrix,
    direction: StructuredMatrix,
    step_size: ArrayLike,
    step_norm: FactorStepNorm,
    precision: Precision,
) -> StructuredMatrix:
    """F (I − β m), the first-order truncation of F Expm(−β m).

    With a step norm, β is divided by max(1, ‖m‖), so that the step stays bounded whatever the
    statistics are; with the spectral norm and β < 1, I − β m is never singular.
    """
    if step_norm is not None:
        norm = (
            direction.spectral_norm_bound(precision=precision)
            if step_norm == "spectral"
            else direction.max_abs()
        )
        step_size = step_size / jnp.maximum(norm, 1)
    return factor - factor.multiply(direction, precision=precision) * step_size


def store(matrix: StructuredMatrix, dtype: str, key: jax.Array) -> StructuredMatrix:
    """The matrix in the dtype in which it is kept, rounded so that small steps are not lost."""
    leaves, treedef = jax.tree.flatten(matrix)
    keys = jax.random.split(key, len(leaves))
    rounded = [stochastic_round(leaf, dtype, k) for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(treedef, rounded)


def kronecker_precondition(
    factors: Factors, gradient: jax.Array, precision: Precision
) -> jax.Array:
    """K Kᵀ G C Cᵀ for G (*stack_shape, fan_in, fan_out): matrix products only."""
    K, C = factors
    left = K.matmul(K.transpose_matmul(gradient, precision=precision), precision=precision)
    turned = jnp.swapaxes(left, -1, -2)
    both = C.matmul(C.transpose_matmul(turned, precision=precision), precision=precision)
    return jnp.swapaxes(both, -1, -2)
