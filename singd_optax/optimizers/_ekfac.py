"""EKFAC: KFAC's eigenbases, with the Fisher's own diagonal in them."""

import dataclasses
from typing import ClassVar, Literal, NamedTuple

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
from singd_optax.measures import Measure, Moments, Squares, Statistics
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import (
    ColumnBasis,
    ColumnMoment,
    Counter,
    DampingMode,
    Hyperparameter,
    MatrixView,
    Number,
    RowBasis,
    RowEntries,
    RowMoment,
    Rule,
    hyperparameter_at,
    new_weight,
)
from singd_optax.rules._inverse import check_invertible, eigen
from singd_optax.structures import DiagonalMatrix, Precision, StructuredMatrix, contract
from singd_optax.transforms import damping_schedule

ScaleSource = Literal["rows", "gradients"]


class EKFACState(NamedTuple):
    """What EKFAC keeps of a layer.

    Attributes:
      K: Eigenvectors of S_K.
      C: Eigenvectors of S_C.
      scales: s, the diagonal of the curvature in this basis, (fan_in, fan_out).
      damping: λ, in the units of ``damping_mode``.
      S_K: Moving average of the inputs' second moment.
      S_C: Moving average of the output gradients'.
      averaged: How many statistics are in them, int32.
      scaled: How many squares are in the scales, int32.
      turned_at: The step of the last decomposition, int32, or -1.
    """

    K: RowBasis
    C: ColumnBasis
    scales: RowEntries
    damping: Number
    S_K: RowMoment
    S_C: ColumnMoment
    averaged: Counter
    scaled: Counter
    turned_at: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class EKFAC(Rule):
    """The update of EKFAC (arXiv 1806.03884).

    With U and G the second moments of inputs a and output gradients g, and all squares and
    quotients entry by entry::

        S_K <- (1 - b1) S_K + b1 U = K Diag(.) Kᵀ,    S_C <- (1 - b1) S_C + b1 G = C Diag(.) Cᵀ
        s   <- (1 - b1) s + b1 E[ (Kᵀ a gᵀ C)² ]
        natural gradient = K [ (Kᵀ ∇ C) / (s + λ) ] Cᵀ

    (or with a power of s + λ). KFAC by eigenvectors has the products of both sides' eigenvalues in
    the place of s. In this basis s is the diagonal of the Fisher itself, the best there is: the
    error in the Frobenius norm is never above KFAC's. Squares are measured in the basis of the step
    before; when it turns, by R_K = K_oldᵀ K and R_C, they are carried over as (R_K²)ᵀ s R_C², which
    keeps their sum, and is exact where the Fisher is diagonal in the old basis, and for
    permutations. Averages have their bias corrected as Adam's have.

    Attributes:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to the mean of s, so that the scale of
        loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      scale_source: "rows", squares of each example's gradient, when statistics are formed; or
        "gradients", (Kᵀ ∇ C)² of each step's gradient, which are smaller by about the size of the
        batch, follow more closely, and need no statistic beside KFAC's.
      exponent: Of s + λ: 1 for the natural gradient, 0.5 for the root that Adam takes, 0 for the
        gradient; a number from 0 to 1.
      exact_squares: Whether squares by "rows" are those of an example's gradient where it has
        several positions (tokens, pixels), and not of each position's: as dear as the gradient.
      basis_every: At least this many steps from one decomposition to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
    """

    damping: Hyperparameter = damping_schedule()
    damping_mode: DampingMode = "relative"
    factor_learning_rate: Hyperparameter = 0.05
    scale_source: ScaleSource = "rows"
    exponent: float = 1.0
    exact_squares: bool = False
    basis_every: int = 1
    precision: Precision = "highest"

    State: ClassVar[type] = EKFACState

    def __post_init__(self) -> None:
        check_number("damping", self.damping, strict=True)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative"))
        check_number("factor_learning_rate", self.factor_learning_rate, strict=True, maximum=1)
        check_choice("scale_source", self.scale_source, ("rows", "gradients"))
        check_number("exponent", self.exponent, maximum=1, schedule=False)
        check_flag("exact_squares", self.exact_squares)
        check_interval("basis_every", self.basis_every, schedule=False)
        check_precision("precision", self.precision)

    @property
    def squares(self) -> Squares | None:
        """What is measured for the scales, if anything is."""
        of_rows = self.scale_source == "rows"
        return Squares(("K", "C"), exact=self.exact_squares) if of_rows else None

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Plain moments, and squares in the basis."""
        return (Moments(), self.squares) if self.squares else (Moments(),)

    @property
    def observes(self) -> bool:
        """Whether scales are of gradients."""
        return self.scale_source == "gradients"

    def init(self, view: MatrixView) -> EKFACState:
        """Bases I, scales 1, and averages of nothing."""
        for structure in view.structures:
            check_invertible(structure, view.path)
        if self.squares:
            self.squares.zeros(view)
        stack, dtype = view.stack_shape, view.statistics_dtype
        sides = list(zip(view.structures, view.dims, view.factor_dtype, strict=True))
        K, C = (structure.eye(dim, name, stack) for structure, dim, name in sides)
        S_K, S_C = (structure.zeros(dim, dtype, stack) for structure, dim, _ in sides)
        averaged, scaled = (jnp.zeros(stack, jnp.int32) for _ in range(2))
        turned_at = jnp.full(stack, -1, jnp.int32)
        scales = jnp.ones((*stack, *view.dims), dtype)
        damping = jnp.zeros(stack, dtype)
        return EKFACState(K, C, scales, damping, S_K, S_C, averaged, scaled, turned_at)

    def moments(self, statistics: Statistics) -> tuple[StructuredMatrix, StructuredMatrix]:
        """Whose averages have the eigenvectors."""
        return statistics.H_K, statistics.H_C

    def scales_of_values(
        self, S_K: StructuredMatrix, values_K: jax.Array, values_C: jax.Array
    ) -> jax.Array:
        """What the scales are where inputs and gradients are independent: those of KFAC."""
        del S_K
        return values_K[..., :, None] * values_C[..., None, :]

    def observe(
        self, view: MatrixView, state: EKFACState, gradient: jax.Array, count: jax.Array
    ) -> EKFACState:
        """One more square in the scales, if they are of gradients."""
        if self.scale_source != "gradients":
            return state
        rate = new_weight(self.factor_learning_rate, state.scaled, count)
        squares = self._turned(state, gradient) ** 2
        scales = _averaged(state.scales, squares, rate)
        return state._replace(scales=scales, scaled=state.scaled + 1)

    def refresh(
        self,
        view: MatrixView,
        state: EKFACState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[EKFACState, bool]:
        """New averages; new bases if they are due."""
        assert statistics is not None
        dtype = view.statistics_dtype
        rate = new_weight(self.factor_learning_rate, state.averaged, count).astype(dtype)
        moments = self.moments(statistics)
        S_K, S_C = (
            old * (1 - rate) + new * rate
            for old, new in zip((state.S_K, state.S_C), moments, strict=True)
        )
        damping = hyperparameter_at(self.damping, count, dtype)
        damping = jnp.broadcast_to(damping, view.stack_shape)
        new = state._replace(S_K=S_K, S_C=S_C, averaged=state.averaged + 1, damping=damping)
        if self.squares:
            own = new_weight(self.factor_learning_rate, state.scaled, count).astype(dtype)
            scales = _averaged(state.scales, statistics.value_of(self.squares), own)
            new = new._replace(scales=scales, scaled=state.scaled + 1)
        due = (state.turned_at < 0) | (count - state.turned_at >= self.basis_every)
        now = jnp.any(due)
        turned_at = jnp.where(now, count, state.turned_at)
        turn = lambda: self._in_new_basis(new, gradient)
        return jax.lax.cond(now, turn, lambda: new)._replace(turned_at=turned_at), True

    def _in_new_basis(self, state: EKFACState, gradient: jax.Array) -> EKFACState:
        """With eigenvectors of now; the first time scales start anew, if the basis is not I."""
        (K, values_K), (C, values_C) = eigen(state.S_K), eigen(state.S_C)
        K, C = K.astype(state.K.dtype), C.astype(state.C.dtype)
        new = state._replace(K=K, C=C)
        if self.scale_source == "gradients":
            fresh = self._turned(new, gradient) ** 2
        else:  # rounding may leave eigenvalues of a singular moment below zero
            values = jnp.maximum(values_K, 0), jnp.maximum(values_C, 0)
            fresh = self.scales_of_values(state.S_K, *values)
        carried = _carried(state.K, K, state.scales)
        swapped = _carried(state.C, C, jnp.swapaxes(carried, -1, -2))
        carried = jnp.swapaxes(swapped, -1, -2)
        if not (isinstance(K, DiagonalMatrix) and isinstance(C, DiagonalMatrix)):
            is_first = (state.turned_at < 0)[..., None, None]
            carried = jnp.where(is_first, fresh, carried)
        return new._replace(scales=carried)

    def _turned(self, state: EKFACState, matrix: jax.Array) -> jax.Array:
        """Kᵀ X C."""
        turned = jnp.swapaxes(state.K.transpose_matmul(matrix, precision=self.precision), -1, -2)
        turned = state.C.transpose_matmul(turned, precision=self.precision)
        return jnp.swapaxes(turned, -1, -2)

    def _back(self, state: EKFACState, turned: jax.Array) -> jax.Array:
        """K X Cᵀ."""
        left = state.C.matmul(jnp.swapaxes(turned, -1, -2), precision=self.precision)
        return state.K.matmul(jnp.swapaxes(left, -1, -2), precision=self.precision)

    def _damped(self, state: EKFACState) -> jax.Array:
        """The scales and λ, to the power of the preconditioner; 1 where there is neither."""
        damping = state.damping[..., None, None]
        if self.damping_mode == "relative":
            damping = damping * jnp.mean(state.scales, axis=(-2, -1), keepdims=True)
        damped = state.scales + damping
        damped = jnp.where(damped > 0, damped, 1)
        # The exponent may be traced, by optax.inject_hyperparams.
        is_one = isinstance(self.exponent, int | float) and self.exponent == 1
        return damped if is_one else damped**self.exponent

    def direction(
        self,
        view: MatrixView,
        state: EKFACState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, EKFACState]:
        """The natural gradient."""
        turned = self._turned(state, vector) / self._damped(state)
        return self._back(state, turned), state

    def curvature(
        self, view: MatrixView, state: EKFACState, matrix: jax.Array, count: jax.Array
    ) -> jax.Array:
        """K [ (Kᵀ X C) s ] Cᵀ."""
        return self._back(state, self._turned(state, matrix) * state.scales)

    def whiten(self, view: MatrixView, state: EKFACState, matrix: jax.Array) -> jax.Array:
        """In the basis, over the roots of damped scales."""
        del view
        return self._turned(state, matrix) / jnp.sqrt(self._damped(state))

    def unwhiten(self, view: MatrixView, state: EKFACState, matrix: jax.Array) -> jax.Array:
        """Likewise, back from the basis: after ``whiten`` it is the natural gradient."""
        del view
        return self._back(state, matrix / jnp.sqrt(self._damped(state)))


def _averaged(average: jax.Array, new: jax.Array, rate: jax.Array) -> jax.Array:
    return average + (new - average) * rate[..., None, None]


def _carried(old: StructuredMatrix, new: StructuredMatrix, scales: jax.Array) -> jax.Array:
    """(R²)ᵀ s with R = oldᵀ new, block by block."""
    if isinstance(new, DiagonalMatrix):
        return scales
    squares = jax.tree.map(
        lambda before, after: contract("...ki,...kj->...ij", before, after) ** 2, old, new
    )
    return squares.transpose_matmul(scales)


@shows_scaling_of(EKFAC)
def scale_by_ekfac(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by EKFAC's preconditioner: KFAC's eigenbases, the Fisher's own diagonal.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    K [ (Kᵀ G C) / (s + λ) ] Cᵀ, with K and C the eigenvectors of KFAC's second moments. The
    equations are in ``singd_optax.optimizers.EKFAC``; parameters outside ``layers`` pass through
    unchanged.

    References:
      George et al., Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis,
      NeurIPS 2018, arXiv 1806.03884.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = optax.chain(singd_optax.scale_by_ekfac(layers), optax.scale_by_learning_rate(0.1))
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      >>> updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      >>> params = optax.apply_updates(params, updates)
    """
    return scaling_of(scale_by_ekfac, EKFAC, layers, options)


@shows_recipe_of(EKFAC)
def ekfac(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """EKFAC, KFAC with the Fisher's own diagonal in its eigenbasis, as a drop-in for AdamW."""
    return optimizer_of(ekfac, EKFAC, learning_rate, layers, options)
