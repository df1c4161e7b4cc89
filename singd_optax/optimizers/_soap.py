"""SOAP: Adam in the basis of Shampoo's eigenvectors."""

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
    ColumnValues,
    Counter,
    Hyperparameter,
    JointRule,
    MatrixView,
    MomentumOf,
    Number,
    Recipe,
    RowBasis,
    RowEntries,
    RowMoment,
    RowValues,
    choose,
    hyperparameter_at,
)
from singd_optax.rules._eigenbasis import (
    BASIS_METHODS,
    BasisMethod,
    check_bases,
    grouped_bases,
    into_bases,
    is_turned,
    out_of_bases,
)
from singd_optax.rules._second_moment import (
    SECOND_MOMENTS,
    SecondMoment,
    adam_scaled,
    outer_moment,
)
from singd_optax.structures import Auto, Identity, Precision, Structure


class SOAPState(NamedTuple):
    """What SOAP keeps of a parameter.

    Attributes:
      K: The basis of the rows, Q.
      C: The basis of the columns, P.
      L: The second moment of the rows, the average of G Gᵀ.
      R: The second moment of the columns, the average of Gᵀ G.
      second_moment: V, the average of squares of the gradient's coefficients in the bases, (rows,
        columns).
      moment_weight: w, the sum of the weights of all that is in V.
      started: Whether there is a basis yet: int32, 0 or 1.
    """

    K: RowBasis
    C: ColumnBasis
    L: RowMoment
    R: ColumnMoment
    second_moment: RowEntries
    moment_weight: Number
    started: Counter


class FactoredSOAPState(NamedTuple):
    """What SOAP keeps with a factored second moment.

    Attributes:
      K: The basis of the rows, Q.
      C: The basis of the columns, P.
      L: The second moment of the rows, the average of G Gᵀ.
      R: The second moment of the columns, the average of Gᵀ G.
      values_K: The means of V's rows, (rows,).
      values_C: The means of V's columns, (columns,).
      moment_weight: w, the sum of the weights of all that is in them.
      started: Whether there is a basis yet: int32, 0 or 1.
    """

    K: RowBasis
    C: ColumnBasis
    L: RowMoment
    R: ColumnMoment
    values_K: RowValues
    values_C: ColumnValues
    moment_weight: Number
    started: Counter


AnyState = SOAPState | FactoredSOAPState


