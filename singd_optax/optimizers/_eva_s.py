"""Eva-s: Eva by the means of a gradient's rows and columns."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._types import PyTree
from singd_optax.layers import Layers
from singd_optax.measures import Measure, Statistics
from singd_optax.optimizers._eva import Eva
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import (
    ColumnValues,
    Counter,
    Hyperparameter,
    MatrixView,
    Number,
    RowValues,
    choose,
    new_weight,
)


class EvaSState(NamedTuple):
    """What Eva-s keeps of a parameter.

    Attributes:
      mean_K: r, moving average of the gradient's mean over columns, (rows,).
      mean_C: c, moving average of its mean over rows, (columns,).
      mean_square: s, moving average of the mean of its squared entries.
      averaged: How many gradients are in them, int32.
    """

    mean_K: RowValues
    mean_C: ColumnValues
    mean_square: Number
    averaged: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaS(Eva):
    """Eva-s, vectorized Shampoo (arXiv 2308.02123): ``Eva`` with vectors from the gradient itself.

    With r and c the moving averages of the means of a gradient's rows and columns (m x n)::

        r <- (1 - b1) r + b1 mean_j G_ij,    c <- (1 - b1) c + b1 mean_i G_ij
        direction = (r rᵀ ⊗ c cᵀ + λ I)^-1 ∇ = [ ∇ - (rᵀ ∇ c) / (λ + |r|² |c|²) r cᵀ ] / λ

    They are new on refresh steps, which are all steps by default, and a gradient of zeros changes
    nothing. Where rows or columns add up to
    nothing, as the output gradients of a softmax do, the means are rounding: damping is relative to
    what |r|² |c|² can be at most, and the direction is then the gradient's. The authors give each
    update the norm of the gradient, ``grafting="sgd"``.

    Attributes:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute" (the authors'), or "relative" to m n s², with s the average of the
        mean of G_ij²; a gradient of equal entries has |r|² |c|² = m n s².
      factor_learning_rate: b1, the weight of a new gradient in the averages, in (0, 1], or a
        schedule.
    """

    State: ClassVar[type] = EvaSState

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Nothing but gradients."""
        return ()

    def init(self, view: MatrixView) -> EvaSState:
        """Means of nothing."""
        stack, dtype = view.stack_shape, view.statistics_dtype
        rows, columns = (jnp.zeros((*stack, dim), dtype) for dim in view.dims)
        return EvaSState(rows, columns, jnp.zeros(stack, dtype), jnp.zeros(stack, jnp.int32))

    def refresh(
        self,
        view: MatrixView,
        state: EvaSState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[EvaSState, bool]:
        """New averages."""
        rate = new_weight(self.factor_learning_rate, state.averaged, count)
        rate = rate.astype(view.statistics_dtype)
        of_sides = rate[..., None]
        mean_square = (gradient**2).mean((-2, -1))
        new = EvaSState(
            (1 - of_sides) * state.mean_K + of_sides * gradient.mean(-1),
            (1 - of_sides) * state.mean_C + of_sides * gradient.mean(-2),
            (1 - rate) * state.mean_square + rate * mean_square,
            state.averaged + 1,
        )
        # A damping that fades with gradients would make a momentum that fades sooner grow.
        return choose(mean_square > 0, new, state), True

    def unit(self, view: MatrixView, state: PyTree, size: jax.Array) -> jax.Array:
        """M n s²."""
        rows, columns = view.dims
        return rows * columns * jnp.asarray(state.mean_square) ** 2


@shows_scaling_of(EvaS)
def scale_by_eva_s(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Eva-s's preconditioner, of rank one, from gradients alone.

    The equations are in ``singd_optax.optimizers.EvaS``. How arrays make matrices is said at
    ``scale_by_rule``, structures are not used; scalars and vectors pass through.
    ``singd_optax.eva_s`` is a complete optimizer.

    References:
      Zhang et al., Eva: A General Vectorized Approximation Framework for Second-order
      Optimization, ICLR 2023, arXiv 2308.02123.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_eva_s(damping=1.0, damping_mode="absolute")
      >>> grads = {"kernel": jnp.ones((3, 2))}
      >>> (1 / tx.update(grads, tx.init(grads))[0]["kernel"]).round(2)[0]  # 1 + 3 · 2
      Array([7., 7.], dtype=float32)
    """
    return scaling_of(scale_by_eva_s, EvaS, layers, options)


@shows_recipe_of(EvaS)
def eva_s(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Eva-s as a drop-in for AdamW, in the memory of two vectors beside the momentum.

    Matrix-shaped parameters: ``scale_by_eva_s`` of the momentum, scaled to a root mean square as
    AdamW's updates have it, decoupled weight decay. All others go to ``fallback``.
    """
    return optimizer_of(eva_s, EvaS, learning_rate, layers, options)
