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
      K: The factor of the inputs, fan_in x fan_in in its structure.
      C: The factor of the outputs, fan_out x fan_out in its structure.
      m_K: The momentum of the steps on K, or None without momentum.
      m_C: The momentum of the steps on C, likewise.
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
class SINGD(InverseFree):
    """SINGD: factors of the inverse curvature, in a structure, that move by products alone.

    This is arXiv 2312.05705, figure 1, and arXiv 2302.09738 for dense factors. Let U (d_i x d_i)
    and G (d_o x d_o) be the second moments of a layer's inputs and output gradients, Π the
    projection onto a structure, H_K = Π(Kᵀ U K) and H_C = Π(Cᵀ G C). A refresh moves the factors,
    and each step multiplies the gradient ∇ (d_i x d_o) by them::

        m_K <- a1 m_K + 1/2 [ (Tr H_C / d_o) H_K + λ (Tr CᵀC / d_o) Π(KᵀK) - I ]
        m_C <- a1 m_C + 1/2 [ (Tr H_K / d_i) H_C + λ (Tr KᵀK / d_i) Π(CᵀC) - I ]
        K   <- K (I - b1 m_K),    C <- C (I - b1 m_C)
        ∇   -> K Kᵀ ∇ C Cᵀ

    All right-hand sides have the old K and C. With ``factor_step_norm``, the brackets are
    multiplied by 1 - a1, and b1 is divided by max(1, ‖m‖), for each factor.

    Attributes:
      damping: λ, the curvature that is added in all directions, in the units of ``damping_mode``: a
        number >= 0, a schedule, or ``sampling_damping()`` (the default), which is 0.03, and more
        where the moments are of few rows.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by
        (Tr U / d_i)(Tr G / d_o) of this layer's statistics, so that the scales of the loss and of
        activations drop out. None is "relative" if ``factor_step_norm`` is "spectral", and else
        "absolute", which is what the paper and its package do.
      factor_momentum: a1, the momentum of the factors' steps, a number in [0, 1) or a schedule; at
        0 no momentum is kept.
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics, K = (Tr U / d_i)^-1/2 I, so that only their shape
        has to be learnt. None is "statistics" if ``factor_step_norm`` is "spectral", else
        "identity".
      cross_moments: Whether E[|Cᵀ g|² Kᵀ a aᵀ K] / d_o takes the place of (Tr H_C / d_o) H_K for
        inputs a and output gradients g, and likewise for C, so that each input counts by the size
        of its own gradient. K and C then approach the matrix normal distribution under which the
        examples' gradients are likeliest: an inverse-free ``TKFAC``, in every structure. Where
        inputs and gradients are independent the two are the same.
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
        """The rule of the paper: absolute damping, K = C = I at first, and steps without a bound.

        The paper's whole optimizer is ``optax.chain(scale_by_rule(SINGD.paper(), layers),
        optax.add_decayed_weights(weight_decay), optax.trace(momentum),
        optax.scale_by_learning_rate(learning_rate))``.

        Args:
          damping: The damping λ, a number >= 0 or a schedule.
          factor_learning_rate: The step b1 on K and C, a number >= 0 or a schedule.
          factor_momentum: The momentum a1 of these steps, in [0, 1), or a schedule.
          factor_step_norm: None, or "max_abs", which is an option of the authors' package.
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
        """The moments H_K and H_C; or cross moments alone."""
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
    K Kᵀ G C Cᵀ. The factors K and C approach roots of the inverse curvature by matrix products
    alone. With dense structures this is INGD.

    The algorithm of the paper is ``optax.chain(scale_by_singd(layers, damping=1e-3,
    factor_learning_rate=1e-2, factor_momentum=0.9, factor_step_norm=None),
    optax.add_decayed_weights(weight_decay), optax.trace(momentum),
    optax.scale_by_learning_rate(learning_rate))``, see ``SINGD.paper``.

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
    """SINGD in the place of AdamW: natural gradients without inverses, in any structure.

    It works for models whose kernels multiply inputs, Flax models among them. The factors K and C
    of each layer follow roots of the inverse curvature by matrix products alone, in bfloat16 too,
    and may be dense, block-diagonal, diagonal and more (``find_layers(structures=...)``). Lin et
    al., ICML 2024, arXiv 2312.05705; here the steps on factors are bounded, and damping is
    relative.

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
    """INGD in the place of AdamW: SINGD with dense factors, and an error for all other structures.

    Lin et al., ICML 2023, arXiv 2302.09738. Find layers with ``structures="dense"``.
    """
    check_layers(layers)
    # The structures are dense where the layer allows it: K of an embedding is diagonal, as its
    # second moment is.
    dense = (Dense(), Dense())
    other = [
        spec.path
        for spec in layers.values()
        if spec.structures != dataclasses.replace(spec, structures=dense).structures
    ]
    if other:
        raise ValueError(
            f"INGD has dense factors, got other structures for the layers {other}. Call "
            "find_layers with structures='dense', or use singd, which takes all structures."
        )
    return optimizer_of(ingd, SINGD, learning_rate, layers, options)