@dataclasses.dataclass(frozen=True, kw_only=True)
class SOAP(JointRule):
    """SOAP: Adam in a slowly turning basis, Shampoo's eigenvectors (arXiv 2409.11321).

    For gradients G (rows x columns), let M be their average with corrected bias (the momentum), and
    let Q and P be the bases of the rows and of the columns. M is kept in the coordinates of the
    parameter, so that it need not be turned when a basis turns::

        L <- s L + (1 - s) G Gᵀ,    R <- s R + (1 - s) Gᵀ G
        V <- b2 V + (1 - b2) (Qᵀ G P)²
        M -> Q [ Qᵀ M P / (√(V / w) + ε) ] Pᵀ
        Q <- qr(L Q),    P <- qr(R P)                     on refresh steps, after the rest

    After t gradients w = 1 - b2^t is the sum of the weights in V. The coefficients in brackets are
    kept between ± 1 / √(1 - b2), which no gradient exceeds in a basis that stays. The first bases
    are the eigenvectors of L and R after the first gradient, whose own step is that of Adam. With
    Q = P = I all of it is Adam. A side whose structure is ``Identity()`` has no basis; by default
    this is so for sides longer than 4096.

    With ``basis_method="eigh"`` the method is Shampoo with corrected eigenvalues (arXiv
    2506.03595). A gradient of zeros counts, as for Adam. A matrix or block keeps its basis where
    all gradients were zero, and where a new basis fails.

    Attributes:
      b2: The decay of V, a number in [0, 1) or a schedule.
      basis_decay: s, the decay of L and R, a number in [0, 1) or a schedule; None for ``b2``.
      eps: ε, a number >= 0 or a schedule.
      basis_method: What a refresh makes the bases of: "qr", one step of orthogonal iteration, or
        "eigh", the eigenvectors.
      second_moment: How V is kept: "full", or "factored" as the product of the means of its rows
        and of its columns, which takes the memory of two vectors.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    b2: Hyperparameter = 0.95
    basis_decay: Hyperparameter | None = None
    eps: Hyperparameter = 1e-8
    basis_method: BasisMethod = "qr"
    second_moment: SecondMoment = "full"
    precision: Precision = "highest"

    State: ClassVar[type] = SOAPState
    refresh_first: ClassVar[bool] = False
    is_of_whole: ClassVar[bool] = True
    momentum_of: ClassVar[MomentumOf] = "average"
    structures: ClassVar[str | Structure] = Auto(max_dense_dim=4096, otherwise=Identity())
    recipe: ClassVar[Recipe] = Recipe(
        momentum=0.95, nesterov=False, update_rms=None, refresh_every=10
    )

    def __post_init__(self) -> None:
        check_number("b2", self.b2, maximum=1, strict_maximum=True)
        if self.basis_decay is not None:
            check_number("basis_decay", self.basis_decay, maximum=1, strict_maximum=True)
        check_number("eps", self.eps)
        check_choice("basis_method", self.basis_method, BASIS_METHODS)
        check_choice("second_moment", self.second_moment, SECOND_MOMENTS)
        check_precision("precision", self.precision)

    def init(self, view: MatrixView) -> AnyState:
        """Bases of I, and moments of zero."""
        check_bases(
            view.structures, type(self).__name__, "For other structures use inverse_free_shampoo."
        )
        stack, dtype = view.stack_shape, view.statistics_dtype
        sides = list(zip(view.structures, view.dims, view.factor_dtype, strict=True))
        K, C = (structure.eye(dim, name, stack) for structure, dim, name in sides)
        L, R = (structure.zeros(dim, dtype, stack) for structure, dim, _ in sides)
        weight, started = jnp.zeros(stack, dtype), jnp.zeros(stack, jnp.int32)
        if self.second_moment == "factored":
            rows, columns = (jnp.zeros((*stack, dim), dtype) for dim in view.dims)
            return FactoredSOAPState(K, C, L, R, rows, columns, weight, started)
        return SOAPState(K, C, L, R, jnp.zeros((*stack, *view.dims), dtype), weight, started)

    def observe(
        self, view: MatrixView, state: AnyState, gradient: jax.Array, count: jax.Array
    ) -> AnyState:
        """Add this gradient to all moments."""
        dtype = view.statistics_dtype
        b2 = hyperparameter_at(self.b2, count, dtype)
        decay = b2
        if self.basis_decay is not None:
            decay = hyperparameter_at(self.basis_decay, count, dtype)
        rows, columns = view.structures
        turned = jnp.swapaxes(gradient, -1, -2)
        squares = into_bases((state.K, state.C), gradient, self.precision) ** 2
        state = state._replace(
            L=state.L * decay + rows.project_gram(turned, precision=self.precision) * (1 - decay),
            R=state.R * decay
            + columns.project_gram(gradient, precision=self.precision) * (1 - decay),
            moment_weight=state.moment_weight * b2 + (1 - b2),
        )
        return _with_squares(state, squares, b2)

    def refresh_all(
        self,
        views: Mapping[str, MatrixView],
        states: Mapping[str, AnyState],
        statistics: Mapping[str, Statistics | None],
        gradients: Mapping[str, jax.Array],
        count: jax.Array,
        key: jax.Array,
    ) -> dict[str, tuple[AnyState, jax.Array | bool]]:
        """New bases of all parameters, those of equal blocks in one batch."""
        bases = grouped_bases(
            views,
            {path: (states[path].L, states[path].R) for path in views},
            {path: (states[path].K, states[path].C) for path in views},
            {path: states[path].started for path in views},
            method=self.basis_method,
            precision=self.precision,
        )
        result: dict[str, tuple[AnyState, jax.Array | bool]] = {}
        for path in views:
            own, state = bases[path], states[path]
            # The first gradient was squared in the coordinates of the parameter.
            squares = into_bases(own.pair, gradients[path], self.precision) ** 2
            again = _with_squares(state, squares * state.moment_weight[..., None, None], 0.0)
            is_first = own.is_basis & (state.started == 0)
            new = choose(is_first, again, state)._replace(
                K=own.pair[0],
                C=own.pair[1],
                started=jnp.maximum(state.started, own.is_basis.astype(jnp.int32)),
            )
            result[path] = new, own.went_well
        return result

    def direction(
        self,
        view: MatrixView,
        state: AnyState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, AnyState]:
        """Adam's step in the bases."""
        pair = state.K, state.C
        turned = into_bases(pair, vector, self.precision)
        if isinstance(state, FactoredSOAPState):
            second_moment = outer_moment(state.values_K, state.values_C)
        else:
            second_moment = state.second_moment
        b2, eps = (hyperparameter_at(x, count, view.statistics_dtype) for x in (self.b2, self.eps))
        weight = state.moment_weight
        scaled = adam_scaled(turned, second_moment, weight, b2, eps, is_turned(view))
        return out_of_bases(pair, scaled, self.precision), state


