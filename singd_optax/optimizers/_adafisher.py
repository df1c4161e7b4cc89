"""AdaFisher: diagonals of both Kronecker factors, in the place of Adam's second moment."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import (
    check_choice,
    check_flag,
    check_number,
    check_precision,
)
from singd_optax.layers import Layers
from singd_optax.measures import Measure, Moments, Statistics
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import (
    ColumnValues,
    Counter,
    DampingMode,
    Hyperparameter,
    MatrixView,
    RowValues,
    Rule,
    hyperparameter_at,
    new_weight,
)
from singd_optax.structures import Diagonal, DiagonalMatrix, Precision, StructuredMatrix


class AdaFisherState(NamedTuple):
    """What AdaFisher keeps of a layer.

    Attributes:
      values_K: h_K, the moving average of the diagonal of U, (fan_in,); each diagonal is brought to
        [0, 1] first if ``normalized``.
      values_C: h_C, the moving average of the diagonal of G, (fan_out,), likewise.
      averaged: The number of statistics in the averages, int32.
    """

    values_K: RowValues
    values_C: ColumnValues
    averaged: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaFisher(Rule):
    """AdaFisher: the diagonals of both second moments of a layer (arXiv 2405.16397).

    Let u and w be the diagonals of the second moments U and G of a layer's inputs and output
    gradients, and N(x) = (x - min x) / (max x - min x), or 1 where all entries are equal::

        h_K <- (1 - b1) h_K + b1 N(u),    h_C <- (1 - b1) h_C + b1 N(w)
        ∇   -> ∇ / (h_K h_Cᵀ + λ)        (entry by entry, without a root)

    Averages have their bias corrected as Adam's have. (The paper's code starts them at 1, and
    weighs old and new values by 0.08 and 0.008, which do not add up to 1.)

    Attributes:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The paper's is 1e-3.
      damping_mode: "absolute" (the paper's, where the entries of h are between 0 and 1), or
        "relative", where λ is multiplied by the mean of h_K h_Cᵀ.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      normalized: Whether N brings each side's diagonal to [0, 1]. If not, the method is KFAC with
        diagonal factors, and "relative" damping suits it better.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    damping: Hyperparameter = 1e-2
    damping_mode: DampingMode = "absolute"
    factor_learning_rate: Hyperparameter = 0.05
    normalized: bool = True
    precision: Precision = "highest"

    State: ClassVar[type] = AdaFisherState

    def __post_init__(self) -> None:
        check_number("damping", self.damping, strict=True)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative"))
        check_number("factor_learning_rate", self.factor_learning_rate, strict=True, maximum=1)
        check_flag("normalized", self.normalized)
        check_precision("precision", self.precision)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The diagonals of plain moments, whatever the structures of layers are."""
        return (Moments(structures=(Diagonal(), Diagonal())),)

    def init(self, view: MatrixView) -> AdaFisherState:
        """Values of 1, in which nothing is averaged yet."""
        K, C = (jnp.ones((*view.stack_shape, dim), view.statistics_dtype) for dim in view.dims)
        return AdaFisherState(K, C, jnp.zeros(view.stack_shape, jnp.int32))

    def refresh(
        self,
        view: MatrixView,
        state: AdaFisherState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[AdaFisherState, bool]:
        """New averages."""
        assert statistics is not None
        rate = new_weight(self.factor_learning_rate, state.averaged, count)
        rate = rate.astype(view.statistics_dtype)[..., None]
        sides = (state.values_K, statistics.H_K), (state.values_C, statistics.H_C)
        K, C = ((1 - rate) * old + rate * self._values(new) for old, new in sides)
        return AdaFisherState(K, C, state.averaged + 1), True

    def _values(self, moment: StructuredMatrix) -> jax.Array:
        assert isinstance(moment, DiagonalMatrix)
        values = moment.diagonal
        if not self.normalized:
            return values
        least, largest = (f(values, axis=-1, keepdims=True) for f in (jnp.min, jnp.max))
        span = largest - least
        return jnp.where(span > 0, (values - least) / jnp.where(span > 0, span, 1), 1)

    def direction(
        self,
        view: MatrixView,
        state: AdaFisherState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, AdaFisherState]:
        """The vector, divided by the damped diagonal."""
        products = state.values_K[..., :, None] * state.values_C[..., None, :]
        damping = hyperparameter_at(self.damping, count, products.dtype)
        if self.damping_mode == "relative":
            damping = damping * jnp.mean(products, axis=(-2, -1), keepdims=True)
        return vector / (products + damping), state


@shows_scaling_of(AdaFisher)
def scale_by_adafisher(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by AdaFisher's preconditioner: diagonals of both Kronecker factors.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    G / (h_K h_Cᵀ + λ), where h_K and h_C are averages of the diagonals of the second moments of
    inputs and output gradients. The structures of layers are not used.

    References:
      Gomes et al., AdaFisher: Adaptive Second Order Optimization via Fisher Information, ICLR 2025,
      arXiv 2405.16397.
    """
    return scaling_of(scale_by_adafisher, AdaFisher, layers, options)


@shows_recipe_of(AdaFisher)
def adafisher(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """AdaFisher in the place of AdamW: the diagonals of both second moments of a layer.

    It needs next to no memory beside the momentum. Gomes et al., ICLR 2025, arXiv 2405.16397.
    """
    return optimizer_of(adafisher, AdaFisher, learning_rate, layers, options)
