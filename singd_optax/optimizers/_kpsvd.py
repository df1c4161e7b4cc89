"""KPSVD: the Kronecker product, or the sum of two, that is nearest to the Fisher."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._types import PyTree
from singd_optax._validate import check_flag, check_number
from singd_optax.layers import Layers
from singd_optax.measures import NO_MOMENTS, Cross, Measure, Statistics
from singd_optax.measures._cross import norm_of
from singd_optax.optimizers._kfac import KFAC
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import (
    ColumnFactor,
    ColumnMoment,
    ColumnValues,
    Counter,
    Hyperparameter,
    MatrixView,
    RowFactor,
    RowMoment,
    RowValues,
    choose,
    eigen,
    new_weight,
)
from singd_optax.rules._inverse import inverse_factor
from singd_optax.structures import DiagonalMatrix, StructuredMatrix, contract

CROSS = Cross(weighted_by=("S_K", "S_C"))
SECOND = Cross(weighted_by=("T_K", "T_C"), signed=True)


class TwoTermState(NamedTuple):
    """What KPSVD keeps of a layer with two terms.

    Attributes:
      K: The generalized eigenvectors of inputs: Kᵀ A K = I and Kᵀ T_K K = Diag(values_K), where A
        is the damped first factor of inputs.
      C: The generalized eigenvectors of output gradients, likewise.
      values_K: The generalized eigenvalues of inputs, (fan_in,).
      values_C: The generalized eigenvalues of output gradients, (fan_out,).
      S_K: The first term's factor of inputs, positive semi-definite.
      S_C: The first term's factor of output gradients, likewise.
      T_K: The second term's factor of inputs, symmetric.
      T_C: The second term's factor of output gradients, likewise.
      averaged: The number of statistics in the averages, int32.
      inverted_at: The step of the last decomposition, int32; -1 before the first.
    """

    K: RowFactor
    C: ColumnFactor
    values_K: RowValues
    values_C: ColumnValues
    S_K: RowMoment
    S_C: ColumnMoment
    T_K: RowMoment
    T_C: ColumnMoment
    averaged: Counter
    inverted_at: Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class KPSVD(KFAC):
    """KPSVD: the Kronecker product that is nearest to the Fisher matrix (arXiv 2201.10285).

    For inputs a and output gradients g of a layer, each refresh makes one step of a power iteration
    for the product that is nearest to F = E[(a aᵀ) ⊗ (g gᵀ)] in the Frobenius norm ‖.‖. It begins
    where the last one ended, S_K and S_C being I at first::

        S_K <- (1 - b1) S_K + b1 E[(gᵀ S_C g) a aᵀ] / ‖S_C‖
        S_C <- (1 - b1) S_C + b1 E[(aᵀ S_K a) g gᵀ] / ‖S_K‖
        ∇   -> (S_K / √σ + π √λ I)^-1 ∇ (S_C / √σ + √λ / π I)^-1,    σ = (‖S_K‖ ‖S_C‖)^1/2

    Both right-hand sides have the old S_K and S_C, and π is as in ``KFAC``. σ tends to the leading
    singular value of F with its axes rearranged. Both factors stay positive semi-definite. But for
    a scalar, the first refresh is that of ``TKFAC``. State and options are those of ``KFAC``,
    without "cg".

    With ``second_term`` another product T_K ⊗ T_C is fitted to what the first leaves of F (the
    paper's deflation). T_K starts at 0, and T_C at the part of I that is orthogonal to S_C. At each
    later refresh one of the two is fitted, in turns; for T_K this is::

        T_C <- T_C / ‖T_C‖,  T_K <- (1 - w) T_K ‖T_C‖ + w (E[(gᵀ T_C g) a aᵀ] - ⟨S_C, T_C⟩ S_K / σ)

    where w is the weight of a new value in an average without bias. For a given T_C this T_K is the
    best there is, so that two terms are never further from F than the first alone. They tend to the
    two leading singular pairs. Let A and B be the two damped factors from above, and let
    Kᵀ A K = I, Kᵀ T_K K = Diag(s_K), Cᵀ B C = I and Cᵀ T_C C = Diag(s_C) (generalized
    eigenvectors); then, entry by entry::

        ∇ -> (A ⊗ B + T_K ⊗ T_C)^-1 ∇ = K [ (Kᵀ ∇ C) / max(1 + s_K s_Cᵀ, floor) ] Cᵀ

    Attributes:
      second_term: Whether the sum of two Kronecker products takes the place of one. State and
        averages are then twice as large, three times as much is measured, and each refresh finds
        eigenvectors beside inverses.
      floor: The least that 1 + s_K s_Cᵀ is taken for, a number in (0, 1]. The second term is not
        definite, and may take away as much as the first has; with the floor the preconditioner is
        never larger than 1 / ``floor`` times that of the first term alone.
    """

    second_term: bool = False
    floor: float = 0.1

    methods: ClassVar[tuple[str, ...]] = ("cholesky", "root", "eigh")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("second_term", self.second_term)
        check_number("floor", self.floor, strict=True, maximum=1, schedule=False)
        if self.second_term and self.inverse_method == "eigh":
            raise ValueError(
                "`inverse_method='eigh'` is for one term, got second_term=True: two Kronecker "
                "products and λ I have no eigenvectors in common. Use 'cholesky' or 'root', which "
                "damp each side by itself, and do the same for two terms."
            )

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The cross moments, weighted by the factors as they are."""
        return (NO_MOMENTS, CROSS, SECOND) if self.second_term else (NO_MOMENTS, CROSS)

    def init(self, view: MatrixView) -> PyTree:
        """Inverses I, and S_K = S_C = I, with which the first cross moments are weighted."""
        stack, dtype = view.stack_shape, view.statistics_dtype
        first: PyTree = super().init(view)
        sides = list(zip(view.structures, view.dims, strict=True))
        S_K, S_C, T_K, T_C = (s.eye(dim, dtype, stack) for s, dim in sides * 2)
        if not self.second_term:
            return first._replace(S_K=S_K, S_C=S_C)
        zeros_K, zeros_C = (jnp.zeros((*stack, dim), dtype) for dim in view.dims)
        own = zeros_K, zeros_C, S_K, S_C, T_K, T_C, first.averaged, first.inverted_at
        return TwoTermState(first.K, first.C, *own)

    def refresh(
        self,
        view: MatrixView,
        state: PyTree,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[PyTree, bool]:
        """KFAC's refresh with weighted cross moments; then the second term, if there is one."""
        assert statistics is not None
        cross = statistics.value_of(CROSS)
        before = state
        if self.bias_correction:  # then averages start at 0, and weights at I
            started = (state.averaged > 0).astype(view.statistics_dtype)
            state = state._replace(S_K=state.S_K * started, S_C=state.S_C * started)
        own = statistics._replace(H_K=cross.K, H_C=cross.C)
        new, ok = super().refresh(view, state, own, gradient, count, key)
        if not isinstance(new, TwoTermState):
            return new, ok
        first = self._corrected(view, new, count)
        fits = jnp.maximum(before.averaged - 1, 0)  # the first refresh has no second term yet
        weight = new_weight(self.factor_learning_rate, fits, count)
        weight = weight.astype(view.statistics_dtype)
        T_K, T_C = _second_term(before, statistics, first, weight)
        new = new._replace(T_K=T_K, T_C=T_C)
        decompose = lambda: self._decomposed(view, new, first, count)
        return jax.lax.cond(jnp.any(new.inverted_at == count), decompose, lambda: new), ok

    def _scaled(
        self, S_K: StructuredMatrix, S_C: StructuredMatrix
    ) -> tuple[StructuredMatrix, StructuredMatrix]:
        # The root of each norm by itself: their product may be out of range.
        scale = norm_of(S_K) ** -0.25 * norm_of(S_C) ** -0.25
        return S_K * scale, S_C * scale

    def _inverted(
        self,
        view: MatrixView,
        state: PyTree,
        S_K: StructuredMatrix,
        S_C: StructuredMatrix,
        count: jax.Array,
    ) -> PyTree:
        if isinstance(state, TwoTermState):  # whose second term is yet to come
            return state
        return super()._inverted(view, state, S_K, S_C, count)

    def _decomposed(
        self,
        view: MatrixView,
        state: TwoTermState,
        first: tuple[StructuredMatrix, StructuredMatrix],
        count: jax.Array,
    ) -> TwoTermState:
        """Generalized eigenvectors of both sides."""
        damped = self._damped(view, *first, count)
        (K, values_K), (C, values_C) = map(_generalized, damped, (state.T_K, state.T_C))
        return state._replace(K=K, C=C, values_K=values_K, values_C=values_C)

    def direction(
        self,
        view: MatrixView,
        state: PyTree,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, PyTree]:
        """The natural gradient."""
        if not isinstance(state, TwoTermState):
            return super().direction(view, state, vector, gradient, count)
        return self.unwhiten(view, state, self.whiten(view, state, vector)), state

    def curvature(
        self, view: MatrixView, state: PyTree, matrix: jax.Array, count: jax.Array
    ) -> jax.Array:
        """S_K X S_C / σ, and T_K X T_C."""
        found = super().curvature(view, state, matrix, count)
        if not isinstance(state, TwoTermState):
            return found
        left = jnp.swapaxes(state.T_K.matmul(matrix, precision=self.precision), -1, -2)
        return found + jnp.swapaxes(state.T_C.matmul(left, precision=self.precision), -1, -2)

    def whiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """What KFAC does; with two terms it is divided by the roots of 1 + s_K s_Cᵀ."""
        found = super().whiten(view, state, matrix)
        return found / self._roots(state) if isinstance(state, TwoTermState) else found

    def unwhiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """What KFAC does, with the same division; of what ``whiten`` returns, the direction."""
        matrix = matrix / self._roots(state) if isinstance(state, TwoTermState) else matrix
        return super().unwhiten(view, state, matrix)

    def _roots(self, state: TwoTermState) -> jax.Array:
        values = 1 + state.values_K[..., :, None] * state.values_C[..., None, :]
        return jnp.sqrt(jnp.maximum(values, self.floor))


def _second_term(
    state: TwoTermState,
    statistics: Statistics,
    first: tuple[StructuredMatrix, StructuredMatrix],
    weight: jax.Array,
) -> tuple[StructuredMatrix, StructuredMatrix]:
    """T_K and T_C, after one of them was fitted to what the first term leaves of the Fisher."""
    cross, old = statistics.value_of(SECOND), (state.T_K, state.T_C)

    def fitted(side: int) -> tuple[StructuredMatrix, StructuredMatrix]:
        norm = norm_of(old[1 - side])
        other = old[1 - side] * (1 / jnp.where(norm > 0, norm, 1))
        rest = (cross.K, cross.C)[side] - first[side] * _inner(first[1 - side], other)
        new = old[side] * (norm * (1 - weight)) + rest * weight
        pair = (new, other) if side == 0 else (other, new)
        return choose(norm > 0, pair, old)  # a side that is zero fits nothing

    # The part of I that is orthogonal to the first term, which nearly has all of I itself.
    square = _inner(first[1], first[1])
    share = _inner(first[1], state.T_C) / jnp.where(square > 0, square, 1)
    begun = state.T_K * 0, state.T_C - first[1] * share
    later = choose(state.averaged % 2 == 1, fitted(0), fitted(1))
    return choose(state.averaged == 0, begun, later)


def _inner(A: StructuredMatrix, B: StructuredMatrix) -> jax.Array:
    """⟨A, B⟩ of symmetric matrices whose entries are stored once, for each of a stack."""
    stack = len(A.batch_shape)
    products = jax.tree.map(lambda a, b: jnp.sum(a * b, tuple(range(stack, a.ndim))), A, B)
    return sum(jax.tree.leaves(products), start=jnp.zeros(A.batch_shape, A.dtype))


def _generalized(A: StructuredMatrix, T: StructuredMatrix) -> tuple[StructuredMatrix, jax.Array]:
    """F and s with Fᵀ A F = I and Fᵀ T F = Diag(s), for positive definite A, block by block."""
    half = inverse_factor(A)
    if isinstance(half, DiagonalMatrix):
        assert isinstance(T, DiagonalMatrix)
        return half, T.diagonal * half.diagonal**2
    turned = jax.tree.map(lambda f, t: contract("...ki,...kl,...lj->...ij", f, t, f), half, T)
    even = jax.tree.map(lambda block: (block + jnp.swapaxes(block, -1, -2)) / 2, turned)
    vectors, values = eigen(even)
    return half.multiply(vectors), values


@shows_scaling_of(KPSVD)
def scale_by_kpsvd(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by KPSVD's preconditioner: the Kronecker product nearest to the Fisher.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K / √σ + π √λ I)^-1 G (S_C / √σ + √λ / π I)^-1, where S_K ⊗ S_C / σ is the product that is
    nearest to the Fisher matrix, λ is the damping, and π divides it between both sides. With
    ``second_term`` G is multiplied by the inverse of a sum of two products.

    References:
      Koroko et al., Efficient Approximations of the Fisher Matrix in Neural Networks using
      Kronecker Product Singular Value Decomposition, 2022, arXiv 2201.10285.
    """
    return scaling_of(scale_by_kpsvd, KPSVD, layers, options)


@shows_recipe_of(KPSVD)
def kpsvd(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """KPSVD in the place of AdamW: the Kronecker product that is nearest to the Fisher matrix.

    Take it for the least error of two factors, at the price of ``kfac``, or with
    ``second_term=True`` for the least error of a sum of two such products. Koroko et al., 2022,
    arXiv 2201.10285.
    """
    return optimizer_of(kpsvd, KPSVD, learning_rate, layers, options)
