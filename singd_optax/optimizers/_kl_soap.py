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
      values_C: The diagonal of Pᵀ S_C P.
      S_K: The factor of the rows.
      S_C: The factor of the columns.
      started: Whether a gradient was seen: int32, 0 or 1; 2 once there is a basis.
      second_moment: V, the average of squares of the gradient's coefficients in the bases.
      moment_weight: The sum of the weights of what V has seen.
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
    """KL-SOAP (arXiv 2509.03378): Adam in the bases of KL-Shampoo's factors.

    Factors, values and bases are those of ``KLShampoo``; values weight the factors, and for the
    direction there is a second moment of each coefficient::

        V <- b2 V + (1 - b2) (Qᵀ G P)²
        M -> Q [ Qᵀ M P / (√(V / w) + ε) ] Pᵀ

    with w = 1 - b2^t. The coefficients in brackets are kept between ± 1 / √(1 - b2), as in
    ``SOAP``. The V of the first gradient is that in the first bases.

    Attributes:
      b2: Decay of factors, values and V, in [0, 1), or a schedule.
      eps: Of the values, >= 0 and relative to the largest, or a schedule.
      adam_eps: ε >= 0, or a schedule.
    """

    adam_eps: Hyperparameter = 1e-8

    State: ClassVar[type] = KLSOAPState

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("adam_eps", self.adam_eps)

    def init(self, view: MatrixView) -> KLSOAPState:
        """KL-Shampoo's, and a V of zero."""
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

    The equations are in ``singd_optax.optimizers.KLSOAP``. How arrays make matrices is said at
    ``scale_by_rule``; scalars and vectors pass through. ``singd_optax.kl_soap`` is a complete
    optimizer.

    References:
      Lin et al., arXiv 2509.03378, see ``scale_by_kl_shampoo``.

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
    """KL-SOAP as a drop-in for AdamW: SOAP, in the bases of KL-Shampoo's factors."""
    return optimizer_of(kl_soap, KLSOAP, learning_rate, layers, options)
