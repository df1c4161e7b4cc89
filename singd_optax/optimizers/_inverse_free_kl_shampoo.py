"""Inverse-free KL-Shampoo: its inverse roots from matrix products alone, without QR."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_number, check_precision, check_size
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
    Recipe,
    RowFactor,
    Rule,
    choose,
    hyperparameter_at,
    polar_factor,
)
from singd_optax.rules._eigenbasis import check_bases
from singd_optax.rules._inverse_free import identity_pair
from singd_optax.rules._second_moment import rms_at_most
from singd_optax.structures import (
    Auto,
    DenseMatrix,
    Diagonal,
    DiagonalMatrix,
    IdentityMatrix,
    Precision,
    Structure,
    StructuredMatrix,
    contract,
)


class InverseFreeKLShampooState(NamedTuple):
    """What inverse-free KL-Shampoo keeps of a parameter.

    Attributes:
      K: The inverse root of the rows' factor, S_K^-1/2, times a small rotation that the steps since
        the last refresh have left.
      C: The inverse root of the columns' factor, S_C^-1/2, likewise.
      started: Whether a gradient was seen: int32, 0 or 1.
    """

    K: RowFactor
    C: ColumnFactor
    started: Counter


#: The bound on b ‖m‖: a step takes half of a direction at most.
_LARGEST_STEP = 0.5

_POLAR_STEPS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseFreeKLShampoo(Rule):
    """KL-Shampoo whose inverse roots move by steps like SINGD's, from matrix products alone.

    The factors are those of arXiv 2509.03378, and the steps those of arXiv 2312.05705. There is no
    inverse, no QR, and no eigenvector. K and C approach S_K^-1/2 and S_C^-1/2, where
    S_K = E[G S_C^-1 Gᵀ] / d_C, and S_C alike, are the factors of ``KLShampoo``. For gradients G
    (rows x columns, d_K x d_C) and momenta M, with W = Kᵀ G C and the old K and C in all right-hand
    sides::

        m_K <- ½ [ W Wᵀ / d_C + λ (Tr CᵀC / d_C) KᵀK - I ],    K <- K (I - b m_K)      on every step
        K   <- K polar(K)ᵀ                                     on refresh steps
        M   -> K M Cᵀ

    C moves alike. The first line is the step of ``InverseFreeShampoo`` without its momentum. To
    first order it moves S_K = (K Kᵀ)^-1 as an average with weight b does, with noise of one size in
    all directions. It leaves K a little off symmetric. A refresh puts this right by the polar
    factor of K, found by a Newton-Schulz iteration, which does not change K Kᵀ. So K is the root
    itself, and multiplies a gradient once. b ‖m‖ is kept at most 1/2, so that a larger covariance
    is followed about as fast as by an average.

    Structures are those in which the root is exact: dense, block-diagonal, diagonal (the default
    for sides longer than 4096), and ``Identity()`` for a side without a factor. A gradient of zeros
    changes nothing, and on a refresh step it is counted as a skipped refresh.

    Attributes:
      factor_learning_rate: b, the weight of one gradient, a number >= 0 or a schedule.
      damping: λ, what is added to the second moment, relative to mean(G²): a number >= 0 or a
        schedule.
      polar_steps: The number of steps that the iteration "polar_express" takes in a refresh, an int
        >= 1; None for 10, which are enough where the largest singular value is 20,000 times the
        least.
      clip_rms: The largest root mean square that a direction may have, a number > 0; None for no
        bound. While the factors are learnt, directions may be far larger than 1.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    factor_learning_rate: Hyperparameter = 0.05
    damping: Hyperparameter = 1e-5
    polar_steps: int | None = None
    clip_rms: float | None = 1.1
    precision: Precision = "highest"

    State: ClassVar[type] = InverseFreeKLShampooState
    is_of_whole: ClassVar[bool] = True
    momentum_of: ClassVar[MomentumOf] = "average"
    structures: ClassVar[str | Structure] = Auto(max_dense_dim=4096, otherwise=Diagonal())
    recipe: ClassVar[Recipe] = Recipe(
        momentum=0.95, nesterov=False, update_rms=None, refresh_every=10
    )

    def __post_init__(self) -> None:
        check_number("factor_learning_rate", self.factor_learning_rate)
        check_number("damping", self.damping)
        if self.polar_steps is not None:
            check_size("polar_steps", self.polar_steps)
        if self.clip_rms is not None:
            check_number("clip_rms", self.clip_rms, strict=True, schedule=False)
        check_precision("precision", self.precision)

    def init(self, view: MatrixView) -> InverseFreeKLShampooState:
        """K = C = I."""
        check_bases(
            view.structures,
            "InverseFreeKLShampoo",
            "For other structures use inverse_free_shampoo, which takes no root.",
        )
        started = jnp.zeros(view.stack_shape, jnp.int32)
        return InverseFreeKLShampooState(*identity_pair(view), started)

    def observe(
        self,
        view: MatrixView,
        state: InverseFreeKLShampooState,
        gradient: jax.Array,
        count: jax.Array,
    ) -> InverseFreeKLShampooState:
        """One step on K and C."""
        dtype, precision = view.statistics_dtype, self.precision
        mean_square = jnp.mean(gradient**2, axis=(-2, -1))
        good = mean_square > 0
        K, C = state.K, state.C
        sides = sum(not isinstance(factor, IdentityMatrix) for factor in (K, C))
        size = jnp.where(good, mean_square, 1) ** (-0.5 / max(sides, 1))
        first = jnp.where(state.started > 0, 1, size)
        K, C = K * first, C * first
        rate = hyperparameter_at(self.factor_learning_rate, count, dtype)
        damping = hyperparameter_at(self.damping, count, dtype) * mean_square
        left = K.transpose_matmul(gradient, precision=precision)
        turned = C.transpose_matmul(jnp.swapaxes(left, -1, -2), precision=precision)

        def moved(
            side: int, factor: StructuredMatrix, other: StructuredMatrix, rows: jax.Array
        ) -> StructuredMatrix:
            if isinstance(factor, IdentityMatrix):
                return factor
            curvature = factor.structure.project_gram(rows, precision=precision) * (1 / other.dim)
            size = other.frobenius_norm() ** 2 / other.dim
            damped = curvature + factor.gram(precision=precision) * (damping * size)
            # Nothing else says that each device has a part: the next product is with all of it.
            damped = view.placement.constrained(damped, side)
            m = damped.add_identity(-1.0) * 0.5
            norm = rate * m.spectral_norm_bound(precision=precision)
            # A norm that is not finite must not make the step 0: then it is refused.
            step = rate * jnp.where(norm > _LARGEST_STEP, _LARGEST_STEP / norm, 1)
            step = jnp.where(jnp.isfinite(norm), step, jnp.nan)
            return factor - factor.multiply(m, precision=precision) * step

        new = InverseFreeKLShampooState(
            moved(0, K, C, turned),
            moved(1, C, K, jnp.swapaxes(turned, -1, -2)),
            jnp.ones_like(state.started),
        )
        return choose(good, new, state)

    def refresh(
        self,
        view: MatrixView,
        state: InverseFreeKLShampooState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[InverseFreeKLShampooState, jax.Array]:
        """Make K and C symmetric by a rotation."""
        K, C = (self._symmetric(view, factor) for factor in (state.K, state.C))
        good = jnp.mean(gradient**2, axis=(-2, -1)) > 0
        return choose(good, state._replace(K=K, C=C), state), good

    def _symmetric(self, view: MatrixView, factor: StructuredMatrix) -> StructuredMatrix:
        if isinstance(factor, DiagonalMatrix | IdentityMatrix):
            return factor

        def turned(blocks: jax.Array) -> jax.Array:
            rotation = polar_factor(
                blocks,
                iteration="polar_express",
                steps=_POLAR_STEPS if self.polar_steps is None else self.polar_steps,
                precision=self.precision,
                split=view.placement.divided if isinstance(factor, DenseMatrix) else whole,
            )
            root = contract("...ij,...kj->...ik", blocks, rotation, precision=self.precision)
            return (root + jnp.swapaxes(root, -1, -2)) / 2

        return jax.tree.map(turned, factor)

    def direction(
        self,
        view: MatrixView,
        state: InverseFreeKLShampooState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, InverseFreeKLShampooState]:
        """K M Cᵀ."""
        left = jnp.swapaxes(state.K.matmul(vector, precision=self.precision), -1, -2)
        direction = jnp.swapaxes(state.C.matmul(left, precision=self.precision), -1, -2)
        return rms_at_most(direction, self.clip_rms), state


def whole(array: jax.Array, axis: int) -> jax.Array:
    """The array as it is, for blocks, which a mesh has split by blocks already."""
    del axis
    return array


@shows_scaling_of(InverseFreeKLShampoo)
def scale_by_inverse_free_kl_shampoo(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by KL-Shampoo's preconditioner, from gradients and matrix products alone.

    A gradient G becomes K G Cᵀ, where K and C follow the inverse roots S_K^-1/2 and S_C^-1/2 of
    KL-Shampoo's factors. They may be kept in bfloat16.

    References:
      Lin et al., arXiv 2509.03378 (KL-Shampoo); Lin et al., arXiv 2312.05705 (steps on factors).

    Example:
      >>> import jax, jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_inverse_free_kl_shampoo()
      >>> grads = {"kernel": 5 * jnp.eye(2)}
      >>> state, update = tx.init(grads), jax.jit(tx.update)
      >>> for _ in range(200):
      ...   updates, state = update(grads, state)
      >>> updates["kernel"].round(1)
      Array([[1.4, 0. ],
             [0. , 1.4]], dtype=float32)
    """
    return scaling_of(scale_by_inverse_free_kl_shampoo, InverseFreeKLShampoo, layers, options)


@shows_recipe_of(InverseFreeKLShampoo)
def inverse_free_kl_shampoo(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """KL-Shampoo in the place of AdamW, from gradients and matrix products alone.

    It works for any model. A matrix moves by the average of its gradients, multiplied from both
    sides by the inverse roots of their covariance, with decoupled weight decay. Learning rates are
    those of AdamW. Lin et al., arXiv 2509.03378, by the steps of arXiv 2312.05705.
    """
    return optimizer_of(
        inverse_free_kl_shampoo, InverseFreeKLShampoo, learning_rate, layers, options
    )
