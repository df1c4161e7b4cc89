"""PSGD-Kron: a preconditioner that whitens, by gradient steps on its Kronecker factors."""

import dataclasses
from typing import ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

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
    ColumnFactor,
    Counter,
    Hyperparameter,
    MatrixView,
    MomentumOf,
    Number,
    Recipe,
    RowFactor,
    Rule,
    choose,
    hyperparameter_at,
)
from singd_optax.rules._eigenbasis import check_bases
from singd_optax.rules._second_moment import rms_at_most
from singd_optax.structures import (
    Auto,
    Diagonal,
    DiagonalMatrix,
    IdentityMatrix,
    Precision,
    Structure,
    StructuredMatrix,
    contract,
)

#: The ways in which factors move, with the names that their authors gave them.
Geometry = Literal["Q0.5EQ1.5", "QUAD", "QEQ"]

#: The largest rotation of a Procrustes step.
_LARGEST_ROTATION = 0.125


class PSGDKronState(NamedTuple):
    """What PSGD-Kron keeps of a parameter.

    Attributes:
      K: The factor of the rows, rows x rows in its structure; gradients are multiplied by K Kᵀ.
      C: The factor of the columns, likewise.
      curvature_K: ℓ_K, the running bound by which K's steps are divided.
      curvature_C: ℓ_C, the running bound by which C's steps are divided.
      started: Whether the factors were moved at all: int32, 0 or 1.
    """

    K: RowFactor
    C: ColumnFactor
    curvature_K: Number
    curvature_C: Number
    started: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class PSGDKron(Rule):
    """PSGD with Kronecker factors that whiten gradients (arXiv 1512.04202, 2402.04553).

    For gradients G (rows x columns, d_K x d_C), P = K Kᵀ ⊗ C Cᵀ approaches the inverse root of
    their second moment, by matrix products alone. It comes to rest where E[U Uᵀ] = d_C I and
    E[Uᵀ U] = d_K I for U = K Kᵀ G C Cᵀ, as ``KLShampoo`` does. On refresh steps, let A be U Uᵀ in
    the structure, d = d_C, and ℓ_K <- max(β ℓ_K + (1 - β) ℓ, ℓ) with the bound ℓ = ‖A‖ + d. K moves
    in one of these geometries, and C likewise::

        "Q0.5EQ1.5"    Kᵀ <- Kᵀ - μ/ℓ_K (A - d I) Kᵀ,  then one rotation towards a symmetric K
        "QUAD"         Kᵀ <- sym[ (I - ½ μ/ℓ_K (A - d I)) Kᵀ (I - ½ μ/ℓ_K (A - d I)) ]
        "QEQ"          Kᵀ <- Kᵀ (I - μ/ℓ_K (A - d I))
        G              -> K Kᵀ G C Cᵀ

    Then K and C are scaled so that their largest entries are equal, which leaves P as it is. They
    start at a multiple of I that fits the first gradient. As in the authors' code, noise is added
    to G before A is formed, so that P stays bounded in directions without gradients. A gradient of
    zeros changes nothing, and is counted as a skipped refresh.

    Structures are dense, block-diagonal, diagonal (the default for sides longer than 4096), and
    ``Identity()`` for a side without a factor. K and C are made of gradients, and multiply the
    momentum, which is their average. To make them of averages, too, average first:
    ``optax.chain(optax.ema(0.9), scale_by_psgd_kron(clip_rms=1.1), ...)``.

    Attributes:
      factor_learning_rate: μ, the step on K and C, a number >= 0 or a schedule.
      geometry: How K and C move: "Q0.5EQ1.5", "QUAD" or "QEQ", as above.
      curvature_decay: β, the decay of the bound on steps, a number in [0, 1) or a schedule.
      damping: The standard deviation of the noise, relative to the root mean square of G, a number
        >= 0 or a schedule.
      clip_rms: The largest root mean square that a direction may have, a number > 0; None for no
        bound. While P is learnt, directions may be far larger than 1.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    factor_learning_rate: Hyperparameter = 0.1
    geometry: Geometry = "Q0.5EQ1.5"
    curvature_decay: Hyperparameter = 0.9
    damping: Hyperparameter = 1e-3
    clip_rms: float | None = 1.1
    precision: Precision = "highest"

    State: ClassVar[type] = PSGDKronState
    is_random: ClassVar[bool] = True
    is_of_whole: ClassVar[bool] = True
    momentum_of: ClassVar[MomentumOf] = "average"
    structures: ClassVar[str | Structure] = Auto(max_dense_dim=4096, otherwise=Diagonal())
    recipe: ClassVar[Recipe] = Recipe(
        momentum=0.9, nesterov=False, update_rms=None, refresh_every=1
    )

    def __post_init__(self) -> None:
        check_number("factor_learning_rate", self.factor_learning_rate)
        check_choice("geometry", self.geometry, get_args(Geometry))
        check_number("curvature_decay", self.curvature_decay, maximum=1, strict_maximum=True)
        check_number("damping", self.damping)
        if self.clip_rms is not None:
            check_number("clip_rms", self.clip_rms, strict=True, schedule=False)
        check_precision("precision", self.precision)

    def init(self, view: MatrixView) -> PSGDKronState:
        """K = C = I."""
        check_bases(view.structures, "PSGDKron", "For other structures use inverse_free_shampoo.")
        K, C = (
            structure.eye(dim, name, view.stack_shape)
            for structure, dim, name in zip(
                view.structures, view.dims, view.factor_dtype, strict=True
            )
        )
        zero_K, zero_C = (jnp.zeros(view.stack_shape, view.statistics_dtype) for _ in range(2))
        return PSGDKronState(K, C, zero_K, zero_C, jnp.zeros(view.stack_shape, jnp.int32))

    def refresh(
        self,
        view: MatrixView,
        state: PSGDKronState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[PSGDKronState, jax.Array | bool]:
        """One step on K and C."""
        dtype = view.statistics_dtype
        damping = hyperparameter_at(self.damping, count, dtype)
        mean_square = jnp.mean(gradient**2, axis=(-2, -1))
        good = mean_square > 0
        K, C = state.K, state.C
        sides = sum(not isinstance(factor, IdentityMatrix) for factor in (K, C))
        size = jnp.where(good, mean_square, 1) ** (-0.25 / max(sides, 1))
        first = jnp.where(state.started > 0, 1, size)
        K, C = K * first, C * first
        rms = jnp.sqrt(mean_square)[..., None, None]
        noise = jax.random.normal(key, gradient.shape, dtype) * (damping * rms)
        U = _applied(K, C, gradient + noise, self.precision)
        turned = jnp.swapaxes(U, -1, -2)
        K, curvature_K = self._moved(K, turned, state.curvature_K, count)
        C, curvature_C = self._moved(C, U, state.curvature_C, count)
        K, C = _balanced(K, C)
        new = PSGDKronState(K, C, curvature_K, curvature_C, jnp.ones_like(state.started))
        return choose(good, new, state), good

    def _moved(
        self, factor: StructuredMatrix, rows: jax.Array, last: jax.Array, count: jax.Array
    ) -> tuple[StructuredMatrix, jax.Array]:
        """One step on a factor, from rows (*stack, d, dim), and its bound."""
        if isinstance(factor, IdentityMatrix):
            return factor, last
        precision, dtype = self.precision, last.dtype
        rate, decay = (
            hyperparameter_at(x, count, dtype)
            for x in (self.factor_learning_rate, self.curvature_decay)
        )
        others = rows.shape[-2]
        gram = factor.structure.project_gram(rows, precision=precision)
        bound = gram.spectral_norm_bound(precision=precision) + others
        bound = jnp.maximum(decay * last + (1 - decay) * bound, bound)
        step = gram.add_identity(-float(others)) * (rate / bound)
        turned = factor if isinstance(factor, DiagonalMatrix) else transposed(factor)
        if self.geometry == "QEQ":
            new = turned - turned.multiply(step, precision=precision)
        elif self.geometry == "QUAD":
            new = _quad(turned, step, precision)
        else:
            new = turned - step.multiply(turned, precision=precision)
        if isinstance(factor, DiagonalMatrix):
            return new, bound
        if self.geometry == "QUAD":
            return (new + transposed(new)) * 0.5, bound
        return transposed(_rotated(new, precision) if self.geometry == "Q0.5EQ1.5" else new), bound

    def direction(
        self,
        view: MatrixView,
        state: PSGDKronState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, PSGDKronState]:
        """K Kᵀ M C Cᵀ."""
        direction = _applied(state.K, state.C, vector, self.precision)
        return rms_at_most(direction, self.clip_rms), state


def _applied(
    K: StructuredMatrix, C: StructuredMatrix, matrix: jax.Array, precision: Precision
) -> jax.Array:
    """K Kᵀ X C Cᵀ."""
    for factor in (K, C):
        matrix = factor.transpose_matmul(matrix, precision=precision)
        matrix = jnp.swapaxes(factor.matmul(matrix, precision=precision), -1, -2)
    return matrix


def transposed(matrix: StructuredMatrix) -> StructuredMatrix:
    """The transpose of a matrix of dense blocks."""
    return jax.tree.map(lambda blocks: jnp.swapaxes(blocks, -1, -2), matrix)


def _quad(
    factor: StructuredMatrix, step: StructuredMatrix, precision: Precision
) -> StructuredMatrix:
    """(I - ½ S) Q (I - ½ S)."""
    left = factor - step.multiply(factor, precision=precision) * 0.5
    return left - left.multiply(step, precision=precision) * 0.5


def _rotated(factor: StructuredMatrix, precision: Precision) -> StructuredMatrix:
    """Exp(a R) Q to second order: nearer to symmetric than Q is, with Qᵀ Q as it was.

    R is the skew part of Qᵀ. The trace, which is largest where Q is symmetric, grows most at
    a = -Tr(R Q) / Tr(R² Q).
    """

    def rotate(blocks: jax.Array) -> jax.Array:
        multiply = lambda left, right: contract(
            "...ij,...jk->...ik", left, right, precision=precision
        )
        skew = jnp.swapaxes(blocks, -1, -2) - blocks
        # ‖R‖ is at most the geometric mean of the largest sums of a row and of a column.
        norm = jnp.abs(skew).sum(-1).max(-1)[..., None, None]
        skew = skew / jnp.where(norm > 0, norm, 1)
        once = multiply(skew, blocks)
        twice = multiply(skew, once)
        first, second = (jnp.trace(x, axis1=-2, axis2=-1)[..., None, None] for x in (once, twice))
        best = -first / jnp.where(second < 0, second, -1)
        angle = jnp.where(second < 0, jnp.minimum(best, _LARGEST_ROTATION), _LARGEST_ROTATION)
        return blocks + angle * (once + angle / 2 * twice)

    return jax.tree.map(rotate, factor)


def _balanced(
    K: StructuredMatrix, C: StructuredMatrix
) -> tuple[StructuredMatrix, StructuredMatrix]:
    """Both factors, scaled so that their largest entries are equal."""
    if any(isinstance(factor, IdentityMatrix) for factor in (K, C)):
        return K, C
    scale = jnp.sqrt(C.max_abs() / K.max_abs())
    return K * scale, C * (1 / scale)


@shows_scaling_of(PSGDKron)
def scale_by_psgd_kron(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Whiten gradients by PSGD's Kronecker factors, from gradients and matrix products alone.

    A gradient G becomes K Kᵀ G C Cᵀ, whose rows and columns are uncorrelated and of one size on
    average; K and C move by gradient steps towards this.

    References:
      Li, Preconditioned Stochastic Gradient Descent, 2015, arXiv 1512.04202; Pooladzandi and Li,
      Curvature-Informed SGD via General Purpose Lie-Group Preconditioners, 2024, arXiv 2402.04553.

    Example:
      >>> import jax, jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_psgd_kron(damping=0.0)
      >>> grads = {"kernel": 5 * jnp.eye(2)}
      >>> state, update = tx.init(grads), jax.jit(tx.update)
      >>> for _ in range(200):
      ...   updates, state = update(grads, state)
      >>> updates["kernel"].round(2)
      Array([[1.41, 0.  ],
             [0.  , 1.41]], dtype=float32)
    """
    return scaling_of(scale_by_psgd_kron, PSGDKron, layers, options)


@shows_recipe_of(PSGDKron)
def psgd_kron(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """PSGD-Kron in the place of AdamW: gradients whitened by factors that move in small steps.

    It works for any model, from gradients and matrix products alone. A matrix moves by the average
    of its gradients, made uncorrelated and of one size by both factors, with decoupled weight
    decay. Learning rates are those of AdamW, or a little smaller. Li, 2015, arXiv 1512.04202;
    Pooladzandi and Li, 2024, arXiv 2402.04553.
    """
    return optimizer_of(psgd_kron, PSGDKron, learning_rate, layers, options)
