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
      K: The eigenvectors of S_K.
      C: The eigenvectors of S_C.
      scales: s, the diagonal of the curvature in the basis of both, (fan_in, fan_out).
      damping: λ, in the units of ``damping_mode``.
      S_K: The moving average of the inputs' second moment.
      S_C: The moving average of the output gradients' second moment.
      averaged: The number of statistics in these averages, int32.
      scaled: The number of squares in the scales, int32.
      turned_at: The step of the last decomposition, int32; -1 before the first.
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
    """EKFAC: KFAC's eigenvectors, with the Fisher's own diagonal in them (arXiv 1806.03884).

    Let U and G be the second moments of a layer's inputs a and output gradients g. A refresh
    averages them, and the squares in the basis of eigenvectors K and C; all squares and quotients
    are taken entry by entry::

        S_K <- (1 - b1) S_K + b1 U = K Diag(.) Kᵀ,    S_C <- (1 - b1) S_C + b1 G = C Diag(.) Cᵀ
        s   <- (1 - b1) s + b1 E[ (Kᵀ a gᵀ C)² ]
        ∇   -> K [ (Kᵀ ∇ C) / (s + λ)^exponent ] Cᵀ

    KFAC by eigenvectors has the products of both sides' eigenvalues in the place of s. Here s is
    the diagonal of the Fisher matrix in this basis, the best diagonal there is: the error in the
    Frobenius norm is never above KFAC's. The squares are measured in the last basis. When a new one
    takes its place, with R_K = K_oldᵀ K and R_C alike, the average s becomes (R_K²)ᵀ s R_C². This
    keeps its sum, and is exact where the Fisher is diagonal in the old basis, and where the basis
    is only permuted. Averages have their bias corrected as Adam's have.

    Attributes:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by the mean of s,
        so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      scale_source: What s is the average of: "rows", the squares of each example's gradient, on
        refresh steps; or "gradients", the squares (Kᵀ ∇ C)² of each step's gradient, which are
        smaller by about the size of the batch, follow more closely, and need no statistics beside
        KFAC's.
      exponent: The power of s + λ, a number from 0 to 1: 1 for the natural gradient, 0.5 for the
        root that Adam takes, 0 for the gradient.
      exact_squares: Whether "rows" squares the gradient of a whole example where an example has
        several positions (tokens, pixels), and not that of each position. This costs as much as the
        gradient.
      basis_every: The least number of steps from one decomposition to the next, an int >= 1. Only
        refreshes decompose, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
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
        """The measure of the scales, or None where they are of gradients."""
        of_rows = self.scale_source == "rows"
        return Squares(("K", "C"), exact=self.exact_squares) if of_rows else None

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The second moments U and G, and squares in the basis."""
        return (Moments(), self.squares) if self.squares else (Moments(),)

    @property
    def observes(self) -> bool:
        """Whether the scales are averages of squared gradients."""
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
        """The moments whose averages have the eigenvectors."""
        return statistics.H_K, statistics.H_C

    def scales_of_values(
        self, S_K: StructuredMatrix, values_K: jax.Array, values_C: jax.Array
    ) -> jax.Array:
        """The scales that KFAC has, which are exact if inputs and gradients are independent."""
        del S_K
        return values_K[..., :, None] * values_C[..., None, :]

    def observe(
        self, view: MatrixView, state: EKFACState, gradient: jax.Array, count: jax.Array
    ) -> EKFACState:
        """Average one more square into the scales, if they are of gradients."""
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
        """Decompose the averages; the first time, if the basis is not I, scales start anew."""
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
        """(s + λ)^exponent; 1 where both s and λ are 0."""
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
        """Kᵀ X C, divided by the roots of the damped scales."""
        del view
        return self._turned(state, matrix) / jnp.sqrt(self._damped(state))

    def unwhiten(self, view: MatrixView, state: EKFACState, matrix: jax.Array) -> jax.Array:
        """K Y Cᵀ of Y divided likewise; of what ``whiten`` returns, it is the direction."""
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
    K [ (Kᵀ G C) / (s + λ) ] Cᵀ, where K and C are the eigenvectors of KFAC's second moments, and s
    is the diagonal of the Fisher matrix in their basis.

    References:
      George et al., Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis,
      NeurIPS 2018, arXiv 1806.03884.
    """
    return scaling_of(scale_by_ekfac, EKFAC, layers, options)


@shows_recipe_of(EKFAC)
def ekfac(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """EKFAC in the place of AdamW: KFAC's eigenvectors, with the Fisher's own diagonal in them.

    It is never further from the Fisher matrix than ``kfac``, for twice the products and n numbers
    more for a kernel of n entries; ``scale_source="gradients"`` follows each step's gradient.
    George et al., NeurIPS 2018, arXiv 1806.03884.
    """
    return optimizer_of(ekfac, EKFAC, learning_rate, layers, options)
