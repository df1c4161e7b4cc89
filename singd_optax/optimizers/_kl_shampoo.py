"""KL-Shampoo: the two factors that fit the second moment of gradients best."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._types import PyTree
from singd_optax._validate import check_choice, check_number, check_precision
from singd_optax.layers import Layers, Role
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
    choose,
    hyperparameter_at,
)
from singd_optax.rules._eigenbasis import (
    BASIS_METHODS,
    BasisMethod,
    check_bases,
    grouped_bases,
    into_bases,
    onto_columns,
    out_of_bases,
    values_in,
)
from singd_optax.rules._second_moment import rms_at_most
from singd_optax.structures import (
    Auto,
    Diagonal,
    IdentityMatrix,
    Precision,
    Structure,
    StructuredMatrix,
)

#: None on a side that has no factor.
RowValuesIfAny = Annotated[jax.Array | None, Role("values", 0)]
ColumnValuesIfAny = Annotated[jax.Array | None, Role("values", 1)]


class KLShampooState(NamedTuple):
    """What KL-Shampoo keeps of a parameter.

    Attributes:
      K: The basis of the rows, Q.
      C: The basis of the columns, P.
      values_K: The diagonal of Qᵀ S_K Q, or None for a side without a factor.
      values_C: The diagonal of Pᵀ S_C P, likewise.
      S_K: The factor of the rows.
      S_C: The factor of the columns.
      started: Whether a gradient was seen: int32, 0 or 1; 2 once there is a basis.
    """

    K: RowBasis
    C: ColumnBasis
    values_K: RowValuesIfAny
    values_C: ColumnValuesIfAny
    S_K: RowMoment
    S_C: ColumnMoment
    started: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class KLShampoo(JointRule):
    """KL-Shampoo: Shampoo with the factors that fit best in KL divergence (arXiv 2509.03378).

    Of all normal distributions of mean zero with a covariance S_K ⊗ S_C, one is nearest in
    Kullback-Leibler divergence to the distribution of gradients G (rows x columns, d_K x d_C). It
    has S_K = E[G S_C^-1 Gᵀ] / d_C and S_C = E[Gᵀ S_K^-1 G] / d_K: each factor is weighted by the
    inverse of the other. Let the bases Q and P be near their eigenvectors, and the values l_K and
    l_C near their eigenvalues. Let M be the average of gradients (the momentum) and X = Qᵀ G P.
    With the old values in all right-hand sides::

        S_K <- b2 S_K + (1 - b2) Z Zᵀ / d_C,    Z = G P diag(l_C)^-1/2
        S_C <- b2 S_C + (1 - b2) Yᵀ Y / d_K,    Y = diag(l_K)^-1/2 Qᵀ G
        l_K <- b2 l_K + (1 - b2) mean_j X_ij² / l_C,j           and l_C alike
        M   -> Q [ (Qᵀ M P)_ij / √(l_K,i l_C,j) ] Pᵀ
        Q   <- qr(S_K Q),  l_K <- diag(Qᵀ S_K Q)                on refresh steps, after the rest

    The values move on each step: they are the diagonal of S_K in the basis, however old the basis
    is. Both factors start at a multiple of I that fits the first gradient. A constant by which all
    gradients are multiplied changes nothing. Where l divides, ε times its largest entry is added.

    Structures are dense, block-diagonal, diagonal, which keeps one number for each row or column
    (the default for sides longer than 4096), and ``Identity()`` for a side without a factor. A
    gradient of zeros changes nothing, and on a refresh step it is counted as a skipped refresh.

    Attributes:
      b2: The decay of factors and values, a number in [0, 1) or a schedule.
      eps: ε, what is added to the values, relative to the largest of them, a number >= 0 or a
        schedule.
      basis_method: What a refresh makes the bases of: "qr", one step of orthogonal iteration, or
        "eigh", the eigenvectors.
      clip_rms: The largest root mean square that a direction may have, a number > 0; None for no
        bound. The direction of a gradient like the last ones has about 1, that of an average less.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    b2: Hyperparameter = 0.95
    eps: Hyperparameter = 1e-6
    basis_method: BasisMethod = "qr"
    clip_rms: float | None = 1.1
    precision: Precision = "highest"

    State: ClassVar[type] = KLShampooState
    refresh_first: ClassVar[bool] = False
    is_of_whole: ClassVar[bool] = True
    momentum_of: ClassVar[MomentumOf] = "average"
    structures: ClassVar[str | Structure] = Auto(max_dense_dim=4096, otherwise=Diagonal())
    recipe: ClassVar[Recipe] = Recipe(
        momentum=0.95, nesterov=False, update_rms=None, refresh_every=10
    )

    def __post_init__(self) -> None:
        check_number("b2", self.b2, maximum=1, strict_maximum=True)
        check_number("eps", self.eps)
        check_choice("basis_method", self.basis_method, BASIS_METHODS)
        if self.clip_rms is not None:
            check_number("clip_rms", self.clip_rms, strict=True, schedule=False)
        check_precision("precision", self.precision)

    def init(self, view: MatrixView) -> PyTree:
        """Bases and factors of I."""
        check_bases(
            view.structures, type(self).__name__, "For other structures use inverse_free_shampoo."
        )
        stack, dtype = view.stack_shape, view.statistics_dtype
        sides = list(zip(view.structures, view.dims, view.factor_dtype, strict=True))
        K, C = (structure.eye(dim, name, stack) for structure, dim, name in sides)
        S_K, S_C = (structure.eye(dim, dtype, stack) for structure, dim, _ in sides)
        values_K, values_C = (
            None if isinstance(S, IdentityMatrix) else jnp.ones((*stack, S.dim), dtype)
            for S in (S_K, S_C)
        )
        return KLShampooState(K, C, values_K, values_C, S_K, S_C, jnp.zeros(stack, jnp.int32))

    def observe(
        self, view: MatrixView, state: PyTree, gradient: jax.Array, count: jax.Array
    ) -> PyTree:
        """Factors and values after one more gradient."""
        dtype = view.statistics_dtype
        b2, eps = (hyperparameter_at(x, count, dtype) for x in (self.b2, self.eps))
        first = _first_size(state, gradient)
        S_K, S_C = state.S_K * first, state.S_C * first
        l_K, l_C = (
            None if values is None else values * first[..., None]
            for values in (state.values_K, state.values_C)
        )
        over_K, over_C = _inverse(l_K, eps), _inverse(l_C, eps)
        onto_C = onto_columns(gradient, state.C, self.precision)
        onto_K = state.K.transpose_matmul(gradient, precision=self.precision)
        squares = state.K.transpose_matmul(onto_C, precision=self.precision) ** 2
        rows, columns = view.structures
        Z = jnp.swapaxes(onto_C * jnp.sqrt(over_C)[..., None, :], -1, -2)
        Y = onto_K * jnp.sqrt(over_K)[..., :, None]
        gram_K = rows.project_gram(Z, precision=self.precision) * (1 / view.dims[1])
        gram_C = columns.project_gram(Y, precision=self.precision) * (1 / view.dims[0])
        new = state._replace(
            S_K=S_K * b2 + gram_K * (1 - b2),
            S_C=S_C * b2 + gram_C * (1 - b2),
            started=jnp.maximum(state.started, 1),
        )
        if l_K is not None:
            fresh = (squares * over_C[..., None, :]).mean(-1)
            new = new._replace(values_K=l_K * b2 + fresh * (1 - b2))
        if l_C is not None:
            fresh = (squares * over_K[..., :, None]).mean(-2)
            new = new._replace(values_C=l_C * b2 + fresh * (1 - b2))
        return choose(_is_seen(gradient), self.with_squares(new, squares, b2), state)

    def with_squares(self, state: PyTree, squares: jax.Array, b2: jax.Array) -> PyTree:
        """The state after what else is made of squared coefficients: here, the same state."""
        del squares, b2
        return state

    def in_new_bases(self, old: PyTree, new: PyTree, gradient: jax.Array) -> PyTree:
        """The state with what else must be known in new bases: here, the same state."""
        del old, gradient
        return new

    def refresh_all(
        self,
        views: Mapping[str, MatrixView],
        states: Mapping[str, PyTree],
        statistics: Mapping[str, Statistics | None],
        gradients: Mapping[str, jax.Array],
        count: jax.Array,
        key: jax.Array,
    ) -> dict[str, tuple[PyTree, jax.Array | bool]]:
        """New bases of all parameters, those of equal blocks in one batch."""
        # What has seen nothing counts as if it had its basis, I: there is nothing to begin with.
        bases = grouped_bases(
            views,
            {path: (states[path].S_K, states[path].S_C) for path in views},
            {path: (states[path].K, states[path].C) for path in views},
            {path: jnp.abs(states[path].started - 1) for path in views},
            method=self.basis_method,
            precision=self.precision,
        )
        result: dict[str, tuple[PyTree, jax.Array | bool]] = {}
        for path in views:
            own, state = bases[path], states[path]
            new = state._replace(
                K=own.pair[0],
                C=own.pair[1],
                values_K=self._values(state.S_K, own.pair[0]),
                values_C=self._values(state.S_C, own.pair[1]),
                started=jnp.full_like(state.started, 2),
            )
            new = self.in_new_bases(state, new, gradients[path])
            has_seen = _is_seen(gradients[path])
            result[path] = choose(has_seen, new, state), own.went_well & has_seen
        return result

    def _values(self, moment: StructuredMatrix, basis: StructuredMatrix) -> jax.Array | None:
        if isinstance(moment, IdentityMatrix):
            return None
        return values_in(moment, basis, self.precision)

    def direction(
        self,
        view: MatrixView,
        state: PyTree,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, PyTree]:
        """S_K^-1/2 M S_C^-1/2."""
        turned = into_bases((state.K, state.C), vector, self.precision)
        scaled = self.scaled(view, state, turned, count)
        direction = out_of_bases((state.K, state.C), scaled, self.precision)
        return rms_at_most(direction, self.clip_rms), state

    def scaled(
        self, view: MatrixView, state: PyTree, turned: jax.Array, count: jax.Array
    ) -> jax.Array:
        """The direction's coefficients from those of the momentum."""
        eps = hyperparameter_at(self.eps, count, turned.dtype)
        over_K, over_C = (_inverse(values, eps) for values in (state.values_K, state.values_C))
        return turned * jnp.sqrt(over_K)[..., :, None] * jnp.sqrt(over_C)[..., None, :]


