"""RS-KFAC: KFAC by leading eigenvectors, found by random columns; and SKFAC, of one batch."""

import dataclasses
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import (
    check_choice,
    check_flag,
    check_interval,
    check_number,
    check_precision,
    check_size,
)
from singd_optax.layers import Layers
from singd_optax.measures import NO_MOMENTS, Measure, Moments, Sketch, Statistics
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
    Number,
    Role,
    RowValues,
    Rule,
    hyperparameter_at,
    new_weight,
)
from singd_optax.rules._low_rank import leading_of, leading_of_sketch
from singd_optax.structures import (
    Dense,
    DenseMatrix,
    Diagonal,
    DiagonalMatrix,
    Precision,
    StructuredMatrix,
    contract,
)
from singd_optax.transforms import damping_schedule

#: A whole moment, or a sketch of one.
Seen = StructuredMatrix | jax.Array

_OVERSAMPLES = 10


class RSKFACState(NamedTuple):
    """What RS-KFAC keeps of a layer.

    Attributes:
      vectors_K: V, leading eigenvectors of S_K, (fan_in, rank); None for a diagonal side.
      vectors_C: Likewise, (fan_out, rank).
      weights_K: W; the inverse's diagonal for a diagonal side.
      weights_C: Likewise.
      rest_K: r, with the inverse V diag(W) Vᵀ + r I.
      rest_C: Likewise.
      S_K: Moving average of U, or of its sketch.
      S_C: Moving average of G, or of its sketch.
      mean_K: Moving average of Tr U / d_i.
      mean_C: Moving average of Tr G / d_o.
      averaged: How many statistics are in them, int32.
      inverted_at: The step of the last decomposition, int32, or -1.
    """

    vectors_K: Annotated[jax.Array | None, Role("moment", 0)]
    vectors_C: Annotated[jax.Array | None, Role("moment", 1)]
    weights_K: RowValues
    weights_C: ColumnValues
    rest_K: Number
    rest_C: Number
    S_K: Annotated[Seen, Role("moment", 0)]
    S_C: Annotated[Seen, Role("moment", 1)]
    mean_K: Number
    mean_C: Number
    averaged: Counter
    inverted_at: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class RSKFAC(Rule):
    """The update of RS-KFAC (arXiv 2206.15397).

    KFAC, with only the ``rank`` leading eigenvectors V of each averaged moment S and their
    eigenvalues D, found from products with random columns; all other eigenvalues are taken for the
    least of these, d = min D::

        S ≈ V (D - d) Vᵀ + d I,    (S + μ I)^-1 ≈ V [ 1 / (D + μ) - 1 / (d + μ) ] Vᵀ + I / (d + μ)

    with μ = π √λ for S_K and √λ / π for S_C, as in ``KFAC``, which this is at full rank. Sides are
    dense or diagonal; a diagonal one is inverted as it is.

    Attributes:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute", or "relative" to (Tr S_K / d_i)(Tr S_C / d_o), so that the scale of
        loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      rank: How many eigenvectors, at most the dim of a side.
      power_iterations: How often random columns are multiplied with S before the last time.
      sketched: Whether S is never formed, and S Ω averaged in its place, for ``rank`` fixed random
        columns Ω: nothing is as large as dim x dim then, and eigenvectors are those of Nyström's
        approximation; exact where S has no more than this rank.
      continued: Whether other eigenvalues are taken for the least of those that are kept; if not,
        for 0.
      use_pi: Whether the damping is shared out by π, that is by the traces.
      inverse_every: At least this many steps from one decomposition to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
    """

    damping: Hyperparameter = damping_schedule()
    damping_mode: DampingMode = "relative"
    factor_learning_rate: Hyperparameter = 0.05
    rank: int = 220
    power_iterations: int = 3
    sketched: bool = False
    continued: bool = True
    use_pi: bool = True
    inverse_every: int = 1
    precision: Precision = "highest"

    State: ClassVar[type] = RSKFACState

    def __post_init__(self) -> None:
        check_number("damping", self.damping, strict=True)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative"))
        check_number("factor_learning_rate", self.factor_learning_rate, strict=True, maximum=1)
        check_size("rank", self.rank)
        check_interval("power_iterations", self.power_iterations, schedule=False)
        check_flag("sketched", self.sketched)
        check_flag("continued", self.continued)
        check_flag("use_pi", self.use_pi)
        check_interval("inverse_every", self.inverse_every, schedule=False)
        check_precision("precision", self.precision)

    @property
    def sketches(self) -> tuple[Sketch, Sketch]:
        """Of both sides."""
        return Sketch(0, self.rank), Sketch(1, self.rank)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Plain moments, or sketches."""
        return (NO_MOMENTS, *self.sketches) if self.sketched else (Moments(),)

    def init(self, view: MatrixView) -> RSKFACState:
        """Inverses I, and averages of nothing."""
        for structure in view.structures:
            if not isinstance(structure, Dense | Diagonal):
                raise ValueError(
                    f"RS-KFAC's sides are dense or diagonal, got {structure!r} for layer "
                    f"{view.path!r}: blocks are small enough for whole inverses. Use "
                    "layers.replace(..., structures=...), or kfac, which takes blocks."
                )
        stack, dtype = view.stack_shape, view.statistics_dtype

        def side(index: int) -> tuple[jax.Array | None, jax.Array, Seen]:
            structure, dim = view.structures[index], view.dims[index]
            whole = structure.zeros(dim, dtype, stack)
            if isinstance(structure, Diagonal):
                return None, jnp.ones((*stack, dim), dtype), whole
            seen = self.sketches[index].zeros(view) if self.sketched else whole
            rank = min(self.rank, dim)
            return jnp.zeros((*stack, dim, rank), dtype), jnp.zeros((*stack, rank), dtype), seen

        (V_K, W_K, S_K), (V_C, W_C, S_C) = side(0), side(1)
        return RSKFACState(
            vectors_K=V_K,
            vectors_C=V_C,
            weights_K=W_K,
            weights_C=W_C,
            rest_K=jnp.ones(stack, dtype),
            rest_C=jnp.ones(stack, dtype),
            S_K=S_K,
            S_C=S_C,
            mean_K=jnp.zeros(stack, dtype),
            mean_C=jnp.zeros(stack, dtype),
            averaged=jnp.zeros(stack, jnp.int32),
            inverted_at=jnp.full(stack, -1, jnp.int32),
        )

    def refresh(
        self,
        view: MatrixView,
        state: RSKFACState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[RSKFACState, bool]:
        """New averages; new eigenvectors if they are due."""
        assert statistics is not None
        dtype = view.statistics_dtype
        rate = new_weight(self.factor_learning_rate, state.averaged, count).astype(dtype)

        def averaged(old: jax.Array, new: jax.Array) -> jax.Array:
            own = rate.reshape(rate.shape + (1,) * (old.ndim - rate.ndim))
            return (1 - own) * old + own * new

        moments = statistics.H_K, statistics.H_C
        if self.sketched:
            moments = tuple(statistics.value_of(sketch) for sketch in self.sketches)
        S_K, S_C = jax.tree.map(averaged, (state.S_K, state.S_C), moments)
        means = averaged(state.mean_K, statistics.mean_U), averaged(state.mean_C, statistics.mean_G)
        new = state._replace(S_K=S_K, S_C=S_C, mean_K=means[0], mean_C=means[1])
        now = jnp.any((state.inverted_at < 0) | (count - state.inverted_at >= self.inverse_every))
        new = jax.lax.cond(now, lambda: self._inverted(view, new, count), lambda: new)
        inverted_at = jnp.where(now, count, state.inverted_at)
        return new._replace(averaged=state.averaged + 1, inverted_at=inverted_at), True

    def _inverted(self, view: MatrixView, state: RSKFACState, count: jax.Array) -> RSKFACState:
        dtype = view.statistics_dtype
        damping = hyperparameter_at(self.damping, count, dtype)
        if self.damping_mode == "relative":
            damping = damping * state.mean_K * state.mean_C
        pi = jnp.sqrt(state.mean_K / state.mean_C) if self.use_pi else jnp.ones_like(state.mean_K)
        root = jnp.sqrt(damping)
        sides = [
            self._side(view, seen, own, sketch)
            for seen, own, sketch in zip(
                (state.S_K, state.S_C), (root * pi, root / pi), self.sketches, strict=True
            )
        ]
        (V_K, W_K, r_K), (V_C, W_C, r_C) = sides
        return state._replace(
            vectors_K=V_K, vectors_C=V_C, weights_K=W_K, weights_C=W_C, rest_K=r_K, rest_C=r_C
        )

    def _side(
        self, view: MatrixView, seen: Seen, damping: jax.Array, sketch: Sketch
    ) -> tuple[jax.Array | None, jax.Array, jax.Array]:
        """V, W and r of one side."""
        if isinstance(seen, DiagonalMatrix):
            zeros = jnp.zeros(view.stack_shape, view.statistics_dtype)
            return None, 1 / (seen.diagonal + damping[..., None]), zeros
        if isinstance(seen, DenseMatrix):
            rank = min(self.rank, seen.dim)
            wider = dataclasses.replace(sketch, rank=rank + _OVERSAMPLES)
            found = leading_of(
                seen.entries, wider.columns(view), rank, self.power_iterations, self.precision
            )
        else:
            assert isinstance(seen, jax.Array)
            found = leading_of_sketch(seen, sketch.columns(view), self.precision)
        least = found.values[..., -1] if self.continued else jnp.zeros_like(damping)
        rest = 1 / (least + damping)
        weights = 1 / (found.values + damping[..., None]) - rest[..., None]
        return found.vectors, weights, rest

    def direction(
        self,
        view: MatrixView,
        state: RSKFACState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, RSKFACState]:
        """The natural gradient, by products with a few columns."""
        left = self._applied(state.vectors_K, state.weights_K, state.rest_K, vector)
        turned = jnp.swapaxes(left, -1, -2)
        right = self._applied(state.vectors_C, state.weights_C, state.rest_C, turned)
        return jnp.swapaxes(right, -1, -2), state

    def _applied(
        self, vectors: jax.Array | None, weights: jax.Array, rest: jax.Array, x: jax.Array
    ) -> jax.Array:
        """(V diag(W) Vᵀ + r I) X."""
        if vectors is None:
            return weights[..., None] * x
        inner = contract("...ik,...ij->...kj", vectors, x, precision=self.precision)
        outer = contract(
            "...ik,...kj->...ij", vectors, weights[..., None] * inner, precision=self.precision
        )
        return outer + rest[..., None, None] * x


@dataclasses.dataclass(frozen=True, kw_only=True)
class SKFAC(RSKFAC):
    """The update of SKFAC (CVPR 2021).

    KFAC of the statistics of one batch, whose inverses are by the formula of Woodbury: with A the
    rows of a side (N of them), U = Aᵀ A / N has at most the rank N, and::

        (U + μ I)^-1 = (I - Aᵀ (N μ I + A Aᵀ)^-1 A) / μ

    Here the same inverse is had from U Ω, for ``rank`` random columns Ω, which adds up over calls,
    micro-batches and devices, as rows do not: it is exact where N is no more than the rank, and
    Nyström's approximation elsewhere. Nothing is as large as dim x dim. It is ``RSKFAC`` with
    ``sketched=True``, without averages and without a continued spectrum.
    """

    factor_learning_rate: Hyperparameter = 1.0
    sketched: bool = True
    continued: bool = False


@shows_scaling_of(RSKFAC)
def scale_by_rs_kfac(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by RS-KFAC's preconditioner: KFAC by leading eigenvectors.

    For layers with sides of thousands, where whole inverses are dear. The equations are in
    ``singd_optax.optimizers.RSKFAC``; parameters outside ``layers`` pass through unchanged.

    References:
      Puiu, Randomized K-FACs: Speeding up K-FAC with Randomized Numerical Linear Algebra, 2022,
      arXiv 2206.15397.
    """
    return scaling_of(scale_by_rs_kfac, RSKFAC, layers, options)


@shows_recipe_of(RSKFAC)
def rs_kfac(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """RS-KFAC, KFAC by leading eigenvectors, as a drop-in for AdamW."""
    return optimizer_of(rs_kfac, RSKFAC, learning_rate, layers, options)


@shows_scaling_of(SKFAC)
def scale_by_skfac(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by SKFAC's preconditioner: KFAC of one batch, by products with its rows.

    The equations are in ``singd_optax.optimizers.SKFAC``; parameters outside ``layers`` pass
    through unchanged.

    References:
      Tang et al., SKFAC: Training Neural Networks with Faster Kronecker-Factored Approximate
      Curvature, CVPR 2021.
    """
    return scaling_of(scale_by_skfac, SKFAC, layers, options)


@shows_recipe_of(SKFAC)
def skfac(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """SKFAC, KFAC of one batch, as a drop-in for AdamW."""
    return optimizer_of(skfac, SKFAC, learning_rate, layers, options)
