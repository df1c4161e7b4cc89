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
      values_C: v, the average of squares of the polar factor's columns.
    """

    values_C: ColumnValues


@dataclasses.dataclass(frozen=True, kw_only=True)
class NorMuon(Rule):
    """NorMuon (arXiv 2510.05491): Muon, with a second moment for each output.

    With the momentum M (rows are inputs, columns outputs), O its polar factor, and v one number for
    each column::

        v <- b2 v + (1 - b2) mean_i O_ij²
        M -> σ ‖O‖_F U / ‖U‖_F,    U = O diag(1 / (√v + ε)),    σ = <M, O> / <O, O>

    so that outputs whose columns are short in O, step after step, move as far as all others. With
    columns of equal length it is Muon. The mean singular value σ makes directions fade where
    gradients do; the complete optimizer gives all others one size. There are no factors, and
    structures are of no effect.

    Attributes:
      b2: Decay of v, in [0, 1), or a schedule.
      eps: ε >= 0, or a schedule.
      iteration: Of the polar factor: "muon", "polar_express", "quintic", or triples of numbers,
        see ``singd_optax.rules.coefficients_of``.
      steps: How many steps of it; None for what it has.
      iteration_dtype: In which it runs: None for that of statistics, "float32" or "bfloat16".
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
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
        """Nothing: v moves on every step."""
        return state, True

    def direction(
        self,
        view: MatrixView,
        state: NorMuonState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, NorMuonState]:
        """The polar factor with columns of one size, and its v."""
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

    The equations are in ``singd_optax.optimizers.NorMuon``. A direction is as large as the mean
    singular value of the momentum: set its size by ``update_rms``. How arrays make matrices is said
    at ``scale_by_rule``; scalars and vectors pass through. ``singd_optax.normuon`` is a complete
    optimizer.

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
    """NorMuon as a drop-in for AdamW: any model, gradients only, next to no memory.

    Matrix-shaped parameters: ``scale_by_normuon`` of a momentum, scaled to a root mean square as
    AdamW's updates have it, decoupled weight decay. All other parameters go to ``fallback``.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.normuon(1e-3)
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
    """
    return optimizer_of(normuon, NorMuon, learning_rate, layers, options)
