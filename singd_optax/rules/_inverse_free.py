"""What inverse-free rules share: bounded multiplicative steps on K and C, and the products."""

import abc
import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_choice, check_flag, check_number, check_precision
from singd_optax.layers import MatrixView
from singd_optax.measures import Measure, Moments, Statistics
from singd_optax.rules._numbers import Hyperparameter, hyperparameter_at
from singd_optax.rules._rule import Rule, choose
from singd_optax.structures import (
    DenseMatrix,
    IdentityMatrix,
    Precision,
    StructuredMatrix,
    contract,
)

#: The norm that bounds the steps on factors.
FactorStepNorm = Literal["max_abs", "spectral"] | None

#: The bound on β ‖m‖: I - β m keeps eigenvalues of at least a tenth.
_LARGEST_STEP = 0.9


class FactorStep(NamedTuple):
    """A step on one pair of factors, before it is bounded.

    Attributes:
      K: The factor of the rows from which the step goes.
      C: The factor of the columns from which the step goes.
      m_K: The direction of K's step, momentum included.
      m_C: The direction of C's step, likewise.
      scales: The numbers by which K and C are multiplied afterwards.
      went_well: Whether there was something to learn from, for each matrix of a stack.
    """

    K: StructuredMatrix
    C: StructuredMatrix
    m_K: StructuredMatrix
    m_C: StructuredMatrix
    scales: tuple[ArrayLike, ArrayLike] = (1.0, 1.0)
    went_well: jax.Array | bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseFree(Rule):
    """The base of rules whose preconditioner is K Kᵀ X C Cᵀ, and whose K and C move by products.

    A sub-class says by ``factor_step`` where the factors are to go. Its states have the fields K,
    C, product_K, product_C and started, and m_K and m_C if there is a momentum.

    Attributes:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: The norm ‖m‖ of a factor's step m, which is divided by max(1, ‖m‖): None for
        no bound (the papers'), "max_abs" (an option of SINGD's package) or "spectral", with which
        momenta are bounded too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice the
        memory, for half of the work of each step. Nothing is kept with polar directions, which
        have no use for them.
      direction_precision: The precision of the products with a gradient in each step, as
        ``jax.numpy.einsum`` takes it; None for ``precision``. On three tasks, operands rounded to
        bfloat16, which is "default" on TPUs, came to the same results as without rounding
        (``benchmarks/precision.py``).
      precision: The precision of all other products, as ``jax.numpy.einsum`` takes it.
    """

    factor_learning_rate: Hyperparameter = 0.5
    factor_step_norm: FactorStepNorm = "spectral"
    cache_products: bool = True
    direction_precision: Precision = "default"

    def __post_init__(self) -> None:
        check_number("factor_learning_rate", self.factor_learning_rate)
        check_choice("factor_step_norm", self.factor_step_norm, (None, "max_abs", "spectral"))
        check_flag("cache_products", self.cache_products)
        check_precision("precision", self.precision)
        check_precision("direction_precision", self.direction_precision)

    def products(
        self, view: MatrixView, K: StructuredMatrix, C: StructuredMatrix
    ) -> tuple[StructuredMatrix | None, StructuredMatrix | None]:
        """K Kᵀ and C Cᵀ where they are dense and exact enough to keep, and else None.

        With them a dense preconditioner takes two products instead of four. In bfloat16, rounding
        could make K Kᵀ indefinite.

        Args:
          view: The parameter or layer.
          K: The factor of the rows.
          C: The factor of the columns.
        """
        product_K, product_C = (
            DenseMatrix(
                contract(
                    "...ik,...jk->...ij", factor.entries, factor.entries, precision=self.precision
                )
            )
            if self.cache_products and isinstance(factor, DenseMatrix) and dtype != "bfloat16"
            else None
            for factor, dtype in zip((K, C), view.factor_dtype, strict=True)
        )
        return product_K, product_C

    @abc.abstractmethod
    def factor_step(
        self,
        view: MatrixView,
        state: PyTree,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
    ) -> FactorStep:
        """The step that K and C are to make; arguments are those of ``refresh``."""

    def refresh(
        self,
        view: MatrixView,
        state: PyTree,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[PyTree, jax.Array | bool]:
        """One step on K and C: K <- K (I - b1 m_K), bounded as ``bounded_step`` says."""
        del key
        step = self.factor_step(view, state, statistics, gradient, count)
        rate = hyperparameter_at(self.factor_learning_rate, count)
        # The bounds of equal layers in one loop, for all of them, took the compiler a fifth longer.
        (K, m_K), (C, m_C) = (
            bounded_step(factor, m, rate, self.factor_step_norm, self.precision)
            for factor, m in ((step.K, step.m_K), (step.C, step.m_C))
        )
        K, C = K * step.scales[0], C * step.scales[1]
        product_K, product_C = self.products(view, K, C)
        new = state._replace(
            K=K,
            C=C,
            product_K=product_K,
            product_C=product_C,
            started=jnp.ones_like(state.started),
        )
        if getattr(state, "m_K", None) is not None:
            new = new._replace(m_K=m_K, m_C=m_C)
        new = jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), new, state)
        if not isinstance(step.went_well, bool):
            new = choose(step.went_well, new, state)
        return new, step.went_well

    def direction(
        self,
        view: MatrixView,
        state: PyTree,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, PyTree]:
        """K Kᵀ X C Cᵀ, by matrix products alone."""
        del view, gradient, count
        precision = self.direction_precision or self.precision
        left = _apply(state.K, state.product_K, vector, precision)
        right = _apply(state.C, state.product_C, jnp.swapaxes(left, -1, -2), precision)
        return jnp.swapaxes(right, -1, -2), state

    def uncached(self) -> "InverseFree":
        """This rule without K Kᵀ and C Cᵀ, as whitening is by K and C themselves."""
        return dataclasses.replace(self, cache_products=False)

    def whiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """Kᵀ X C."""
        del view
        precision = self.direction_precision or self.precision
        left = state.K.transpose_matmul(matrix, precision=precision)
        turned = jnp.swapaxes(left, -1, -2)
        right = state.C.transpose_matmul(turned, precision=precision)
        return jnp.swapaxes(right, -1, -2)

    def unwhiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """K X Cᵀ."""
        del view
        precision = self.direction_precision or self.precision
        turned = jnp.swapaxes(state.K.matmul(matrix, precision=precision), -1, -2)
        return jnp.swapaxes(state.C.matmul(turned, precision=precision), -1, -2)


