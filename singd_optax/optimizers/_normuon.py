"""NorMuon: orthogonalized momentum, with one size for each output."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from singd_optax._validate import check_choice, check_number, check_precision
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
    Iteration,
    MatrixView,
    Recipe,
    Rule,
    coefficients_of,
    hyperparameter_at,
    polar_factor,
)
from singd_optax.structures import Precision

_DTYPES = (None, "float32", "bfloat16")


class NorMuonState(NamedTuple):
    """What NorMuon keeps of a parameter.

    Attributes:
      values_C: v, the average of the mean squares of the polar factor's columns, (columns,).
    """

    values_C: ColumnValues


@dataclasses.dataclass(frozen=True, kw_only=True)
class NorMuon(Rule):
    """NorMuon: Muon, with a second moment for each output (arXiv 2510.05491).

    Let M be the momentum, whose rows are inputs and whose columns are outputs. Let O be its polar
    factor, which is M with all singular values made 1, and v one number for each column::

        v <- b2 v + (1 - b2) mean_i O_ij²
        M -> σ ‖O‖_F U / ‖U‖_F,    U = O diag(1 / (√v + ε)),    σ = <M, O> / <O, O>

    So an output whose column is short in O, step after step, moves as far as all others. With
    columns of equal length it is Muon. As σ is the mean singular value of M, directions fade where
    gradients do; the complete optimizer gives all of them one size. There are no factors, and
    structures are not used.

    Attributes:
      b2: The decay of v, a number in [0, 1) or a schedule.
      eps: ε, a number >= 0 or a schedule.
      iteration: How the polar factor is found: "muon", "polar_express", "quintic", or triples of
        numbers, see ``singd_optax.rules.coefficients_of``.
      steps: The number of steps of the iteration, an int >= 1; None for its own number.
      iteration_dtype: The dtype in which the iteration runs, "float32" or "bfloat16"; None for that
        of statistics (float32, or float64 for float64 parameters).
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    b2: Hyperparameter = 0.95
    eps: Hyperparameter = 1e-8
    iteration: Iteration = "muon"
    steps: int | None = None
    iteration_dtype: DTypeLike | None = None
    precision: Precision = "highest"

    State: ClassVar[type] = NorMuonState
    is_of_whole: ClassVar[bool] = True
    recipe: ClassVar[Recipe] = Recipe(momentum=0.95, nesterov=True, update_rms=0.2, refresh_every=1)

    def __post_init__(self) -> None:
        check_number("b2", self.b2, maximum=1, strict_maximum=True)
        check_number("eps", self.eps)
        iteration, steps = self.iteration, coefficients_of(self.iteration, self.steps)
        object.__setattr__(self, "iteration", iteration if isinstance(iteration, str) else steps)
        name = None if self.iteration_dtype is None else jnp.dtype(self.iteration_dtype).name
        check_choice("iteration_dtype", name, _DTYPES)
        object.__setattr__(self, "iteration_dtype", name)
        check_precision("precision", self.precision)

    def init(self, view: MatrixView) -> NorMuonState:
        """A v of zero."""
        values = jnp.zeros((*view.stack_shape, view.dims[1]), view.statistics_dtype)
        return NorMuonState(values)

    def refresh(
        self,
        view: MatrixView,
        state: NorMuonState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[NorMuonState, bool]:
        """Return the state as it is: v moves in ``direction``, on each step."""
        return state, True

    def direction(
        self,
        view: MatrixView,
        state: NorMuonState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, NorMuonState]:
        """The polar factor with columns of one size, and the state with its v."""
        del gradient
        dtype = view.statistics_dtype
        b2, eps = (hyperparameter_at(x, count, dtype) for x in (self.b2, self.eps))
        factor = polar_factor(
            vector,
            iteration=self.iteration,
            steps=self.steps,
            dtype=self.iteration_dtype,
            precision=self.precision,
            split=view.placement.divided,
        )
        squares = factor**2
        values = state.values_C * b2 + squares.mean(-2) * (1 - b2)
        root = jnp.sqrt(values) + eps
        scaled = factor / jnp.where(root > 0, root, 1)[..., None, :]
        total, own = (x.sum((-2, -1), keepdims=True) for x in (squares, scaled**2))
        inner = (vector * factor).sum((-2, -1), keepdims=True)
        size = inner / jnp.sqrt(jnp.where(total > 0, total, 1) * jnp.where(own > 0, own, 1))
        return scaled * size, state._replace(values_C=values)


@shows_scaling_of(NorMuon)
def scale_by_normuon(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Orthogonalize momenta, and give all outputs one size, from gradients alone.

    All singular values of a momentum are made equal, and then its columns are divided by the root
    of the average of their squares. A direction is as large as the mean singular value of the
    momentum: set its size by ``update_rms``.

    References:
      Li, Liu, Liang, Chen and Zhao, NorMuon: Making Muon more efficient and scalable, arXiv
      2510.05491.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_normuon(iteration="quintic", update_rms=0.2)
      >>> grads = {"kernel": jnp.diag(jnp.array([4.0, 9.0]))}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(2)
      Array([[0.28, 0.  ],
             [0.  , 0.28]], dtype=float32)
    """
    return scaling_of(scale_by_normuon, NorMuon, layers, options)


@shows_recipe_of(NorMuon)
def normuon(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """NorMuon in the place of AdamW: orthogonalized momentum, with one size for each output.

    It works for any model, from gradients alone, with next to no memory beside the momentum. A
    matrix moves by Muon's direction with its columns evened out, at the root mean square that
    AdamW's updates have, and with decoupled weight decay. Li et al., arXiv 2510.05491.
    """
    return optimizer_of(normuon, NorMuon, learning_rate, layers, options)
