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
      values_K: r, which is at least the sum of squares of each entry in a row, (rows,).
      values_C: c, which is at least the sum of squares of each entry in a column, (columns,).
    """

    values_K: RowValues
    values_C: ColumnValues


@dataclasses.dataclass(frozen=True, kw_only=True)
class SM3(Rule):
    """SM3-II: Adagrad with one number for each row and each column (arXiv 1901.11150).

    For gradients G (rows x columns), with one number r for each row and c for each column::

        ν_ij = b2 min(r_i, c_j) + (1 - b2) G_ij²        (min(r_i, c_j) + G_ij² without b2)
        G -> G / √(ν + ε)
        r_i <- max_j ν_ij,    c_j <- max_i ν_ij

    ν is at least Adagrad's sum of squares. There are no factors, and structures are not used.
    Embeddings are covered, too, as it is their memory that the method saves.

    Attributes:
      b2: The decay of ν, a number in [0, 1) or a schedule; None for the plain sums of the paper,
        with which steps get smaller and smaller.
      eps: ε, a number >= 0 or a schedule.
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
        """Numbers r = c = 0."""
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
        """Return the state as it is: r and c move in ``direction``, on each step."""
        return state, True

    def direction(
        self,
        view: MatrixView,
        state: SM3State,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, SM3State]:
        """G divided by √(ν + ε), and the state with new r and c."""
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

    A gradient G becomes G / √(ν + ε), where ν_ij is G_ij² plus the lesser of a number for row i and
    one for column j. ``optax.scale_by_sm3`` keeps one number for each index of each axis of an
    array, and has no decay; here rows and columns are those of a matrix.

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
    """SM3 in the place of AdamW: Adagrad in next to no memory beside the momentum.

    It works for any model, from gradients alone. A matrix moves by an average of SM3's updates,
    with decoupled weight decay. Anil et al., NeurIPS 2019, arXiv 1901.11150.
    """
    return optimizer_of(sm3, SM3, learning_rate, layers, options)