def _with_squares(state: AnyState, squares: jax.Array, decay: jax.Array | float) -> AnyState:
    """The state after V has decayed, and these squares were added to it."""
    if isinstance(state, FactoredSOAPState):
        return state._replace(
            values_K=state.values_K * decay + squares.mean(-1) * (1 - decay),
            values_C=state.values_C * decay + squares.mean(-2) * (1 - decay),
        )
    return state._replace(second_moment=state.second_moment * decay + squares * (1 - decay))


@shows_scaling_of(SOAP)
def scale_by_soap(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Adam's second moment in the basis of Shampoo's eigenvectors.

    A gradient G becomes Q [ Qᵀ G P / (√(V / w) + ε) ] Pᵀ, where Q and P are near the eigenvectors
    of the averages of G Gᵀ and Gᵀ G, and V averages the squares of Qᵀ G P. With
    ``momentum``, an average of gradients with corrected bias, as Adam's, takes the place of G.

    References:
      Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, ICLR 2025, arXiv 2409.11321.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_soap(structures="identity")
      >>> grads = {"kernel": jnp.diag(jnp.array([4.0, 9.0]))}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(4)
      Array([[1., 0.],
             [0., 1.]], dtype=float32)
    """
    return scaling_of(scale_by_soap, SOAP, layers, options)


@shows_recipe_of(SOAP)
def soap(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """SOAP in the place of AdamW: Adam in the basis of Shampoo's eigenvectors.

    It works for any model, from gradients alone. A matrix moves by Adam's step in a basis that
    turns slowly, with decoupled weight decay. Learning rates are those of AdamW, or a little
    larger. Vyas et al., ICLR 2025, arXiv 2409.11321.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> x = jax.random.normal(jax.random.key(0), (64, 8))
      >>> y = x @ jax.random.normal(jax.random.key(1), (8, 3))
      >>> loss_fn = lambda params: jnp.mean((x @ params["kernel"] + params["bias"] - y) ** 2)
      >>> params = {"kernel": jnp.zeros((8, 3)), "bias": jnp.zeros(3)}
      >>> tx = singd_optax.soap(optax.linear_schedule(0.3, 0.0, 100))
      >>> opt_state = tx.init(params)
      >>> @jax.jit
      ... def step(params, opt_state):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> for _ in range(100):
      ...   params, opt_state = step(params, opt_state)
      >>> bool(loss_fn(params) < 0.02)
      True
    """
    return optimizer_of(soap, SOAP, learning_rate, layers, options)