def _is_seen(gradient: jax.Array) -> jax.Array:
    """Whether the gradient is not all zeros, so that something can be learnt from it."""
    return jnp.mean(gradient**2, axis=(-2, -1)) > 0


def _first_size(state: PyTree, gradient: jax.Array) -> jax.Array:
    """The number by which factors of I are multiplied, so that they fit the first gradient."""
    mean_square = jnp.mean(gradient**2, axis=(-2, -1))
    sides = sum(values is not None for values in (state.values_K, state.values_C))
    size = jnp.where(mean_square > 0, mean_square, 1) ** (1 / max(sides, 1))
    return jnp.where(state.started > 0, 1, size)


def _inverse(values: jax.Array | None, eps: jax.Array) -> jax.Array:
    """1 / l, with the ridge; 1 for a side without a factor."""
    if values is None:
        return jnp.ones([1], eps.dtype)
    ridged = values + eps * values.max(-1, keepdims=True)
    return 1 / jnp.where(ridged > 0, ridged, 1)


@shows_scaling_of(KLShampoo)
def scale_by_kl_shampoo(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by KL-Shampoo's preconditioner, from gradients alone.

    A gradient G becomes S_K^-1/2 G S_C^-1/2, where S_K ⊗ S_C is the Kronecker product that is
    nearest to the second moment of gradients in Kullback-Leibler divergence.

    References:
      Lin, Lowe, Dangel, Eschenhagen, Xu and Grosse, Understanding and Improving Shampoo and SOAP
      via Kullback-Leibler Minimization, arXiv 2509.03378.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_kl_shampoo()
      >>> grads = {"kernel": jnp.full((3, 2), 5.0)}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(2)[0]
      Array([1., 1.], dtype=float32)
    """
    return scaling_of(scale_by_kl_shampoo, KLShampoo, layers, options)


@shows_recipe_of(KLShampoo)
def kl_shampoo(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """KL-Shampoo in the place of AdamW: the two factors that fit gradients' moment best.

    It works for any model, from gradients alone. A matrix moves by the average of its gradients,
    multiplied from both sides by the inverse roots of the factors, with decoupled weight decay. No
    second moment of entries is kept. Learning rates are those of AdamW. Lin et al., arXiv
    2509.03378.
    """
    return optimizer_of(kl_shampoo, KLShampoo, learning_rate, layers, options)
