"""FOOF: gradient descent on neurons; KFAC without a factor on the output side."""

import dataclasses
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import (
    check_choice,
    check_flag,
    check_interval,
    check_number,
    check_precision,
)
from singd_optax.layers import Layers
from singd_optax.measures import NO_MOMENTS, Cross, Measure, Moments, Statistics
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import (
    Counter,
    DampingMode,
    Hyperparameter,
    MatrixView,
    NoColumnFactor,
    RowFactor,
    RowMoment,
    Rule,
    hyperparameter_at,
    new_weight,
)
from singd_optax.rules._inverse import check_invertible, inverse
from singd_optax.structures import Identity, Precision

CROSS = Cross(sides=(True, False))


class FOOFState(NamedTuple):
    """What FOOF keeps of a layer.

    Attributes:
      K: The inverse of the damped S_K, fan_in x fan_in in its structure.
      C: The identity, which holds no numbers.
      S_K: The moving average of the inputs' second moment.
      averaged: The number of statistics in the average, int32.
      inverted_at: The step of the last inversion, int32; -1 before the first.
    """

    K: RowFactor
    C: NoColumnFactor
    S_K: RowMoment
    averaged: Counter
    inverted_at: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class FOOF(Rule):
    """FOOF, fast first-order optimizer: KFAC on the side of inputs alone (arXiv 2201.12250).

    With U (d_i x d_i) the second moment of a layer's inputs::

        S_K <- (1 - b1) S_K + b1 U
        ∇   -> (S_K + λ I)^-1 ∇

    By ridge regression, this is the step that moves a layer's outputs along their gradients. It is
    KFAC with C = I, for half of the statistics. The average has its bias corrected as Adam's has.

    Attributes:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by Tr S_K / d_i,
        so that the scale of activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the average, a number in (0, 1] or
        a schedule.
      cross_moments: Whether E[|g|² a aᵀ] / d_o takes the place of U for inputs a and output
        gradients g, so that each input counts by the size of its own gradient. S_K is then the mean
        of the blocks that the Fisher matrix has for each output, which for a dense layer is the
        method of mini-block Fisher (arXiv 2202.04124).
      inverse_every: The least number of steps from one inversion to the next, an int >= 1. Only
        refreshes invert, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    damping: Hyperparameter = 0.03
    damping_mode: DampingMode = "relative"
    factor_learning_rate: Hyperparameter = 0.05
    cross_moments: bool = False
    inverse_every: int = 1
    precision: Precision = "highest"

    State: ClassVar[type] = FOOFState

    @classmethod
    def paper(cls, damping: Hyperparameter = 1.0) -> Self:
        """Absolute damping, and inversions every 100 steps.

        Args:
          damping: The damping λ, a number > 0 or a schedule, for moments that are means over the
            batch; the paper's moments are sums.
        """
        return cls(damping=damping, damping_mode="absolute", inverse_every=100)

    def __post_init__(self) -> None:
        check_number("damping", self.damping, strict=True)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative"))
        check_number("factor_learning_rate", self.factor_learning_rate, strict=True, maximum=1)
        check_flag("cross_moments", self.cross_moments)
        check_interval("inverse_every", self.inverse_every, schedule=False)
        check_precision("precision", self.precision)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The second moment of inputs alone."""
        if self.cross_moments:
            return NO_MOMENTS, CROSS
        return (Moments(structures=(None, Identity())),)

    def init(self, view: MatrixView) -> FOOFState:
        """The inverse I, and an average of zero."""
        check_invertible(view.structures[0], view.path)
        stack, dtype = view.stack_shape, view.statistics_dtype
        K = view.structures[0].eye(view.dims[0], view.factor_dtype[0], stack)
        C = Identity().eye(view.dims[1], view.factor_dtype[1])
        S_K = view.structures[0].zeros(view.dims[0], dtype, stack)
        return FOOFState(K, C, S_K, jnp.zeros(stack, jnp.int32), jnp.full(stack, -1, jnp.int32))

    def refresh(
        self,
        view: MatrixView,
        state: FOOFState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[FOOFState, bool]:
        """A new average, and a new inverse if one is due."""
        assert statistics is not None
        dtype = view.statistics_dtype
        rate = new_weight(self.factor_learning_rate, state.averaged, count).astype(dtype)
        moment = statistics.H_K
        if self.cross_moments:
            moment = statistics.value_of(CROSS).K * (1 / view.dims[1])
        S_K = state.S_K * (1 - rate) + moment * rate
        damping = hyperparameter_at(self.damping, count, dtype)
        if self.damping_mode == "relative":
            damping = damping * S_K.average_trace()
        damping = jnp.broadcast_to(damping, view.stack_shape)
        now = jnp.any((state.inverted_at < 0) | (count - state.inverted_at >= self.inverse_every))
        invert = lambda: inverse(S_K.add_identity(damping))
        K = jax.lax.cond(now, invert, lambda: state.K)
        inverted_at = jnp.where(now, count, state.inverted_at)
        return FOOFState(K, state.C, S_K, state.averaged + 1, inverted_at), True

    def direction(
        self,
        view: MatrixView,
        state: FOOFState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, FOOFState]:
        """K X: one product, on the side of inputs."""
        return state.K.matmul(vector, precision=self.precision), state


@shows_scaling_of(FOOF)
def scale_by_foof(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by FOOF's preconditioner: gradient descent on neurons.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K + λ I)^-1 G, where S_K is a moving average of the second moment of inputs, and λ is the
    damping. The structure of a layer's C is not used.

    References:
      Benzing, Gradient Descent on Neurons and its Link to Approximate Second-Order Optimization,
      ICML 2022, arXiv 2201.12250.
    """
    return scaling_of(scale_by_foof, FOOF, layers, options)


@shows_recipe_of(FOOF)
def foof(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """FOOF in the place of AdamW: gradients times the inverse second moment of inputs.

    It is ``kfac`` on the side of inputs alone, for about half of its price. Benzing, ICML 2022,
    arXiv 2201.12250.
    """
    return optimizer_of(foof, FOOF, learning_rate, layers, options)
