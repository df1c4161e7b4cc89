"""Inverse-free Shampoo: SINGD's step on the factors, with statistics from gradients alone."""

import dataclasses
from typing import ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_choice, check_number
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
    ColumnMomentum,
    ColumnProduct,
    Counter,
    DampingMode,
    Hyperparameter,
    InverseFree,
    MatrixView,
    MomentumOf,
    Recipe,
    RowFactor,
    RowMomentum,
    RowProduct,
    hyperparameter_at,
)
from singd_optax.rules._inverse_free import (
    FactorStep,
    identity_pair,
    zero_pair,
)
from singd_optax.structures import IdentityMatrix, StructuredMatrix
from singd_optax.transforms import damping_schedule


class InverseFreeShampooState(NamedTuple):
    """What inverse-free Shampoo keeps of a parameter.

    Attributes:
      K: The factor of the rows, rows x rows in its structure.
      C: The factor of the columns, columns x columns in its structure.
      m_K: The momentum of the steps on K.
      m_C: The momentum of the steps on C.
      product_K: K Kᵀ, or None if it is not kept.
      product_C: C Cᵀ, or None if it is not kept.
      started: Whether the factors were refreshed at all: int32, 0 or 1.
    """

    K: RowFactor
    C: ColumnFactor
    m_K: RowMomentum
    m_C: ColumnMomentum
    product_K: RowProduct
    product_C: ColumnProduct
    started: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseFreeShampoo(InverseFree):
    """Structured inverse- and root-free Shampoo (IF-Shampoo of arXiv 2402.03496, figure 3).

    By matrix products alone, K Kᵀ ⊗ C Cᵀ approaches the inverse of the damped second moment of the
    gradient, without the square root that Adam and Shampoo take. For gradients G (rows x columns,
    d_K x d_C), with Π the projection onto a structure, and B = ``batch_size``::

        H_K = Π(Kᵀ G C Cᵀ Gᵀ K) B / d_C,    H_C = Π(Cᵀ Gᵀ K Kᵀ G C) B / d_K
        m_K <- a1 m_K + (1 - a1)/2 [ H_K + λ (Tr CᵀC / d_C) Π(KᵀK) - I ]
        m_C <- a1 m_C + (1 - a1)/2 [ H_C + λ (Tr KᵀK / d_K) Π(CᵀC) - I ]
        K   <- K (I - b1 m_K),    C <- C (I - b1 m_C)
        G   -> K Kᵀ G C Cᵀ

    All right-hand sides have the old K and C. With ``factor_step_norm``, b1 is divided by
    max(1, ‖m‖) for each factor. A gradient of zeros, from which nothing can be learnt, changes
    nothing, and is counted as a skipped refresh.

    Attributes:
      damping: λ, what is added to the second moment, in the units of ``damping_mode``: a number
        >= 0 or a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "relative", where λ is multiplied by B mean(G²), or "absolute" (the paper's).
      factor_momentum: a1, the momentum of the factors' steps, a number in [0, 1) or a schedule.
      batch_size: B, a number > 0 or a schedule: 1 for a loss that is a sum, and the number of
        examples for one that is a mean, where squared gradients are that much smaller than the
        curvature that they stand for. With relative damping it changes the size of directions and
        nothing else.
      factor_init: Where K and C start: "identity" (the paper's), or "gradient", multiples of the
        identity that fit the size of the first gradient, so that only their shape has to be learnt.
    """

    damping: Hyperparameter = damping_schedule()
    damping_mode: DampingMode = "relative"
    factor_momentum: Hyperparameter = 0.5
    batch_size: Hyperparameter = 1.0
    factor_init: Literal["identity", "gradient"] = "gradient"
    cache_products: bool = False

    State: ClassVar[type] = InverseFreeShampooState
    momentum_of: ClassVar[MomentumOf] = "update"
    recipe: ClassVar[Recipe] = Recipe(momentum=0.8, nesterov=False, update_rms=0.2)

    @classmethod
    def paper(
        cls,
        batch_size: Hyperparameter,
        damping: Hyperparameter = 1e-3,
        factor_learning_rate: Hyperparameter = 1e-2,
        factor_momentum: Hyperparameter = 0.9,
    ) -> Self:
        """The rule of the paper: absolute damping, K = C = I at first, and steps without a bound.

        Args:
          batch_size: The number B of examples of a loss that is a mean, or 1 for a sum.
          damping: The damping λ, a number >= 0 or a schedule.
          factor_learning_rate: The step b1 on K and C, a number >= 0 or a schedule.
          factor_momentum: The momentum a1 of these steps, in [0, 1), or a schedule.
        """
        return cls(
            damping=damping,
            damping_mode="absolute",
            factor_learning_rate=factor_learning_rate,
            factor_momentum=factor_momentum,
            factor_step_norm=None,
            batch_size=batch_size,
            factor_init="identity",
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("damping", self.damping)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative"))
        check_number("factor_momentum", self.factor_momentum, maximum=1, strict_maximum=True)
        check_number("batch_size", self.batch_size, strict=True)
        check_choice("factor_init", self.factor_init, ("identity", "gradient"))

    def init(self, view: MatrixView) -> InverseFreeShampooState:
        """K = C = I, and zero momenta."""
        K, C = identity_pair(view)
        products = self.products(view, K, C)
        started = jnp.zeros(view.stack_shape, jnp.int32)
        return InverseFreeShampooState(K, C, *zero_pair(view), *products, started)

    def factor_step(
        self,
        view: MatrixView,
        state: InverseFreeShampooState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
    ) -> FactorStep:
        """The directions of the docstring."""
        dtype = view.statistics_dtype
        K, C = state.K, state.C
        assert state.m_K is not None  # as init made them
        assert state.m_C is not None
        batch_size = hyperparameter_at(self.batch_size, count, dtype)
        gradient = gradient * jnp.sqrt(batch_size)
        mean_square = jnp.mean(gradient**2, axis=(-2, -1))
        good = mean_square > 0
        damping = hyperparameter_at(self.damping, count, dtype)
        if self.damping_mode == "relative":
            damping = damping * mean_square
        if self.factor_init == "gradient":
            one_sided = any(isinstance(factor, IdentityMatrix) for factor in (K, C))
            size = jnp.where(good, mean_square + damping, 1) ** (-0.5 if one_sided else -0.25)
            first = jnp.where(state.started > 0, 1, size)
            K, C = K * first, C * first
        momentum = hyperparameter_at(self.factor_momentum, count, dtype)

        def moved(
            m: StructuredMatrix,
            factor: StructuredMatrix,
            other: StructuredMatrix,
            rows: jax.Array,
        ) -> StructuredMatrix:
            # `rows` @ `factor` is the gradient whitened from both sides.
            whitened = other.transpose_matmul(rows, precision=self.precision)
            curvature = factor.gram(whitened, precision=self.precision) * (1 / other.dim)
            other_gram = other.frobenius_norm() ** 2 / other.dim
            damped = curvature + factor.gram(precision=self.precision) * (damping * other_gram)
            return m * momentum + damped.add_identity(-1.0) * ((1 - momentum) / 2)

        m_K = moved(state.m_K, K, C, jnp.swapaxes(gradient, -1, -2))
        m_C = moved(state.m_C, C, K, gradient)
        return FactorStep(K, C, m_K, m_C, went_well=good)


@shows_scaling_of(InverseFreeShampoo)
def scale_by_inverse_free_shampoo(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by structured inverse- and root-free Shampoo, from gradients alone.

    It is the relative of SINGD for any tree of parameters, without a model or layers. A gradient G
    becomes K Kᵀ G C Cᵀ. By matrix products alone, K and C approach roots of the inverse second
    moment of the gradient. They may have any structure, and may be kept in bfloat16.

    As no root is taken of the moment, the update is smaller where gradients are larger. So set its
    size, by ``grafting``, or by ``update_rms`` as the complete optimizer does.

    References:
      Lin et al., Can We Remove the Square-Root in Adaptive Gradient Methods? A Second-Order
      Perspective, ICML 2024, arXiv 2402.03496.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> tx = optax.chain(
      ...   singd_optax.scale_by_inverse_free_shampoo(structures="diagonal", grafting="sgd"),
      ...   optax.scale_by_learning_rate(0.1))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> opt_state = tx.init(params)
      >>> updates, opt_state = tx.update(params, opt_state, params)
      >>> round(float(optax.tree.norm(updates["kernel"])), 4)
      0.2449
    """
    return scaling_of(scale_by_inverse_free_shampoo, InverseFreeShampoo, layers, options)


@shows_recipe_of(InverseFreeShampoo)
def inverse_free_shampoo(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Inverse-free Shampoo in the place of AdamW: from gradients and matrix products alone.

    It works for any model; factors may have any structure, and be kept in bfloat16. A matrix moves
    by an average of preconditioned gradients, brought to the root mean square that AdamW's updates
    have, with decoupled weight decay. Lin et al., ICML 2024, arXiv 2402.03496.
    """
    return optimizer_of(inverse_free_shampoo, InverseFreeShampoo, learning_rate, layers, options)
