"""RS-KFAC: KFAC from leading eigenvectors, found with random columns; and SKFAC, of one batch."""

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
      vectors_K: V, the leading eigenvectors of S_K, (fan_in, rank); None for a diagonal side.
      vectors_C: The leading eigenvectors of S_C, (fan_out, rank); None for a diagonal side.
      weights_K: W of the inputs' inverse V diag(W) Vᵀ + r I; for a diagonal side, the diagonal of
        its inverse.
      weights_C: W of the outputs' inverse, likewise.
      rest_K: r of the inputs' inverse.
      rest_C: r of the outputs' inverse.
      S_K: The moving average of U, the second moment of inputs, or of its sketch.
      S_C: The moving average of G, the second moment of output gradients, or of its sketch.
      mean_K: The moving average of Tr U / d_i.
      mean_C: The moving average of Tr G / d_o.
      averaged: The number of statistics in the averages, int32.
      inverted_at: The step of the last decomposition, int32; -1 before the first.
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
    """RS-KFAC: KFAC from the leading eigenvectors of both moments (arXiv 2206.15397).

    Of each averaged moment S only the ``rank`` leading eigenvectors V and their eigenvalues D are
    found, from products with random columns. All other eigenvalues are taken for the least of
    these, d = min D, or for 0 (``continued=False``)::

        S ≈ V (D - d) Vᵀ + d I,    (S + μ I)^-1 ≈ V [ 1 / (D + μ) - 1 / (d + μ) ] Vᵀ + I / (d + μ)

    Here μ is π √λ for S_K and √λ / π for S_C, as in ``KFAC``; at full rank the two methods are the
    same. Sides are dense or diagonal; a diagonal one is inverted as it is.

    Attributes:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute", or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      rank: The number of eigenvectors of a side, an int >= 1; a side has no more than its dim.
      power_iterations: How often random columns are multiplied by S before the last product, an
        int >= 1. More find eigenvectors more exactly.
      sketched: Whether S Ω is averaged in the place of S, for ``rank`` fixed random columns Ω. Then
        S is never formed, and nothing is as large as dim x dim. The eigenvectors are those of
        Nyström's approximation, which is exact where the rank of S is not larger.
      continued: Whether all other eigenvalues are taken for the least of those that are kept; if
        not, they are taken for 0.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_every: The least number of steps from one decomposition to the next, an int >= 1. Only
        refreshes decompose, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
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
        """The sketches of inputs and of output gradients."""
        return Sketch(0, self.rank), Sketch(1, self.rank)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The second moments U and G, or sketches of them."""
        return (NO_MOMENTS, *self.sketches) if self.sketched else (Moments(),)

    def init(self, view: MatrixView) -> RSKFACState:
        """Inverses I, and averages of zero."""
        for structure in view.structures:
            if not isinstance(structure, Dense | Diagonal):
                raise ValueError(
                    f"RS-KFAC's sides are dense or diagonal, got {structure!r} for layer "
                    f"{view.path!r}. Use layers.replace({view.path!r}, structures='dense'), kfac, "
                    "which takes blocks, or singd, which takes all structures."
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
        """New averages, and new eigenvectors if they are due."""
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
    """SKFAC: KFAC of the statistics of one batch, without a matrix of dim x dim (CVPR 2021).

    Let A be the N rows of a side (N x dim). Then U = Aᵀ A / N has at most the rank N, and the paper
    inverts it by the formula of Woodbury::

        (U + μ I)^-1 = (I - Aᵀ (N μ I + A Aᵀ)^-1 A) / μ

    Here the inverse is made of U Ω, for ``rank`` random columns Ω. This adds up over calls,
    micro-batches and devices, as rows do not. It is the same inverse where N is not larger than the
    rank, and that of Nyström's approximation elsewhere. It is ``RSKFAC`` with ``sketched=True``,
    ``continued=False`` and averages of one batch, ``factor_learning_rate=1``.
    """

    factor_learning_rate: Hyperparameter = 1.0
    sketched: bool = True
    continued: bool = False


@shows_scaling_of(RSKFAC)
def scale_by_rs_kfac(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by RS-KFAC's preconditioner: KFAC from leading eigenvectors.

    It is for layers with thousands of inputs or outputs, where whole inverses are costly. The
    gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K + μ I)^-1 G (S_C + ν I)^-1, where both inverses are approximated from the leading
    eigenvectors of S_K and S_C, the averaged second moments of inputs and output gradients.

    References:
      Puiu, Randomized K-FACs: Speeding up K-FAC with Randomized Numerical Linear Algebra, 2022,
      arXiv 2206.15397.
    """
    return scaling_of(scale_by_rs_kfac, RSKFAC, layers, options)


@shows_recipe_of(RSKFAC)
def rs_kfac(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """RS-KFAC in the place of AdamW: KFAC from the leading eigenvectors of both moments.

    It is for layers with thousands of inputs or outputs, where the inverses of ``kfac`` are costly.
    Puiu, 2022, arXiv 2206.15397.
    """
    return optimizer_of(rs_kfac, RSKFAC, learning_rate, layers, options)


@shows_scaling_of(SKFAC)
def scale_by_skfac(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by SKFAC's preconditioner: KFAC of one batch, from products with its rows.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (U + μ I)^-1 G (V + ν I)^-1, where U and V are the second moments of inputs and output gradients
    in one batch, with at most ``rank`` eigenvectors.

    References:
      Tang et al., SKFAC: Training Neural Networks with Faster Kronecker-Factored Approximate
      Curvature, CVPR 2021.
    """
    return scaling_of(scale_by_skfac, SKFAC, layers, options)


@shows_recipe_of(SKFAC)
def skfac(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """SKFAC in the place of AdamW: KFAC of one batch, without a matrix of dim x dim.

    It is for layers with thousands of inputs or outputs, and batches of few rows. With a
    ``factor_learning_rate`` below 1 it averages over batches. Tang et al., CVPR 2021.
    """
    return optimizer_of(skfac, SKFAC, learning_rate, layers, options)
