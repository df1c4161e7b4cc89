"""KFAC: Kronecker-factored curvature, with inverses."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from singd_optax._validate import (
    check_choice,
    check_flag,
    check_interval,
    check_number,
    check_precision,
)
from singd_optax.layers import Eigenbases, Inverses, LayerSpec, Statistics
from singd_optax.rules._base import (
    DampingMode,
    Hyperparameter,
    Rule,
    hyperparameter_at,
    store,
)
from singd_optax.rules._inverse import check_invertible, eigen, inverse
from singd_optax.structures import Precision, StructuredMatrix

InverseMethod = Literal["cholesky", "eigh"]
INVERSE_METHODS: tuple[InverseMethod, ...] = ("cholesky", "eigh")


class Moments(NamedTuple):
    """What KFAC keeps of a layer beside its inverses.

    Attributes:
      S_K: Exponential moving average of U.
      S_C: Exponential moving average of G.
      averaged: How many statistics are in them.
      inverted_at: The step of the last inversion, or -1.
    """

    S_K: StructuredMatrix
    S_C: StructuredMatrix
    averaged: jax.Array
    inverted_at: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class KFAC(Rule):
    """The update of KFAC (arXiv 1503.05671; in the notation of arXiv 2312.05705).

    With U and G the second moments of inputs and output gradients::

        S_K <- (1 - b1) S_K + b1 U,    S_C <- (1 - b1) S_C + b1 G
        natural gradient = (S_K + π √λ I)^-1 ∇ (S_C + √λ / π I)^-1

    with π² = (Tr S_K / d_i) / (Tr S_C / d_o) (arXiv 1503.05671, section 6.3), or π = 1; by "eigh",
    the damping is not divided: (S_K ⊗ S_C + λ I)^-1 ∇. Inverses are formed in float32 (float64 for
    float64 kernels), and kept in the layer's factor dtype.

    Attributes:
      damping: λ > 0; in units of (Tr S_K / d_i)(Tr S_C / d_o) if ``damping_mode`` is "relative".
      damping_mode: "absolute" or "relative".
      factor_learning_rate: b1 in (0, 1].
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t, as Adam's; if
        not, they start at I.
      use_pi: Whether the damping is shared out by π.
      inverse_method: "cholesky", or "eigh".
      inverse_every: At least this many steps from one inversion to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products.
    """

    damping: Hyperparameter
    factor_learning_rate: Hyperparameter = 0.05
    damping_mode: DampingMode = "absolute"
    bias_correction: bool = True
    use_pi: bool = True
    inverse_method: InverseMethod = "cholesky"
    inverse_every: int = 1
    precision: Precision = "highest"

    def __post_init__(self) -> None:
        check_number("damping", self.damping, strict=True)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative"))
        check_number("factor_learning_rate", self.factor_learning_rate, strict=True, maximum=1)
        check_flag("bias_correction", self.bias_correction)
        check_flag("use_pi", self.use_pi)
        check_choice("inverse_method", self.inverse_method, INVERSE_METHODS)
        check_interval("inverse_every", self.inverse_every, schedule=False)
        check_precision("precision", self.precision)

    def init(self, spec: LayerSpec) -> tuple[Any, Moments]:
        """Inverses I, and averages 0 (I without bias correction)."""
        for structure in spec.structures:
            check_invertible(structure, spec.path)
        shape, dtype = spec.stack_shape, spec.statistics_dtype
        eyes: list[StructuredMatrix] = []
        moments: list[StructuredMatrix] = []
        for structure, dim, name in zip(spec.structures, spec.dims, spec.factor_dtype, strict=True):
            eyes.append(structure.eye(dim, name, shape))
            empty = structure.zeros if self.bias_correction else structure.eye
            moments.append(empty(dim, dtype, shape))
        memory = Moments(
            S_K=moments[0],
            S_C=moments[1],
            averaged=jnp.zeros(shape, jnp.int32),
            inverted_at=jnp.full(shape, -1, jnp.int32),
        )
        if self.inverse_method == "cholesky":
            return Inverses(*eyes), memory
        ones = [jnp.ones((*shape, dim), dtype) for dim in spec.dims]
        return Eigenbases(eyes[0], eyes[1], ones[0], ones[1], jnp.zeros(shape, dtype)), memory

    def refresh(
        self,
        spec: LayerSpec,
        factors: Any,
        memory: Moments,
        statistics: Statistics,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[Any, Moments]:
        """New averages; new inverses if they are due."""
        # With 64 bits enabled a schedule may return float64; the state keeps its dtype.
        rate = jnp.asarray(
            hyperparameter_at(self.factor_learning_rate, count), spec.statistics_dtype
        )
        averaged = memory.averaged + 1
        S_K = memory.S_K * (1 - rate) + statistics.H_K * rate
        S_C = memory.S_C * (1 - rate) + statistics.H_C * rate
        due = (memory.inverted_at < 0) | (count - memory.inverted_at >= self.inverse_every)
        now = jnp.any(due)
        correction: Any = 1.0
        if self.bias_correction:
            correction = 1 / (1 - (1 - rate) ** averaged.astype(spec.statistics_dtype))

        def invert() -> Any:
            return self._inverted(spec, S_K * correction, S_C * correction, count, key)

        new = jax.lax.cond(now, invert, lambda: factors)
        inverted_at = jnp.where(now, count, memory.inverted_at)
        return new, Moments(S_K, S_C, averaged, inverted_at)

    def _inverted(
        self,
        spec: LayerSpec,
        S_K: StructuredMatrix,
        S_C: StructuredMatrix,
        count: jax.Array,
        key: jax.Array,
    ) -> Any:
        damping = hyperparameter_at(self.damping, count)
        traces = S_K.average_trace(), S_C.average_trace()
        if self.damping_mode == "relative":
            damping = damping * traces[0] * traces[1]
        damping = jnp.broadcast_to(jnp.asarray(damping, spec.statistics_dtype), spec.stack_shape)
        keys, names = jax.random.split(key), spec.factor_dtype
        if self.inverse_method == "eigh":
            (V_K, values_K), (V_C, values_C) = eigen(S_K), eigen(S_C)
            K, C = store(V_K, names[0], keys[0]), store(V_C, names[1], keys[1])
            # Rounding may leave eigenvalues of a singular moment below zero.
            return Eigenbases(K, C, jnp.maximum(values_K, 0), jnp.maximum(values_C, 0), damping)
        pi = jnp.sqrt(traces[0] / traces[1]) if self.use_pi else jnp.ones_like(traces[0])
        root = jnp.sqrt(damping)
        K, C = inverse(S_K.add_identity(pi * root)), inverse(S_C.add_identity(root / pi))
        return Inverses(store(K, names[0], keys[0]), store(C, names[1], keys[1]))

    def precondition(self, factors: Any, gradient: jax.Array, memory: Moments) -> jax.Array:
        """The natural gradient."""
        del memory
        K, C, precision = factors.K, factors.C, self.precision
        if isinstance(factors, Inverses):
            left = jnp.swapaxes(K.matmul(gradient, precision=precision), -1, -2)
            return jnp.swapaxes(C.matmul(left, precision=precision), -1, -2)
        turned = jnp.swapaxes(K.transpose_matmul(gradient, precision=precision), -1, -2)
        turned = C.transpose_matmul(turned, precision=precision)
        values = factors.values_C[..., :, None] * factors.values_K[..., None, :]
        turned = turned / (values + factors.damping[..., None, None])
        left = jnp.swapaxes(C.matmul(turned, precision=precision), -1, -2)
        return K.matmul(left, precision=precision)
