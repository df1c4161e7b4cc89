"""SINGD: structured inverse-free natural gradient descent; INGD is its dense case."""

import dataclasses
from typing import ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_choice, check_flag, check_number
from singd_optax.layers import Layers
from singd_optax.layers._check import check_layers
from singd_optax.measures import NO_MOMENTS, Cross, Measure, Statistics
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
    Damping,
    DampingMode,
    FactorStepNorm,
    Hyperparameter,
    InverseFree,
    MatrixView,
    RowFactor,
    RowMomentum,
    RowProduct,
    check_damping,
    damping_at,
    hyperparameter_at,
    sampling_damping,
)
from singd_optax.rules._inverse_free import (
    WHITENED,
    FactorStep,
    first_scales,
    identity_pair,
    trace_of,
    zero_pair,
)
from singd_optax.structures import Dense, IdentityMatrix, StructuredMatrix

#: Where K and C start: from I, or from multiples of I that fit the first statistics.
FactorInit = Literal["identity", "statistics"]


CROSS = Cross(whitened_by=("K", "C"))


class SINGDState(NamedTuple):
    """What SINGD keeps of a layer.

    Attributes:
      K: Of the inputs.
      C: Of the outputs.
      m_K: The momentum of K's steps, or None without momentum.
      m_C: Of C's.
      product_K: K Kᵀ, or None if it is not kept.
      product_C: C Cᵀ.
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
class SINGD(InverseFree):
    """The update of SINGD (arXiv 2312.05705, figure 1; arXiv 2302.09738 for dense factors).

    With Π the projection onto a structure, H_K = Π(Kᵀ U K), H_C = Π(Cᵀ G C)::

        m_K <- a1 m_K + 1/2 [ (Tr H_C / d_o) H_K + λ (Tr CᵀC / d_o) Π(KᵀK) - I ]
        m_C <- a1 m_C + 1/2 [ (Tr H_K / d_i) H_C + λ (Tr KᵀK / d_i) Π(CᵀC) - I ]
        K   <- K (I - b1 m_K),    C <- C (I - b1 m_C)
        G   -> K Kᵀ G C Cᵀ

    where all right-hand sides have the old K and C. With a step norm, the fresh term (the
    bracket) is scaled by 1 - a1, and b1 divided by max(1, ‖m‖), for each factor.

    Attributes:
      damping: λ, a number >= 0, a schedule, or ``sampling_damping()``, in the units of
        ``damping_mode``; the default is 0.03, and more where moments are of few rows.
      damping_mode: "absolute" (the paper's), or "relative" to (Tr U / d_i)(Tr G / d_o) of this
        layer's statistics, so that the scale of loss and activations drops out. None is "relative"
        with a spectral step norm, and "absolute" with the steps of the paper and its package.
      factor_momentum: a1, momentum of the factors' steps, in [0, 1), or a schedule; at 0, none is
        kept.
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics, K = (Tr U / d_i)^-1/2 I, so that only shape has to
        be learnt. None is "statistics" with a spectral step norm, else "identity".
      cross_moments: Whether E[|Cᵀ g|² Kᵀ a aᵀ K] / d_o takes the place of (Tr H_C / d_o) H_K, and
        likewise for C: each input counts by the size of its own gradient. K and C then approach
        the matrix normal distribution of highest likelihood of the examples' gradients, that is
        an inverse-free ``TKFAC``, in every structure; where inputs and gradients are independent
        the two are the same.
    """

    damping: Damping = sampling_damping()
    damping_mode: DampingMode | None = None
    factor_momentum: Hyperparameter = 0.0
    factor_init: FactorInit | None = None
    cross_moments: bool = False

    State: ClassVar[type] = SINGDState

    @classmethod
    def paper(
        cls,
        damping: Hyperparameter = 1e-3,
        factor_learning_rate: Hyperparameter = 1e-2,
        factor_momentum: Hyperparameter = 0.9,
        factor_step_norm: FactorStepNorm = None,
    ) -> Self:
        """The algorithm of the paper: absolute damping, from K = C = I, with unbounded steps.

        ``optax.chain(scale_by_rule(SINGD.paper(), layers), optax.add_decayed_weights(weight_decay),
        optax.trace(momentum), optax.scale_by_learning_rate(learning_rate))`` is all of it.

        Args:
          damping: λ.
          factor_learning_rate: b1.
          factor_momentum: a1.
          factor_step_norm: "max_abs" is the option of its package.
        """
        return cls(
            damping=damping,
            damping_mode="absolute",
            factor_learning_rate=factor_learning_rate,
            factor_momentum=factor_momentum,
            factor_step_norm=factor_step_norm,
            factor_init="identity",
            cache_products=False,
            direction_precision=None,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_damping(self.damping)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative", None))
        check_number("factor_momentum", self.factor_momentum, maximum=1, strict_maximum=True)
        check_choice("factor_init", self.factor_init, ("identity", "statistics", None))
        check_flag("cross_moments", self.cross_moments)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Moments, whitened by K and C; or cross moments alone."""
        return (NO_MOMENTS, CROSS) if self.cross_moments else WHITENED

    def init(self, view: MatrixView) -> SINGDState:
        """K = C = I, and zero momenta."""
        K, C = identity_pair(view)
        # A traced value may become another; a plain zero never does, and needs no memory.
        plain_zero = isinstance(self.factor_momentum, int | float) and self.factor_momentum == 0
        m_K, m_C = (None, None) if plain_zero else zero_pair(view)
        products = self.products(view, K, C)
        return SINGDState(K, C, m_K, m_C, *products, jnp.zeros(view.stack_shape, jnp.int32))

    def factor_step(
        self,
        view: MatrixView,
        state: SINGDState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
    ) -> FactorStep:
        """The directions of the docstring."""
        assert statistics is not None
        K, C = state.K, state.C
        mean_U, mean_G = statistics.mean_U, statistics.mean_G
        is_ours = self.factor_step_norm == "spectral"
        is_relative = (self.damping_mode or ("relative" if is_ours else "absolute")) == "relative"
        damping = damping_at(self.damping, count, statistics, (K, C), is_relative=is_relative)
        from_statistics = (self.factor_init or ("statistics" if is_ours else "")) == "statistics"
        scales = first_scales(from_statistics, statistics, state.started)
        if isinstance(C, IdentityMatrix):  # K alone makes up for both sides
            scales = scales[0] * scales[1], 1.0
        elif isinstance(K, IdentityMatrix):
            scales = 1.0, scales[0] * scales[1]
        both = (scales[0] * scales[1]) ** 2
        momentum = hyperparameter_at(self.factor_momentum, count)
        fresh = 0.5 if self.factor_step_norm is None else 0.5 * (1 - momentum)

        def bracket(
            factor: StructuredMatrix,
            curvature: StructuredMatrix,
            other: StructuredMatrix,
        ) -> StructuredMatrix:
            other_gram = both * other.frobenius_norm() ** 2 / other.dim
            damped = curvature + factor.gram(precision=self.precision) * (damping * other_gram)
            return damped.add_identity(-1.0) * fresh

        if self.cross_moments:
            cross = statistics.value_of(CROSS)
            of_K, of_C = cross.K * (both / C.dim), cross.C * (both / K.dim)
        else:
            H_K, H_C = statistics.H_K, statistics.H_C
            of_K = H_K * (both * trace_of(H_C, mean_G))
            of_C = H_C * (both * trace_of(H_K, mean_U))
        m_K, m_C = bracket(K, of_K, C), bracket(C, of_C, K)
        if state.m_K is not None and state.m_C is not None:
            m_K, m_C = state.m_K * momentum + m_K, state.m_C * momentum + m_C
        return FactorStep(K, C, m_K, m_C, scales)


@shows_scaling_of(SINGD)
def scale_by_singd(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by SINGD's preconditioner: structured, inverse-free natural gradient.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    K Kᵀ G C Cᵀ. K and C approach roots of the inverse curvature by matrix products alone; the
    equations are in ``singd_optax.optimizers.SINGD``. With dense structures this is INGD.

    Parameters outside ``layers`` pass through unchanged. The algorithm of the paper is
    ``optax.chain(scale_by_singd(layers, damping=1e-3, factor_learning_rate=1e-2,
    factor_momentum=0.9, factor_step_norm=None), optax.add_decayed_weights(weight_decay),
    optax.trace(momentum), optax.scale_by_learning_rate(learning_rate))``, see ``SINGD.paper``;
    ``singd_optax.singd`` is a complete optimizer.

    References:
      Lin et al., Structured Inverse-Free Natural Gradient, ICML 2024, arXiv 2312.05705.
      Lin et al., Simplifying Momentum-based Positive-definite Submanifold Optimization (INGD),
      ICML 2023, arXiv 2302.09738.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="diagonal")
      >>> tx = optax.chain(singd_optax.scale_by_singd(layers), optax.scale_by_learning_rate(0.1))
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      >>> updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      >>> params = optax.apply_updates(params, updates)
    """
    return scaling_of(scale_by_singd, SINGD, layers, options)


@shows_recipe_of(SINGD)
def singd(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """SINGD as a drop-in for AdamW: one learning rate, decoupled weight decay.

    For Kronecker layers: Nesterov momentum of the gradient, SINGD's preconditioner, the update
    scaled to one root mean square, decoupled weight decay. All other parameters go to
    ``fallback``.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model = nn.Sequential([nn.Dense(16), nn.tanh, nn.Dense(1)])
      >>> x = jnp.linspace(-1, 1, 32)[:, None]
      >>> params = model.init(jax.random.key(0), x)
      >>> def loss_fn(params, x):
      ...   return jnp.mean((model.apply(params, x) - jnp.sin(3 * x)) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> tx = singd_optax.singd(0.02, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> @jax.jit
      ... def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> for _ in range(100):
      ...   params, opt_state, value = step(params, opt_state, x)
      >>> bool(value < 0.02)
      True
    """
    return optimizer_of(singd, SINGD, learning_rate, layers, options)


@shows_recipe_of(SINGD)
def ingd(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """INGD as a drop-in for AdamW: SINGD with dense factors (arXiv 2302.09738)."""
    check_layers(layers)
    # Where the layer allows it: K of an embedding is diagonal, as its second moment is.
    dense = (Dense(), Dense())
    other = [
        spec.path
        for spec in layers.values()
        if spec.structures != dataclasses.replace(spec, structures=dense).structures
    ]
    if other:
        raise ValueError(
            f"INGD has dense factors, got other structures for the layers {other}. Find layers "
            "with structures='dense', or use singd, which takes all structures."
        )
    return optimizer_of(ingd, SINGD, learning_rate, layers, options)
