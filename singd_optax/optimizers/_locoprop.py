"""LocoProp: a few steps of gradient descent on a loss of each layer's own."""

import dataclasses
from typing import ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_choice, check_interval, check_number, check_precision
from singd_optax.layers import Layers
from singd_optax.measures import Measure, Moments, Statistics
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
    Number,
    RowFactor,
    RowMoment,
    Rule,
    hyperparameter_at,
    new_weight,
)
from singd_optax.rules._inverse import check_invertible
from singd_optax.structures import Identity, Precision

LocalMethod = Literal["gradient", "rmsprop"]

#: From the paper's code: the decay of local squares, what is added to their root (there 1e-5 beside
#: gradients of sums, here beside a root mean square of 1), and the shortest local step.
_DECAY, _EPS, _SHORTEST = 0.9, 1e-5, 0.25


class LocoPropState(NamedTuple):
    """What LocoProp keeps of a layer.

    Attributes:
      K: The Hessian of the local loss, S_K + λ I, divided by ρ.
      C: The identity, which holds no numbers.
      S_K: The moving average of the inputs' second moment.
      bound: ρ, a bound on the eigenvalues of S_K + λ I.
      averaged: The number of statistics in S_K, int32.
    """

    K: RowFactor
    C: NoColumnFactor
    S_K: RowMoment
    bound: Number
    averaged: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocoProp(Rule):
    """LocoProp-S: some steps of each layer on a loss of its own (arXiv 2106.06199).

    A layer with inputs a, weights W and output gradients g has targets, which are one gradient step
    γ away from its outputs. Some steps on its new weights V, from V = W, go towards them::

        E[ |a V - (a W - γ g)|² ] / 2 + λ ‖V - W‖² / 2

    The gradient of this local loss is S_K (V - W) + γ ∇ + λ (V - W), where a refresh averages
    S_K <- (1 - b1) S_K + b1 E[a aᵀ]. So the local steps need nothing but the second moment of
    inputs and the gradient ∇. Let D = (W - V) / γ, which starts at 0, and let ρ be a bound on the
    eigenvalues of S_K + λ I. The local steps i = 1, 2, ... are::

        R = ∇ - (S_K + λ I) D
        "gradient":  D <- D + η / ρ · R
        "rmsprop":   v <- 0.9 v + 0.1 R²,   D <- D + η_i rms(∇) / ρ · R / (√(v / (1 - 0.9^i)) + ε)

    where η_i falls from η to η / 4. One local step of "gradient" has the direction of SGD. Many of
    them tend to (S_K + λ I)^-1 ∇, the direction of ``FOOF``, without an inverse. Few steps leave
    out the directions of small eigenvalues, as damping does. (LocoProp-M, whose local loss contains
    the layer's activation, needs the inputs themselves, which an optimizer does not see.)

    Attributes:
      local_steps: The number of local steps, an int >= 1. Each is one product with S_K.
      local_method: "gradient", or "rmsprop" (the paper's), whose v starts at 0 in each step.
      local_learning_rate: η, the size of local steps relative to 1 / ρ, a number in (0, 2). With
        "gradient" and 1, a direction whose eigenvalue is ρ arrives in one local step.
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number >= 0 or
        a schedule.
      damping_mode: "absolute", or "relative", where λ is multiplied by Tr S_K / d_i, so that the
        scale of activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the average, a number in (0, 1] or
        a schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    local_steps: int = 10
    local_method: LocalMethod = "gradient"
    local_learning_rate: float = 1.0
    damping: Hyperparameter = 0.0
    damping_mode: DampingMode = "relative"
    factor_learning_rate: Hyperparameter = 0.05
    precision: Precision = "highest"

    State: ClassVar[type] = LocoPropState

    @classmethod
    def paper(cls, local_learning_rate: float = 1.0) -> Self:
        """Ten local steps of RMSProp, with the moment of this batch alone.

        Refresh on every step for it, ``refresh_every=1``.

        Args:
          local_learning_rate: η, a number in (0, 2). The paper's rates are absolute, and were
            searched for each task.
        """
        return cls(
            local_method="rmsprop",
            local_learning_rate=local_learning_rate,
            factor_learning_rate=1.0,
        )

    def __post_init__(self) -> None:
        check_interval("local_steps", self.local_steps, schedule=False)
        check_choice("local_method", self.local_method, ("gradient", "rmsprop"))
        check_number(
            "local_learning_rate",
            self.local_learning_rate,
            strict=True,
            maximum=2,
            strict_maximum=True,
            schedule=False,
        )
        check_number("damping", self.damping)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative"))
        check_number("factor_learning_rate", self.factor_learning_rate, strict=True, maximum=1)
        check_precision("precision", self.precision)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The second moment of inputs alone."""
        return (Moments(structures=(None, Identity())),)

    def init(self, view: MatrixView) -> LocoPropState:
        """The Hessian I, and an average of zero."""
        check_invertible(view.structures[0], view.path)
        stack, dtype = view.stack_shape, view.statistics_dtype
        K = view.structures[0].eye(view.dims[0], view.factor_dtype[0], stack)
        C = Identity().eye(view.dims[1], view.factor_dtype[1])
        S_K = view.structures[0].zeros(view.dims[0], dtype, stack)
        return LocoPropState(K, C, S_K, jnp.ones(stack, dtype), jnp.zeros(stack, jnp.int32))

    def refresh(
        self,
        view: MatrixView,
        state: LocoPropState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[LocoPropState, bool]:
        """A new average, and the Hessian with it."""
        assert statistics is not None
        dtype = view.statistics_dtype
        rate = new_weight(self.factor_learning_rate, state.averaged, count).astype(dtype)
        S_K = state.S_K * (1 - rate) + statistics.H_K * rate
        damping = hyperparameter_at(self.damping, count, dtype)
        if self.damping_mode == "relative":
            damping = damping * S_K.average_trace()
        hessian = S_K.add_identity(jnp.broadcast_to(damping, view.stack_shape))
        bound = hessian.spectral_norm_bound(precision=self.precision).astype(dtype)
        safe = jnp.where(bound > 0, bound, 1)
        return LocoPropState(hessian * (1 / safe), state.C, S_K, safe, state.averaged + 1), True

    def direction(
        self,
        view: MatrixView,
        state: LocoPropState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, LocoPropState]:
        """The local steps, in units of their bound."""
        largest = jnp.abs(vector).max((-2, -1), keepdims=True)
        scale = jnp.where(largest > 0, largest, 1)  # squares of entries may be out of range
        unit = vector / scale
        size = jnp.sqrt(jnp.mean(unit**2, (-2, -1), keepdims=True))
        is_plain = self.local_method == "gradient"

        def step(index: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
            moved, squares = carry
            rest = unit - state.K.matmul(moved, precision=self.precision)
            if is_plain:
                return moved + self.local_learning_rate * rest, squares
            squares = _DECAY * squares + (1 - _DECAY) * rest**2
            root = jnp.sqrt(squares / (1 - _DECAY ** (index + 1.0)))
            length = jnp.maximum(1 - index / self.local_steps, _SHORTEST)
            length = (self.local_learning_rate * length).astype(rest.dtype)
            ratio = (rest / jnp.where(size > 0, root + _EPS * size, 1)).astype(rest.dtype)
            return moved + length * size * ratio, squares.astype(rest.dtype)

        begin = jnp.zeros_like(unit), jnp.zeros_like(unit)
        moved, _ = jax.lax.fori_loop(0, self.local_steps, step, begin)
        return moved * (scale / state.bound[..., None, None]), state


@shows_scaling_of(LocoProp)
def scale_by_locoprop(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by LocoProp-S: a few steps on a local loss of each layer.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) is taken by
    ``local_steps`` steps towards (S_K + λ I)^-1 G, where S_K is a moving average of the second
    moment of inputs. The structure of a layer's C is not used.

    References:
      Amid et al., LocoProp: Enhancing BackProp via Local Loss Optimization, AISTATS 2022,
      arXiv 2106.06199.
    """
    return scaling_of(scale_by_locoprop, LocoProp, layers, options)


@shows_recipe_of(LocoProp)
def locoprop(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """LocoProp-S in the place of AdamW: some steps of each layer on a loss of its own.

    It comes near ``foof`` by matrix products, without inverses. Amid et al., AISTATS 2022, arXiv
    2106.06199, whose own local steps are ``local_method="rmsprop"``.
    """
    return optimizer_of(locoprop, LocoProp, learning_rate, layers, options)
