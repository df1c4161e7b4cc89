"""KFAC: Kronecker-factored curvature, and its inverses."""

import dataclasses
from typing import ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import (
    check_choice,
    check_flag,
    check_interval,
    check_number,
    check_precision,
)
from singd_optax.layers import Layers
from singd_optax.measures import Measure, Moments, Statistics
from singd_optax.optimizers._kfac_states import (
    AnyState,
    CGKFACState,
    EigenKFACState,
    KFACState,
    RootKFACState,
)
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import (
    ConjugateGradients,
    DampingMode,
    Hyperparameter,
    MatrixView,
    Rule,
    hyperparameter_at,
    new_weight,
)
from singd_optax.rules._inverse import check_invertible, eigen, inverse, inverse_factor
from singd_optax.structures import Precision, StructuredMatrix
from singd_optax.transforms import damping_schedule

InverseMethod = Literal["cholesky", "root", "eigh", "cg"] | ConjugateGradients


@dataclasses.dataclass(frozen=True, kw_only=True)
class KFAC(Rule):
    """KFAC: gradients times the inverses of averaged second moments (arXiv 1503.05671).

    Let U (d_i x d_i) and G (d_o x d_o) be the second moments of a layer's inputs and output
    gradients. A refresh averages them and inverts the averages, and each step multiplies the
    gradient ∇ (d_i x d_o) by both inverses::

        S_K <- (1 - b1) S_K + b1 U,    S_C <- (1 - b1) S_C + b1 G
        ∇   -> (S_K + π √λ I)^-1 ∇ (S_C + √λ / π I)^-1

    where π² = (Tr S_K / d_i) / (Tr S_C / d_o) (arXiv 1503.05671, section 6.3), or π = 1. The
    methods "eigh" and "cg" damp the product in place of its two factors, and the gradient becomes
    (S_K ⊗ S_C + λ I)^-1 ∇. Inverses are formed in float32 (float64 for float64 kernels), and kept
    in the layer's factor dtype.

    Attributes:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t after t
        refreshes, as Adam's are; if not, they start at I.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_method: How gradients are multiplied by the inverses. "cholesky" keeps the inverses.
        "root" keeps K and C, where K Kᵀ and C Cᵀ are the inverses: these stay positive definite in
        bfloat16, for twice the products; polar directions need it, and put it in the place of
        "cholesky". "eigh" keeps eigenvectors. "cg" inverts nothing: each step solves for what
        "eigh" gives, by products with S_K and S_C, with half of the state. It stands for
        ``singd_optax.rules.ConjugateGradients()``, which may also be given with options.
      inverse_every: The least number of steps from one inversion to the next, an int >= 1. Only
        refreshes invert, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    damping: Hyperparameter = damping_schedule()
    damping_mode: DampingMode = "relative"
    factor_learning_rate: Hyperparameter = 0.05
    bias_correction: bool = True
    use_pi: bool = True
    inverse_method: InverseMethod = "cholesky"
    inverse_every: int = 1
    precision: Precision = "highest"

    State: ClassVar[type] = KFACState
    #: The inverse methods of the rule, by name.
    methods: ClassVar[tuple[str, ...]] = ("cholesky", "root", "eigh", "cg")

    @classmethod
    def paper(cls, damping: Hyperparameter = 1e-3) -> Self:
        """Absolute damping, divided by π; averages with b1 = 0.05, which start at 0.

        The paper adapts λ to how much a step reduces the loss. Here λ stays what you give;
        ``transforms.levenberg_marquardt`` adapts it, and step size and momentum with it.

        Args:
          damping: The damping λ, a number > 0 or a schedule.
        """
        return cls(damping=damping, damping_mode="absolute")

    def __post_init__(self) -> None:
        check_number("damping", self.damping, strict=True)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative"))
        check_number("factor_learning_rate", self.factor_learning_rate, strict=True, maximum=1)
        check_flag("bias_correction", self.bias_correction)
        check_flag("use_pi", self.use_pi)
        if self.solver is None or "cg" not in self.methods:
            check_choice("inverse_method", self.inverse_method, self.methods)
        check_interval("inverse_every", self.inverse_every, schedule=False)
        check_precision("precision", self.precision)

    @property
    def solver(self) -> ConjugateGradients | None:
        """The solver that finds each step's direction, or None where inverses are kept."""
        method = ConjugateGradients() if self.inverse_method == "cg" else self.inverse_method
        return method if isinstance(method, ConjugateGradients) else None

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The second moments U and G."""
        return (Moments(),)

    def init(self, view: MatrixView) -> AnyState:
        """Inverses I, and averages 0 (I without bias correction)."""
        for structure in view.structures:
            check_invertible(structure, view.path)
        stack, dtype = view.stack_shape, view.statistics_dtype
        sides = list(zip(view.structures, view.dims, view.factor_dtype, strict=True))
        K, C = (structure.eye(dim, name, stack) for structure, dim, name in sides)
        averaged, inverted_at = jnp.zeros(stack, jnp.int32), jnp.full(stack, -1, jnp.int32)
        damping = jnp.zeros(stack, dtype)
        if self.solver is not None:
            is_warm = self.solver.warm_start
            solution = jnp.zeros((*stack, *view.dims), dtype) if is_warm else None
            return CGKFACState(K, C, damping, solution, averaged)
        S_K, S_C = (
            (structure.zeros if self.bias_correction else structure.eye)(dim, dtype, stack)
            for structure, dim, _ in sides
        )
        if self.inverse_method == "cholesky":
            return KFACState(K, C, S_K, S_C, averaged, inverted_at)
        if self.inverse_method == "root":
            return RootKFACState(K, C, S_K, S_C, averaged, inverted_at)
        ones_K, ones_C = (jnp.ones((*stack, dim), dtype) for dim in view.dims)
        return EigenKFACState(K, C, ones_K, ones_C, damping, S_K, S_C, averaged, inverted_at)

    def refresh(
        self,
        view: MatrixView,
        state: AnyState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[AnyState, bool]:
        """New averages; new inverses if they are due."""
        assert statistics is not None
        rate = hyperparameter_at(self.factor_learning_rate, count, view.statistics_dtype)
        averaged = state.averaged + 1
        if isinstance(state, CGKFACState):
            if self.bias_correction:
                rate = new_weight(self.factor_learning_rate, state.averaged, count)
                rate = rate.astype(view.statistics_dtype)
            K = state.K * (1 - rate) + statistics.H_K * rate
            C = state.C * (1 - rate) + statistics.H_C * rate
            damping = self._damping_of(view, K, C, count)
            return state._replace(K=K, C=C, damping=damping, averaged=averaged), True
        S_K = state.S_K * (1 - rate) + statistics.H_K * rate
        S_C = state.S_C * (1 - rate) + statistics.H_C * rate
        due = (state.inverted_at < 0) | (count - state.inverted_at >= self.inverse_every)
        now = jnp.any(due)
        new = state._replace(S_K=S_K, S_C=S_C, averaged=averaged)

        def invert() -> AnyState:
            return self._inverted(view, new, *self._corrected(view, new, count), count)

        inverted_at = jnp.where(now, count, state.inverted_at)
        inverted = jax.lax.cond(now, invert, lambda: new)
        return inverted._replace(inverted_at=inverted_at), True

    def _corrected(
        self, view: MatrixView, state: AnyState, count: jax.Array
    ) -> tuple[StructuredMatrix, StructuredMatrix]:
        """Both averages, without what they started at, as factors of the curvature."""
        if isinstance(state, CGKFACState):
            return state.K, state.C
        if not self.bias_correction:
            return self._scaled(state.S_K, state.S_C)
        dtype = view.statistics_dtype
        rate = hyperparameter_at(self.factor_learning_rate, count, dtype)
        correction = 1 / (1 - (1 - rate) ** jnp.maximum(state.averaged, 1).astype(dtype))
        return self._scaled(state.S_K * correction, state.S_C * correction)

    def _scaled(
        self, S_K: StructuredMatrix, S_C: StructuredMatrix
    ) -> tuple[StructuredMatrix, StructuredMatrix]:
        return S_K, S_C

    def _damping_of(
        self, view: MatrixView, S_K: StructuredMatrix, S_C: StructuredMatrix, count: jax.Array
    ) -> jax.Array:
        """λ, for each matrix of the stack."""
        damping = hyperparameter_at(self.damping, count)
        if self.damping_mode == "relative":
            damping = damping * S_K.average_trace() * S_C.average_trace()
        return jnp.broadcast_to(damping.astype(view.statistics_dtype), view.stack_shape)

    def _damped(
        self, view: MatrixView, S_K: StructuredMatrix, S_C: StructuredMatrix, count: jax.Array
    ) -> tuple[StructuredMatrix, StructuredMatrix]:
        """S_K + π √λ I and S_C + √λ / π I."""
        root = jnp.sqrt(self._damping_of(view, S_K, S_C, count))
        ratio = S_K.average_trace() / S_C.average_trace()
        pi = jnp.sqrt(ratio) if self.use_pi else jnp.ones_like(ratio)
        return S_K.add_identity(pi * root), S_C.add_identity(root / pi)

    def _inverted(
        self,
        view: MatrixView,
        state: AnyState,
        S_K: StructuredMatrix,
        S_C: StructuredMatrix,
        count: jax.Array,
    ) -> AnyState:
        if isinstance(state, EigenKFACState):
            damping = self._damping_of(view, S_K, S_C, count)
            (K, values_K), (C, values_C) = eigen(S_K), eigen(S_C)
            # Rounding may leave eigenvalues of a singular moment below zero.
            values = jnp.maximum(values_K, 0), jnp.maximum(values_C, 0)
            return state._replace(K=K, C=C, values_K=values[0], values_C=values[1], damping=damping)
        invert = inverse_factor if isinstance(state, RootKFACState) else inverse
        K, C = map(invert, self._damped(view, S_K, S_C, count))
        return state._replace(K=K, C=C)

    def direction(
        self,
        view: MatrixView,
        state: AnyState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, AnyState]:
        """The natural gradient."""
        K, C, precision = state.K, state.C, self.precision
        if isinstance(state, CGKFACState):
            assert self.solver is not None
            found = self.solver.solved((K, C), state.damping, vector, state.solution, precision)
            return found, state if state.solution is None else state._replace(solution=found)
        if isinstance(state, RootKFACState):
            return self.unwhiten(view, state, self.whiten(view, state, vector)), state
        if not isinstance(state, EigenKFACState):
            left = jnp.swapaxes(K.matmul(vector, precision=precision), -1, -2)
            return jnp.swapaxes(C.matmul(left, precision=precision), -1, -2), state
        turned = jnp.swapaxes(K.transpose_matmul(vector, precision=precision), -1, -2)
        turned = C.transpose_matmul(turned, precision=precision)
        values = state.values_C[..., :, None] * state.values_K[..., None, :]
        turned = turned / (values + state.damping[..., None, None])
        left = jnp.swapaxes(C.matmul(turned, precision=precision), -1, -2)
        return K.matmul(left, precision=precision), state

    def curvature(
        self, view: MatrixView, state: AnyState, matrix: jax.Array, count: jax.Array
    ) -> jax.Array:
        """S_K X S_C."""
        S_K, S_C = self._corrected(view, state, count)
        left = jnp.swapaxes(S_K.matmul(matrix, precision=self.precision), -1, -2)
        return jnp.swapaxes(S_C.matmul(left, precision=self.precision), -1, -2)

    def whitening(self) -> "KFAC":
        """This rule, with "root" in the place of "cholesky"."""
        if self.solver is not None:
            raise ValueError(
                "KFAC with inverse_method='cg' has no roots of inverses, which polar directions "
                "and sampled weights need. Use inverse_method='root' or 'eigh'."
            )
        is_whole = self.inverse_method == "cholesky"
        return dataclasses.replace(self, inverse_method="root") if is_whole else self

    def whiten(self, view: MatrixView, state: AnyState, matrix: jax.Array) -> jax.Array:
        """Kᵀ X C; with "eigh" this is divided by the roots of the damped eigenvalues."""
        del view
        turned = jnp.swapaxes(state.K.transpose_matmul(matrix, precision=self.precision), -1, -2)
        turned = state.C.transpose_matmul(turned, precision=self.precision)
        return jnp.swapaxes(_over_roots(state, turned), -1, -2)

    def unwhiten(self, view: MatrixView, state: AnyState, matrix: jax.Array) -> jax.Array:
        """K X Cᵀ, with the same division; of what ``whiten`` returns, it is the direction."""
        del view
        turned = _over_roots(state, jnp.swapaxes(matrix, -1, -2))
        left = jnp.swapaxes(state.C.matmul(turned, precision=self.precision), -1, -2)
        return state.K.matmul(left, precision=self.precision)


def _over_roots(state: AnyState, turned: jax.Array) -> jax.Array:
    """Divide a matrix (columns, rows) in the eigenbases by the roots of damped eigenvalues."""
    if not isinstance(state, EigenKFACState):
        return turned
    values = state.values_C[..., :, None] * state.values_K[..., None, :]
    return turned / jnp.sqrt(values + state.damping[..., None, None])


@shows_scaling_of(KFAC)
def scale_by_kfac(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by KFAC's preconditioner: the method that SINGD makes inverse-free.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K + π √λ I)^-1 G (S_C + √λ / π I)^-1, where S_K and S_C are moving averages of the second
    moments of inputs and output gradients, λ is the damping, and π divides it between them.

    References:
      Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature,
      ICML 2015, arXiv 1503.05671. Eschenhagen et al., Kronecker-Factored Approximate Curvature for
      Modern Neural Network Architectures, NeurIPS 2023, arXiv 2311.00636 (expand and reduce).
    """
    return scaling_of(scale_by_kfac, KFAC, layers, options)


@shows_recipe_of(KFAC)
def kfac(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """KFAC in the place of AdamW: gradients times the inverses of a layer's two moments.

    This is the reference among the curvature methods: take it for damping as in the literature, or
    for the moments themselves. Factors may be dense, block-diagonal or diagonal. Martens and
    Grosse, ICML 2015, arXiv 1503.05671.
    """
    return optimizer_of(kfac, KFAC, learning_rate, layers, options)
