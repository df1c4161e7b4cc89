"""KL-SOAP: Adam in the bases of KL-Shampoo's factors."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._types import PyTree
from singd_optax._validate import check_number
from singd_optax.layers import Layers
from singd_optax.optimizers._kl_shampoo import (
    ColumnValuesIfAny,
    KLShampoo,
    RowValuesIfAny,
)
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
    MatrixView,
    Number,
    RowBasis,
    RowEntries,
    RowMoment,
    choose,
    hyperparameter_at,
)
from singd_optax.rules._eigenbasis import into_bases, is_turned
from singd_optax.rules._second_moment import adam_scaled


class KLSOAPState(NamedTuple):
    """What KL-SOAP keeps of a parameter.

    Attributes:
      K: The basis of the rows, Q.
      C: The basis of the columns, P.
      values_K: The diagonal of Qᵀ S_K Q, or None for a side without a factor.
      values_C: The diagonal of Pᵀ S_C P, likewise.
      S_K: The factor of the rows.
      S_C: The factor of the columns.
      started: Whether a gradient was seen: int32, 0 or 1; 2 once there is a basis.
      second_moment: V, the average of squares of the gradient's coefficients in the bases, (rows,
        columns).
      moment_weight: w, the sum of the weights of all that is in V.
    """

    K: RowBasis
    C: ColumnBasis
    values_K: RowValuesIfAny
    values_C: ColumnValuesIfAny
    S_K: RowMoment
    S_C: ColumnMoment
    started: Counter
    second_moment: RowEntries
    moment_weight: Number


@dataclasses.dataclass(frozen=True, kw_only=True)
class KLSOAP(KLShampoo):
    """KL-SOAP: Adam in the bases of KL-Shampoo's factors (arXiv 2509.03378).

    The factors, their values and their bases Q and P are those of ``KLShampoo``, for gradients G
    and momenta M (rows x columns). The values are used for the factors alone; the direction is that
    of Adam, with a second moment V of each coefficient::

        V <- b2 V + (1 - b2) (Qᵀ G P)²
        M -> Q [ Qᵀ M P / (√(V / w) + ε) ] Pᵀ,    w = 1 - b2^t after t gradients

    The coefficients in brackets are kept between ± 1 / √(1 - b2), as in ``SOAP``. The first
    gradient is squared anew in the first bases, which are made of it.

    Attributes:
      b2: The decay of factors, values and V, a number in [0, 1) or a schedule.
      eps: What is added to the values, relative to the largest of them, a number >= 0 or a
        schedule.
      adam_eps: ε, a number >= 0 or a schedule.
    """

    adam_eps: Hyperparameter = 1e-8

    State: ClassVar[type] = KLSOAPState

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("adam_eps", self.adam_eps)

    def init(self, view: MatrixView) -> KLSOAPState:
        """The state of KL-Shampoo, and a V of zero."""
        stack, dtype = view.stack_shape, view.statistics_dtype
        entries = jnp.zeros((*stack, *view.dims), dtype)
        of_factors = super().init(view)._asdict()
        weight = jnp.zeros(stack, dtype)
        return KLSOAPState(**of_factors, second_moment=entries, moment_weight=weight)

    def with_squares(self, state: PyTree, squares: jax.Array, b2: jax.Array) -> PyTree:
        return state._replace(
            second_moment=state.second_moment * b2 + squares * (1 - b2),
            moment_weight=state.moment_weight * b2 + (1 - b2),
        )

    def in_new_bases(self, old: PyTree, new: PyTree, gradient: jax.Array) -> PyTree:
        squares = into_bases((new.K, new.C), gradient, self.precision) ** 2
        again = new._replace(second_moment=squares * new.moment_weight[..., None, None])
        return choose(old.started < 2, again, new)

    def scaled(
        self, view: MatrixView, state: PyTree, turned: jax.Array, count: jax.Array
    ) -> jax.Array:
        b2, eps = (hyperparameter_at(x, count, turned.dtype) for x in (self.b2, self.adam_eps))
        return adam_scaled(
            turned, state.second_moment, state.moment_weight, b2, eps, is_turned(view)
        )


@shows_scaling_of(KLSOAP)
def scale_by_kl_soap(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Adam's second moment in the bases of KL-Shampoo's factors.

    A gradient G becomes Q [ Qᵀ G P / (√(V / w) + ε) ] Pᵀ, where Q and P are near the eigenvectors
    of KL-Shampoo's factors, and V averages the squares of Qᵀ G P.

    References:
      Lin, Lowe, Dangel, Eschenhagen, Xu and Grosse, Understanding and Improving Shampoo and SOAP
      via Kullback-Leibler Minimization, arXiv 2509.03378.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_kl_soap()
      >>> grads = {"kernel": jnp.ones((3, 2))}
      >>> updates, opt_state = tx.update(grads, tx.init(grads))
    """
    return scaling_of(scale_by_kl_soap, KLSOAP, layers, options)


@shows_recipe_of(KLSOAP)
def kl_soap(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """KL-SOAP in the place of AdamW: Adam in the bases of KL-Shampoo's factors.

    It works for any model, from gradients alone. It is ``soap`` in the bases of ``kl_shampoo``: a
    matrix moves by Adam's step in them, with decoupled weight decay. Lin et al., arXiv 2509.03378.
    """
    return optimizer_of(kl_soap, KLSOAP, learning_rate, layers, options)
