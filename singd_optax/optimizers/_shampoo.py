"""Shampoo: inverse roots of the second moments of gradients, on both sides."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Self, get_args

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import (
    check_choice,
    check_flag,
    check_number,
    check_precision,
    check_size,
)
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
    ColumnMoment,
    Hyperparameter,
    JointRule,
    MatrixView,
    MomentumOf,
    Number,
    Recipe,
    RootMethod,
    RowFactor,
    RowMoment,
    hyperparameter_at,
)
from singd_optax.rules._roots import check_roots, grouped_inverse_roots
from singd_optax.structures import (
    BlockDiagonal,
    IdentityMatrix,
    Precision,
    Structure,
    StructuredMatrix,
)
from singd_optax.transforms import refresh_schedule


class ShampooState(NamedTuple):
    """What Shampoo keeps of a parameter.

    Attributes:
      K: A, the inverse root on the side of the rows.
      C: B, the inverse root on the side of the columns.
      L: The second moment of the rows, the weighted sum of all G Gᵀ.
      R: The second moment of the columns, the weighted sum of all Gᵀ G.
      moment_weight: w, the sum of the weights, by which L and R are divided.
    """

    K: RowFactor
    C: ColumnFactor
    L: RowMoment
    R: ColumnMoment
    moment_weight: Number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shampoo(JointRule):
    """Shampoo: inverse roots of both second moments of gradients (arXiv 1802.09568).

    For gradients G (rows x columns), with p = ``root``::

        L <- b2 L + (1 - b2) G Gᵀ,    R <- b2 R + (1 - b2) Gᵀ G        on every step
        A = (L/w + ε λ_max I)^(-1/p),  B = (R/w + ε λ_max I)^(-1/p)    on refresh steps
        G -> A G B

    After t gradients w = 1 - b2^t is the sum of the weights in L and R, and λ_max is the largest
    eigenvalue of each matrix, or of each block. Sides longer than a block have block-diagonal L or
    R (by default of blocks of 1024): a block of rows is preconditioned by its own moment, over all
    columns. A side whose structure is ``Identity()`` has no root; one-sided Shampoo, or ASGO, is
    ``root=2`` with ``structures=("dense", "identity")``. A block keeps its old root where the new
    one fails (is not finite, or has not converged), and where all gradients were zero.

    Attributes:
      b2: The decay of L and R, a number in [0, 1) or a schedule; None for the plain sums of the
        first paper.
      eps: ε, a number >= 0 or a schedule: ε λ_max I is added before a root is taken.
      root: p, the order of the inverse roots, an int >= 1: 4 for Shampoo, and 2 for its square,
        which approximates full-matrix Adagrad.
      root_method: How roots are taken: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether L and R are divided by √(Tr L / w) before their roots are taken, so that
        L ⊗ R / Tr L fits the second moment of gradients; the two are equal if that moment is a
        Kronecker product. Then ``root=2`` whitens gradients, which need no grafting, and ``root=1``
        is ``TNT``. With one side only, L is divided by the number of columns.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    b2: Hyperparameter | None = 0.95
    eps: Hyperparameter = 1e-6
    root: int = 4
    root_method: RootMethod = "eigh"
    trace_scaled: bool = False
    precision: Precision = "highest"

    State: ClassVar[type] = ShampooState
    momentum_of: ClassVar[MomentumOf] = "update"
    structures: ClassVar[str | Structure] = BlockDiagonal(1024)
    # Roots are expensive: only the first few steps take one each.
    recipe: ClassVar[Recipe] = Recipe(
        momentum=0.9,
        nesterov=False,
        update_rms=None,
        grafting="rmsprop",
        refresh_every=refresh_schedule(5),
    )

    @classmethod
    def paper(cls, eps: Hyperparameter = 1e-4) -> Self:
        """Plain sums of moments, as in the first paper.

        Args:
          eps: ε, relative to λ_max, a number >= 0 or a schedule. The paper starts the sums at ε I.
        """
        return cls(b2=None, eps=eps)

    def __post_init__(self) -> None:
        if self.b2 is not None:
            check_number("b2", self.b2, maximum=1, strict_maximum=True)
        check_number("eps", self.eps)
        check_size("root", self.root)
        check_choice("root_method", self.root_method, get_args(RootMethod))
        check_flag("trace_scaled", self.trace_scaled)
        check_precision("precision", self.precision)

    def init(self, view: MatrixView) -> ShampooState:
        """A = B = I, and moments of zero."""
        check_roots(view.structures)
        sides = list(zip(view.structures, view.dims, view.factor_dtype, strict=True))
        dtype, stack = view.statistics_dtype, view.stack_shape
        A, B = (structure.eye(dim, name, stack) for structure, dim, name in sides)
        L, R = (structure.zeros(dim, dtype, stack) for structure, dim, _ in sides)
        return ShampooState(A, B, L, R, jnp.zeros(stack, dtype))

    def observe(
        self, view: MatrixView, state: ShampooState, gradient: jax.Array, count: jax.Array
    ) -> ShampooState:
        """Add this gradient to the moments."""
        dtype = view.statistics_dtype
        decay = hyperparameter_at(1.0 if self.b2 is None else self.b2, count, dtype)
        fresh = jnp.ones([], dtype) if self.b2 is None else 1 - decay
        rows, columns = view.structures
        gram = columns.project_gram(gradient, precision=self.precision)
        turned = jnp.swapaxes(gradient, -1, -2)
        turned_gram = rows.project_gram(turned, precision=self.precision)
        weight = state.moment_weight
        return state._replace(
            L=state.L * decay + turned_gram * fresh,
            R=state.R * decay + gram * fresh,
            moment_weight=jnp.ones_like(weight) if self.b2 is None else weight * decay + fresh,
        )

    def refresh_all(
        self,
        views: Mapping[str, MatrixView],
        states: Mapping[str, ShampooState],
        statistics: Mapping[str, Statistics | None],
        gradients: Mapping[str, jax.Array],
        count: jax.Array,
        key: jax.Array,
    ) -> dict[str, tuple[ShampooState, jax.Array | bool]]:
        """New roots of all parameters, those of equal blocks in one batch."""
        moments = {path: self._moments(states[path]) for path in views}
        old = {path: (states[path].K, states[path].C) for path in views}
        roots, flags = grouped_inverse_roots(
            views,
            moments,
            old,
            self.root,
            ridge=hyperparameter_at(self.eps, count),
            method=self.root_method,
            precision=self.precision,
        )
        result: dict[str, tuple[ShampooState, jax.Array | bool]] = {}
        for path, view in views.items():
            axes = len(view.stack_shape)
            each = [
                flag.all(tuple(range(axes, flag.ndim))) for flag in jax.tree.leaves(flags[path])
            ]
            A, B = roots[path]
            went_well = jnp.stack(each).all(0) if each else True
            result[path] = states[path]._replace(K=A, C=B), went_well
        return result

    def _moments(self, state: ShampooState) -> tuple[StructuredMatrix, StructuredMatrix]:
        """The matrices of which roots are taken."""
        weight = jnp.where(state.moment_weight > 0, state.moment_weight, 1)
        L, R = state.L * (1 / weight), state.R * (1 / weight)
        if not self.trace_scaled:
            return L, R
        if isinstance(L, IdentityMatrix) or isinstance(R, IdentityMatrix):
            return L * (1 / R.dim), R * (1 / L.dim)
        trace = L.average_trace() * L.dim
        scale = 1 / jnp.sqrt(jnp.where(trace > 0, trace, 1))
        return L * scale, R * scale

    def direction(
        self,
        view: MatrixView,
        state: ShampooState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, ShampooState]:
        """A G B."""
        left = state.K.matmul(vector, precision=self.precision)
        return multiply_right(left, state.C, self.precision), state


