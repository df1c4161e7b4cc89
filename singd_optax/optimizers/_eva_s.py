"""Eva-s: Eva from the means of a gradient's rows and columns."""

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
      mean_K: r, the moving average of the gradient's mean over columns, (rows,).
      mean_C: c, the moving average of its mean over rows, (columns,).
      mean_square: s, the moving average of the mean of its squared entries.
      averaged: The number of gradients in the averages, int32.
    """

    mean_K: RowValues
    mean_C: ColumnValues
    mean_square: Number
    averaged: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaS(Eva):
    """Eva-s, vectorized Shampoo: ``Eva`` with vectors from the gradient itself (arXiv 2308.02123).

    With r and c the moving averages of the means of the rows and columns of gradients G (m x n),
    and M the momentum::

        r <- (1 - b1) r + b1 mean_j G_ij,    c <- (1 - b1) c + b1 mean_i G_ij
        M -> (r rᵀ ⊗ c cᵀ + λ I)^-1 M = [ M - (rᵀ M c) / (λ + |r|² |c|²) r cᵀ ] / λ

    The averages move in refreshes, which are on each step by default. A gradient of zeros changes
    nothing. Where the rows or columns add up to zero, as output gradients of a softmax do, the
    means are nothing but rounding. Relative damping is therefore relative to the most that
    |r|² |c|² can be, and the direction is then that of M. The authors give each update the norm of
    the gradient, which is ``grafting="sgd"``.

    Attributes:
      damping: λ, what is added to the term of rank one, in the units of ``damping_mode``: a number
        > 0 or a schedule.
      damping_mode: "absolute" (the authors'), or "relative", where λ is multiplied by m n s², with
        s the average of the mean of G_ij²; for a gradient of equal entries this is |r|² |c|².
      factor_learning_rate: b1, the weight of a new gradient in the averages, a number in (0, 1] or
        a schedule.
    """

    State: ClassVar[type] = EvaSState

    @property
    def measures(self) -> tuple[Measure, ...]:
        """None: the rule sees gradients only."""
        return ()

    def init(self, view: MatrixView) -> EvaSState:
        """Means of zero, in which nothing is averaged yet."""
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
        # Otherwise damping would fall with each gradient of zeros, and directions would grow.
        return choose(mean_square > 0, new, state), True

    def unit(self, view: MatrixView, state: PyTree, size: jax.Array) -> jax.Array:
        """The most that the term of rank one can be: m n s²."""
        rows, columns = view.dims
        return rows * columns * jnp.asarray(state.mean_square) ** 2


@shows_scaling_of(EvaS)
def scale_by_eva_s(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Eva-s's preconditioner of rank one, from gradients alone.

    A gradient G becomes [ G - (rᵀ G c) / (λ + |r|² |c|²) r cᵀ ] / λ, where r and c are averages of
    the means of the rows and columns of gradients. Structures are not used.

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
    """Eva-s in the place of AdamW: rank-one preconditioning from gradients, in next to no memory.

    It works for any model. It keeps two vectors for each matrix beside the momentum. A matrix moves
    by its preconditioned momentum, brought to one root mean square, with decoupled weight decay.
    Zhang et al., ICLR 2023, arXiv 2308.02123.
    """
    return optimizer_of(eva_s, EvaS, learning_rate, layers, options)
