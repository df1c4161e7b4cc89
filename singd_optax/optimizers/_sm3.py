"""SM3: Adagrad with one number for each row and each column."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_number, check_precision
from singd_optax.layers import Layers
from singd_optax.measures import Statistics
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import (
    ColumnValues,
    Hyperparameter,
    MatrixView,
    MomentumOf,
    Recipe,
    RowValues,
    Rule,
    hyperparameter_at,
)


class SM3State(NamedTuple):
    """What SM3 keeps of a parameter.

    Attributes:
      values_K: r, at least the sum of squares of each entry in a row.
      values_C: c, likewise of a column.
    """

    values_K: RowValues
    values_C: ColumnValues


@dataclasses.dataclass(frozen=True, kw_only=True)
class SM3(Rule):
    """SM3-II (arXiv 1901.11150): Adagrad whose sums of squares are covered by rows and columns.

    With gradients G, and one number for each row and each column::

        ν_ij = b2 min(r_i, c_j) + (1 - b2) G_ij²        (min(r_i, c_j) + G_ij² without b2)
        G -> G / √(ν + ε)
        r_i <- max_j ν_ij,    c_j <- max_i ν_ij

    ν is at least Adagrad's sum of squares. There are no factors, and structures are of no effect.
    Embeddings are covered, too: they are what it saves memory of.

    Attributes:
      b2: Decay of ν, in [0, 1), or a schedule; None for the plain sums of the paper, with which
        steps get smaller and smaller.
      eps: ε >= 0, or a schedule.
    """

    b2: Hyperparameter | None = None
    eps: Hyperparameter = 1e-30

    State: ClassVar[type] = SM3State
    is_of_whole: ClassVar[bool] = True
    leaves_embeddings: ClassVar[bool] = False
    momentum_of: ClassVar[MomentumOf] = "update"
    recipe: ClassVar[Recipe] = Recipe(
        momentum=0.9, nesterov=False, update_rms=None, refresh_every=1
    )

    def __post_init__(self) -> None:
        if self.b2 is not None:
            check_number("b2", self.b2, maximum=1, strict_maximum=True)
        check_number("eps", self.eps)
        check_precision("precision", self.precision)

    def init(self, view: MatrixView) -> SM3State:
        """Zeros."""
        rows, columns = (
            jnp.zeros((*view.stack_shape, dim), view.statistics_dtype) for dim in view.dims
        )
        return SM3State(rows, columns)

    def refresh(
        self,
        view: MatrixView,
        state: SM3State,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[SM3State, bool]:
        """Nothing: numbers move on every step."""
        return state, True

    def direction(
        self,
        view: MatrixView,
        state: SM3State,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, SM3State]:
        """G over its root, and the new covers."""
        dtype = view.statistics_dtype
        decay = hyperparameter_at(1.0 if self.b2 is None else self.b2, count, dtype)
        fresh = jnp.ones([], dtype) if self.b2 is None else 1 - decay
        cover = jnp.minimum(state.values_K[..., :, None], state.values_C[..., None, :])
        squares = decay * cover + fresh * gradient**2
        root = jnp.sqrt(squares + hyperparameter_at(self.eps, count, dtype))
        direction = vector / jnp.where(root > 0, root, 1)
        squares = jnp.where(jnp.isfinite(squares), squares, cover)
        return direction, SM3State(squares.max(-1), squares.max(-2))


@shows_scaling_of(SM3)
def scale_by_sm3(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Adagrad's root, kept as one number for each row and each column.

    The equations are in ``singd_optax.optimizers.SM3``. ``optax.scale_by_sm3`` has one number for
    each index of each axis of an array, and no decay; here rows and columns are those of a matrix,
    see ``scale_by_rule``. ``singd_optax.sm3`` is a complete optimizer.

    References:
      Anil, Gupta, Koren and Singer, Memory-Efficient Adaptive Optimization, NeurIPS 2019, arXiv
      1901.11150.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_sm3()
      >>> grads = {"kernel": jnp.array([[4.0, -9.0], [0.1, 2.0]])}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(2)
      Array([[ 1., -1.],
             [ 1.,  1.]], dtype=float32)
    """
    return scaling_of(scale_by_sm3, SM3, layers, options)


@shows_recipe_of(SM3)
def sm3(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """SM3 as a drop-in for AdamW with next to no memory beside the momentum.

    Matrix-shaped parameters: ``scale_by_sm3``, an average of its updates, decoupled weight decay.
    All other parameters go to ``fallback``.
    """
    return optimizer_of(sm3, SM3, learning_rate, layers, options)