def multiply_right(
    matrix: jax.Array, symmetric: StructuredMatrix, precision: Precision
) -> jax.Array:
    """M B for M (..., n, dim) and symmetric B."""
    turned = symmetric.matmul(jnp.swapaxes(matrix, -1, -2), precision=precision)
    return jnp.swapaxes(turned, -1, -2)


@shows_scaling_of(Shampoo)
def scale_by_shampoo(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Shampoo's preconditioner, from gradients alone.

    A gradient G becomes L^(-1/4) G R^(-1/4), where L and R are the averages of G Gᵀ and Gᵀ G. Roots
    are taken in float32 (float64 for float64 parameters).

    References:
      Gupta, Koren and Singer, Shampoo: Preconditioned Stochastic Tensor Optimization, ICML 2018,
      arXiv 1802.09568. Anil et al., Scalable Second Order Optimization for Deep Learning, arXiv
      2002.09018 (blocks, grafting, the coupled Newton iteration).

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> tx = optax.chain(
      ...   singd_optax.scale_by_shampoo(grafting="adam"), optax.scale_by_learning_rate(0.1))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> opt_state = tx.init(params)
      >>> grads = jax.tree.map(jnp.ones_like, params)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> updates["kernel"].round(3)
      Array([[-0.1, -0.1],
             [-0.1, -0.1],
             [-0.1, -0.1]], dtype=float32)
    """
    return scaling_of(scale_by_shampoo, Shampoo, layers, options)


@shows_recipe_of(Shampoo)
def shampoo(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Shampoo in the place of AdamW: inverse roots of gradients' moments, from gradients alone.

    It works for any model. A matrix moves by an average of Shampoo's directions, each at the length
    of RMSProp's step, so that learning rates of AdamW suit it, with decoupled weight decay. Gupta,
    Koren and Singer, ICML 2018, arXiv 1802.09568.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> x = jax.random.normal(jax.random.key(0), (64, 8))
      >>> y = x @ jax.random.normal(jax.random.key(1), (8, 3))
      >>> loss_fn = lambda params: jnp.mean((x @ params["kernel"] + params["bias"] - y) ** 2)
      >>> params = {"kernel": jnp.zeros((8, 3)), "bias": jnp.zeros(3)}
      >>> tx = singd_optax.shampoo(optax.linear_schedule(0.1, 0.0, 100))
      >>> opt_state = tx.init(params)
      >>> @jax.jit
      ... def step(params, opt_state):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> for _ in range(100):
      ...   params, opt_state = step(params, opt_state)
      >>> bool(loss_fn(params) < 1e-3)
      True
    """
    return optimizer_of(shampoo, Shampoo, learning_rate, layers, options)
