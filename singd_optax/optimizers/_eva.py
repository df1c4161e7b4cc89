"""Eva: KFAC of rank one, from vectors; and Eva-f, from the inputs' vector alone."""

import dataclasses
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from singd_optax._types import PyTree
from singd_optax._validate import check_choice, check_number, check_precision
from singd_optax.layers import Layers
from singd_optax.measures import NO_MOMENTS, Mean, Measure, Statistics
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
    Recipe,
    RowValues,
    Rule,
    hyperparameter_at,
    new_weight,
)
from singd_optax.structures import Precision, contract

INPUTS, GRADIENTS = Mean(0), Mean(1)


class EvaState(NamedTuple):
    """What Eva keeps of a layer.

    Attributes:
      mean_K: ā, the moving average of the inputs' mean, (fan_in,).
      mean_C: ḡ, the moving average of the output gradients' mean, (fan_out,).
      averaged: The number of means in the averages, int32.
    """

    mean_K: RowValues
    mean_C: ColumnValues
    averaged: Counter


class EvaFState(NamedTuple):
    """What Eva-f keeps of a layer.

    Attributes:
      mean_K: ā, the moving average of the inputs' mean, (fan_in,).
      averaged: The number of means in the average, int32.
    """

    mean_K: RowValues
    averaged: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaF(Rule):
    """Eva-f: FOOF with the mean of inputs in the place of their moment (arXiv 2308.02123).

    MAC is the same method. With ā the moving average of the mean of a layer's inputs a::

        ā <- (1 - b1) ā + b1 E[a]
        ∇ -> (ā āᵀ + λ I)^-1 ∇ = [ ∇ - ā (āᵀ ∇) / (λ + |ā|²) ] / λ

    This takes products with vectors only, and one vector is kept. The average has its bias
    corrected as Adam's has.

    Attributes:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by the size of
        the term of rank one (|ā|², and |ā|² |ḡ|² in ``Eva``), so that the scales of the loss and of
        activations drop out.
      factor_learning_rate: b1, the weight of a new mean in the averages, a number in (0, 1] or a
        schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    damping: Hyperparameter = 1.0
    damping_mode: DampingMode = "relative"
    factor_learning_rate: Hyperparameter = 0.05
    precision: Precision = "highest"

    State: ClassVar[type] = EvaFState
    #: Means cost next to nothing.
    recipe: ClassVar[Recipe] = Recipe(refresh_every=1)

    @classmethod
    def paper(cls, damping: Hyperparameter = 0.03) -> Self:
        """Absolute damping, and averages that nearly are the last mean (b1 is 0.95).

        Args:
          damping: The damping λ, a number > 0 or a schedule.
        """
        return cls(damping=damping, damping_mode="absolute", factor_learning_rate=0.95)

    def __post_init__(self) -> None:
        check_number("damping", self.damping, strict=True)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative"))
        check_number("factor_learning_rate", self.factor_learning_rate, strict=True, maximum=1)
        check_precision("precision", self.precision)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The mean of inputs."""
        return NO_MOMENTS, INPUTS

    def init(self, view: MatrixView) -> PyTree:
        """A mean of zero, in which nothing is averaged yet."""
        return EvaFState(INPUTS.zeros(view), jnp.zeros(view.stack_shape, jnp.int32))

    def refresh(
        self,
        view: MatrixView,
        state: PyTree,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[PyTree, bool]:
        """New averages."""
        assert statistics is not None
        rate = new_weight(self.factor_learning_rate, state.averaged, count)
        rate = rate.astype(view.statistics_dtype)[..., None]
        means = {
            name: (1 - rate) * getattr(state, name) + rate * statistics.value_of(measure)
            for name, measure in (("mean_K", INPUTS), ("mean_C", GRADIENTS))
            if name in state._fields
        }
        return state._replace(averaged=state.averaged + 1, **means), True

    def unit(self, view: MatrixView, state: PyTree, size: jax.Array) -> jax.Array:
        """What relative damping is multiplied by: the size of the term of rank one."""
        del view, state
        return size

    def direction(
        self,
        view: MatrixView,
        state: PyTree,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, PyTree]:
        """The preconditioned vector; with neither a mean nor damping, the vector itself."""
        a, precision = state.mean_K, self.precision
        size = contract("...i,...i->...", a, a, precision=precision)
        along = contract("...i,...io->...o", a, vector, precision=precision)
        if "mean_C" in state._fields:
            g = state.mean_C
            size = size * contract("...o,...o->...", g, g, precision=precision)
            along = contract("...o,...o->...", along, g, precision=precision)[..., None] * g
        damping = hyperparameter_at(self.damping, count, size.dtype)
        if self.damping_mode == "relative":
            damping = damping * self.unit(view, state, size)
        damping = jnp.broadcast_to(damping, size.shape)
        nothing = damping == 0
        total = jnp.where(nothing, 1, damping + size)
        damping = jnp.where(nothing, 1, damping)
        rest = vector - a[..., :, None] * (along / total[..., None])[..., None, :]
        return rest / damping[..., None, None], state


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eva(EvaF):
    """Eva: KFAC with means in the place of second moments (arXiv 2308.02123).

    With ā and ḡ the moving averages of the means of a layer's inputs a and output gradients g::

        ā <- (1 - b1) ā + b1 E[a],    ḡ <- (1 - b1) ḡ + b1 E[g]
        ∇ -> ((ā āᵀ) ⊗ (ḡ ḡᵀ) + λ I)^-1 ∇ = [ ∇ - (āᵀ ∇ ḡ) / (λ + |ā|² |ḡ|²) ā ḡᵀ ] / λ

    This takes products with vectors only, and two vectors are kept. It needs statistics of
    ``fisher="empirical"`` (see ``value_and_grad``), as gradients at labels that are drawn from the
    model's predictions have mean zero. The authors' code takes the mean of gradients that were
    divided by the size N of the batch already: its λ is N² times smaller than this one. Options are
    those of ``EvaF``.
    """

    State: ClassVar[type] = EvaState

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The means of both sides."""
        return NO_MOMENTS, INPUTS, GRADIENTS

    def init(self, view: MatrixView) -> PyTree:
        """Means of zero, in which nothing is averaged yet."""
        averaged = jnp.zeros(view.stack_shape, jnp.int32)
        return EvaState(INPUTS.zeros(view), GRADIENTS.zeros(view), averaged)


@shows_scaling_of(Eva)
def scale_by_eva(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Eva's preconditioner: KFAC of rank one, from vectors.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    [ G - (āᵀ G ḡ) / (λ + |ā|² |ḡ|²) ā ḡᵀ ] / λ, where ā and ḡ are averages of the means of inputs
    and output gradients. The structures of layers are not used.

    References:
      Zhang et al., Eva: A General Vectorized Approximation Framework for Second-order
      Optimization, ICLR 2023, arXiv 2308.02123.
    """
    return scaling_of(scale_by_eva, Eva, layers, options)


@shows_recipe_of(Eva)
def eva(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Eva in the place of AdamW: KFAC of rank one, from the means of inputs and output gradients.

    It needs two vectors for each layer beside the momentum, and products with vectors only. Zhang
    et al., ICLR 2023, arXiv 2308.02123.
    """
    return optimizer_of(eva, Eva, learning_rate, layers, options)


@shows_scaling_of(EvaF)
def scale_by_eva_f(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Eva-f's preconditioner: FOOF of rank one, from a vector.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    [ G - ā (āᵀ G) / (λ + |ā|²) ] / λ, where ā is an average of the mean of inputs. The structures
    of layers are not used.

    References:
      Zhang et al., Eva: A General Vectorized Approximation Framework for Second-order
      Optimization, ICLR 2023, arXiv 2308.02123.
    """
    return scaling_of(scale_by_eva_f, EvaF, layers, options)


@shows_recipe_of(EvaF)
def eva_f(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Eva-f in the place of AdamW: FOOF of rank one, from the mean of inputs.

    It needs one vector for each layer beside the momentum, and products with vectors only. Zhang et
    al., ICLR 2023, arXiv 2308.02123.
    """
    return optimizer_of(eva_f, EvaF, learning_rate, layers, options)
