"""Jorge: Shampoo's inverse roots by a series, from matrix products alone."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_number, check_precision
from singd_optax.layers import Layers
from singd_optax.measures import Statistics
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.optimizers._shampoo import multiply_right
from singd_optax.rules import (
    ColumnFactor,
    Hyperparameter,
    MatrixView,
    MomentumOf,
    Recipe,
    RowFactor,
    Rule,
    choose,
)
from singd_optax.structures import (
    BlockDiagonal,
    Dense,
    Diagonal,
    Identity,
    IdentityMatrix,
    Precision,
    Structure,
    StructuredMatrix,
)


class JorgeState(NamedTuple):
    """What Jorge keeps of a parameter.

    Attributes:
      K: A, which follows L^(-1/4) of the rows' moment L, rows x rows in its structure.
      C: B, which follows R^(-1/4) of the columns' moment R, likewise.
    """

    K: RowFactor
    C: ColumnFactor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jorge(Rule):
    """Jorge: Shampoo whose inverse roots are kept, and moved by a series (arXiv 2310.12298).

    As L <- b L + (1 - b) G Gᵀ moves with gradients G (rows x columns), its root A = L^(-1/4) moves
    in a refresh, without a decomposition, and without L itself::

        X = A² G Gᵀ A²,    b = |X| / (|X| + 1),    Y = X / |X|
        A <- b^(-1/4) sym[ A (I - Y / 4 + 5 Y² / 32) ],    B likewise with Gᵀ
        G -> A G B

    |X| is the Frobenius norm, with which the series for (I + Y)^(-1/4) converges, and sym is the
    symmetric part. The step is exact up to the cube of Y where A and G Gᵀ have the same
    eigenvectors. As there is no moment that could put A right, errors stay. The paper takes
    X = A⁴ G Gᵀ, with which A is not symmetric. A gradient of zeros changes nothing.

    Structures are dense, block-diagonal (the default, blocks of 1024), diagonal, and ``Identity()``
    for a side without a factor.

    Attributes:
      initial_moment: The multiple of I that L and R are at first, a number > 0.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    initial_moment: float = 1e-6
    precision: Precision = "highest"

    State: ClassVar[type] = JorgeState
    momentum_of: ClassVar[MomentumOf] = "update"
    structures: ClassVar[str | Structure] = BlockDiagonal(1024)
    recipe: ClassVar[Recipe] = Recipe(
        momentum=0.9, nesterov=False, update_rms=None, grafting="rmsprop", refresh_every=10
    )

    def __post_init__(self) -> None:
        check_number("initial_moment", self.initial_moment, strict=True, schedule=False)
        check_precision("precision", self.precision)

    def init(self, view: MatrixView) -> JorgeState:
        """A = B, a multiple of I."""
        for structure in view.structures:
            if not isinstance(structure, Dense | BlockDiagonal | Diagonal | Identity):
                raise ValueError(
                    "Jorge multiplies symmetric factors, which must stay in their structure: "
                    "Dense(), BlockDiagonal(block_size), Diagonal() or Identity(), got "
                    f"{structure!r}. For other structures use inverse_free_shampoo."
                )
        size = self.initial_moment ** (-1 / 4)
        A, B = (
            self._eye(structure, dim, dtype, view.stack_shape, size)
            for structure, dim, dtype in zip(
                view.structures, view.dims, view.factor_dtype, strict=True
            )
        )
        return JorgeState(A, B)

    @staticmethod
    def _eye(
        structure: Structure, dim: int, dtype: str, stack: tuple[int, ...], size: float
    ) -> StructuredMatrix:
        eye = structure.eye(dim, dtype, stack)
        return eye if isinstance(structure, Identity) else (eye * size).astype(dtype)

    def refresh(
        self,
        view: MatrixView,
        state: JorgeState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[JorgeState, bool]:
        """Move both roots."""
        A = self._moved(state.K, gradient)
        return JorgeState(A, self._moved(state.C, jnp.swapaxes(gradient, -1, -2))), True

    def _moved(self, A: StructuredMatrix, matrix: jax.Array) -> StructuredMatrix:
        """A after one more gradient, (*stack, dim, n)."""
        if isinstance(A, IdentityMatrix):
            return A
        turned = matrix
        for _ in range(2):
            turned = A.matmul(turned, precision=self.precision)
        rows = jnp.swapaxes(turned, -1, -2)
        X = A.structure.project_gram(rows, precision=self.precision)
        norm = X.frobenius_norm()
        is_seen = norm > 0
        size = jnp.where(is_seen, norm, 1)
        Y = X * (1 / size)
        series = (Y.multiply(Y, precision=self.precision) * (5 / 32) - Y * (1 / 4)).add_identity(1)
        both = A.multiply(series, precision=self.precision)
        both = both + series.multiply(A, precision=self.precision)
        return choose(is_seen, both * ((size / (size + 1)) ** (-1 / 4) / 2), A)

    def direction(
        self,
        view: MatrixView,
        state: JorgeState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, JorgeState]:
        """A G B."""
        left = state.K.matmul(vector, precision=self.precision)
        return multiply_right(left, state.C, self.precision), state


@shows_scaling_of(Jorge)
def scale_by_jorge(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Shampoo's preconditioner, whose roots are moved by a series.

    A gradient G becomes A G B, where A and B follow the inverse fourth roots of the averages of
    G Gᵀ and Gᵀ G, by matrix products alone.

    References:
      Singh, Sating and Bhatele, Jorge: Approximate Preconditioning for GPU-efficient Second-order
      Optimization, 2023, arXiv 2310.12298.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_jorge(grafting="sgd")
      >>> grads = {"kernel": jnp.diag(jnp.array([3.0, 4.0]))}
      >>> bool(jnp.linalg.norm(tx.update(grads, tx.init(grads))[0]["kernel"]).round(4) == 5)
      True
    """
    return scaling_of(scale_by_jorge, Jorge, layers, options)


@shows_recipe_of(Jorge)
def jorge(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Jorge in the place of AdamW: Shampoo from matrix products alone, without moments.

    It works for any model. A matrix moves by an average of Jorge's directions, each at the length
    of RMSProp's step (the paper's is that of SGD, ``grafting="sgd"``), with decoupled weight decay.
    Singh et al., 2023, arXiv 2310.12298.
    """
    return optimizer_of(jorge, Jorge, learning_rate, layers, options)