def _apply(
    factor: StructuredMatrix,
    product: StructuredMatrix | None,
    x: jax.Array,
    precision: Precision,
) -> jax.Array:
    if product is not None:
        return product.matmul(x, precision=precision)
    return factor.matmul(factor.transpose_matmul(x, precision=precision), precision=precision)


def identity_pair(view: MatrixView) -> tuple[StructuredMatrix, StructuredMatrix]:
    """K = I and C = I, in the structures and factor dtypes of a parameter."""
    K, C = (
        structure.eye(dim, dtype, view.stack_shape)
        for structure, dim, dtype in zip(view.structures, view.dims, view.factor_dtype, strict=True)
    )
    return K, C


def zero_pair(view: MatrixView) -> tuple[StructuredMatrix, StructuredMatrix]:
    """Two zero matrices, in the structures and factor dtypes of a parameter."""
    K, C = (
        structure.zeros(dim, dtype, view.stack_shape)
        for structure, dim, dtype in zip(view.structures, view.dims, view.factor_dtype, strict=True)
    )
    return K, C


def bounded_step(
    factor: StructuredMatrix,
    direction: StructuredMatrix,
    step_size: ArrayLike,
    step_norm: FactorStepNorm,
    precision: Precision,
) -> tuple[StructuredMatrix, StructuredMatrix]:
    """F (I - β m), which is F Expm(-β m) to first order, and the m to keep as momentum.

    With a step norm, m is divided by max(1, ‖m‖), so that the step is bounded whatever the
    statistics are. The spectral norm bounds two more things: the m that is kept, as one spike would
    else push for many steps, and β ‖m‖ by 0.9, so that I - β m is never singular. If the norm is
    not finite, or is 0 for a matrix that is not zero, the step is NaN, and the caller refuses it.

    Args:
      factor: F.
      direction: m.
      step_size: β.
      step_norm: The norm that bounds the step, or None.
      precision: The precision of the products.
    """
    if isinstance(factor, IdentityMatrix):
        return factor, direction
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
    is_from_statistics: bool, statistics: Statistics, started: jax.Array
) -> tuple[ArrayLike, ArrayLike]:
    """The numbers by which the first refresh scales K and C, so that they fit its statistics.

    They are 1 later on. Instead of scaling K and C first, rules multiply moments and grams by the
    squares of these numbers.
    """
    if not is_from_statistics:
        return 1.0, 1.0
    mean_U, mean_G = (
        jnp.where((started > 0) | (mean <= 0), 1, mean)
        for mean in (statistics.mean_U, statistics.mean_G)
    )
    return mean_U**-0.5, mean_G**-0.5


def trace_of(moment: StructuredMatrix, mean: jax.Array) -> jax.Array:
    """Tr H / dim of a whitened moment H; on a side without a factor it is the mean given."""
    return mean if isinstance(moment, IdentityMatrix) else moment.average_trace()


#: The measure of rules that whiten with the fields K and C of their states.
WHITENED: tuple[Measure, ...] = (Moments(whitened_by=("K", "C")),)
