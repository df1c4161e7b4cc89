"""SPlus: signs in the basis of Shampoo's eigenvectors."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

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
    ColumnBasis,
    ColumnMoment,
    Counter,
    Hyperparameter,
    JointRule,
    MatrixView,
    MomentumOf,
    Recipe,
    RowBasis,
    RowMoment,
    hyperparameter_at,
)
from singd_optax.rules._eigenbasis import (
    BASIS_METHODS,
    BasisMethod,
    check_bases,
    grouped_bases,
    into_bases,
    out_of_bases,
)
from singd_optax.rules._second_moment import rounding_of
from singd_optax.structures import Auto, Identity, Precision, Structure

#: A sign makes much of little: it is taken of coefficients above so many times their rounding.
_ROUNDINGS = 16


class SPlusState(NamedTuple):
    """What SPlus keeps of a parameter.

    Attributes:
      K: The basis of the rows, Q.
      C: The basis of the columns, P.
      L: The second moment of the rows, the average of G Gᵀ.
      R: The second moment of the columns, the average of Gᵀ G.
      started: Whether there is a basis yet: int32, 0 or 1.
    """

    K: RowBasis
    C: ColumnBasis
    L: RowMoment
    R: ColumnMoment
    started: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class SPlus(JointRule):
    """SPlus: signs of the momentum in the basis of Shampoo's eigenvectors (arXiv 2506.07254).

    For gradients G (rows x columns), let M be their average, and let Q and P be the bases of the
    rows and of the columns::

        L <- b2 L + (1 - b2) G Gᵀ,    R <- b2 R + (1 - b2) Gᵀ G
        M -> c Q sign(Qᵀ M P) Pᵀ,     c = mean |Qᵀ M P|
        Q, P <- eigenvectors of L, R                      on refresh steps, after the rest

    All directions of the basis move equally far. So there are no eigenvalues that could be out of
    date, and bases may be old. c makes the result the multiple of the signs that is nearest to M,
    so that directions fade where gradients do. A coefficient that may be nothing but rounding
    counts as 0. The complete optimizer gives directions one size, where the paper has
    2 / (rows + columns). The paper evaluates at an average of the weights: ``optax.ema`` of the
    parameters with decay 0.999. With Q = P = I the direction is the sign of the momentum, as
    Lion's.

    Attributes:
      b2: The decay of L and R, a number in [0, 1) or a schedule.
      basis_method: What a refresh makes the bases of: "eigh", the eigenvectors, or "qr", one step
        of orthogonal iteration.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    b2: Hyperparameter = 0.999
    basis_method: BasisMethod = "eigh"
    precision: Precision = "highest"

    State: ClassVar[type] = SPlusState
    refresh_first: ClassVar[bool] = False
    is_of_whole: ClassVar[bool] = True
    momentum_of: ClassVar[MomentumOf] = "average"
    structures: ClassVar[str | Structure] = Auto(max_dense_dim=4096, otherwise=Identity())
    recipe: ClassVar[Recipe] = Recipe(
        momentum=0.9, nesterov=False, update_rms=0.2, refresh_every=100
    )

    def __post_init__(self) -> None:
        check_number("b2", self.b2, maximum=1, strict_maximum=True)
        check_choice("basis_method", self.basis_method, BASIS_METHODS)
        check_precision("precision", self.precision)

    def init(self, view: MatrixView) -> SPlusState:
        """Bases of I, and moments of zero."""
        check_bases(view.structures, "SPlus", "For other structures use inverse_free_shampoo.")
        stack, dtype = view.stack_shape, view.statistics_dtype
        sides = list(zip(view.structures, view.dims, view.factor_dtype, strict=True))
        K, C = (structure.eye(dim, name, stack) for structure, dim, name in sides)
        L, R = (structure.zeros(dim, dtype, stack) for structure, dim, _ in sides)
        return SPlusState(K, C, L, R, jnp.zeros(stack, jnp.int32))

    def observe(
        self, view: MatrixView, state: SPlusState, gradient: jax.Array, count: jax.Array
    ) -> SPlusState:
        """Add this gradient to the moments."""
        b2 = hyperparameter_at(self.b2, count, view.statistics_dtype)
        rows, columns = view.structures
        turned = jnp.swapaxes(gradient, -1, -2)
        gram_K = rows.project_gram(turned, precision=self.precision)
        gram_C = columns.project_gram(gradient, precision=self.precision)
        return state._replace(
            L=state.L * b2 + gram_K * (1 - b2), R=state.R * b2 + gram_C * (1 - b2)
        )

    def refresh_all(
        self,
        views: Mapping[str, MatrixView],
        states: Mapping[str, SPlusState],
        statistics: Mapping[str, Statistics | None],
        gradients: Mapping[str, jax.Array],
        count: jax.Array,
        key: jax.Array,
    ) -> dict[str, tuple[SPlusState, jax.Array | bool]]:
        """New bases of all parameters, those of equal blocks in one batch."""
        bases = grouped_bases(
            views,
            {path: (states[path].L, states[path].R) for path in views},
            {path: (states[path].K, states[path].C) for path in views},
            {path: states[path].started for path in views},
            method=self.basis_method,
            precision=self.precision,
        )
        result: dict[str, tuple[SPlusState, jax.Array | bool]] = {}
        for path, own in bases.items():
            started = jnp.maximum(states[path].started, own.is_basis.astype(jnp.int32))
            new = states[path]._replace(K=own.pair[0], C=own.pair[1], started=started)
            result[path] = new, own.went_well
        return result

    def direction(
        self,
        view: MatrixView,
        state: SPlusState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, SPlusState]:
        """Signs of the coefficients in the bases, times their mean absolute value."""
        pair = state.K, state.C
        turned = into_bases(pair, vector, self.precision)
        size = jnp.abs(turned)
        signs = jnp.where(size > _ROUNDINGS * rounding_of(turned), jnp.sign(turned), 0)
        made = signs * size.mean((-2, -1), keepdims=True)
        return out_of_bases(pair, made, self.precision), state


@shows_scaling_of(SPlus)
def scale_by_splus(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Take signs of momenta in the basis of Shampoo's eigenvectors, from gradients alone.

    A momentum M becomes c Q sign(Qᵀ M P) Pᵀ, where Q and P are the eigenvectors of the averages of
    G Gᵀ and Gᵀ G for gradients G, and c is the mean of |Qᵀ M P|: set its size by ``update_rms``.

    References:
      Frans, Levine and Abbeel, A Stable Whitening Optimizer for Efficient Neural Network Training,
      2025, arXiv 2506.07254.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_splus(update_rms=1.0)
      >>> grads = {"kernel": jnp.array([[4.0, -9.0], [0.1, 2.0]])}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(2)
      Array([[ 1., -1.],
             [ 1.,  1.]], dtype=float32)
    """
    return scaling_of(scale_by_splus, SPlus, layers, options)


@shows_recipe_of(SPlus)
def splus(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """SPlus in the place of AdamW: signs in a basis that is renewed every hundred steps.

    It works for any model, from gradients alone. A matrix moves by the signs of its average
    gradient in the basis of Shampoo's eigenvectors, at the root mean square that AdamW's updates
    have, and with decoupled weight decay. Frans, Levine and Abbeel, 2025, arXiv 2506.07254.
    """
    return optimizer_of(splus, SPlus, learning_rate, layers, options)
