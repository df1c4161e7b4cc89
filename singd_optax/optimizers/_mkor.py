"""MKOR: inverses that are kept up to date by updates of rank one."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_choice, check_number, check_precision
from singd_optax.layers import Layers
from singd_optax.measures import NO_MOMENTS, Mean, Measure, Statistics
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import (
    ColumnFactor,
    DampingMode,
    Hyperparameter,
    MatrixView,
    Recipe,
    RowFactor,
    Rule,
    choose,
    hyperparameter_at,
)
from singd_optax.structures import (
    Dense,
    DenseMatrix,
    Diagonal,
    DiagonalMatrix,
    Precision,
    StructuredMatrix,
    contract,
)

INPUTS, GRADIENTS = Mean(0), Mean(1)


class MKORState(NamedTuple):
    """What MKOR keeps of a layer.

    Attributes:
      K: The inverse of the moving average of ā āᵀ.
      C: The inverse of the moving average of ḡ ḡᵀ.
    """

    K: RowFactor
    C: ColumnFactor


@dataclasses.dataclass(frozen=True, kw_only=True)
class MKOR(Rule):
    """MKOR: inverses of averaged outer products of means (arXiv 2306.01685, corrected).

    Let ā and ḡ be the means of a layer's inputs and output gradients. A refresh updates both
    inverses, M = K with v = ā and M = C with v = ḡ, and each step multiplies the gradient by them::

        M <- M / γ - (1 - γ) / γ² · M v vᵀ M / (1 + (1 - γ) / γ · vᵀ M v),    γ = 1 - b1
        ∇ -> K ∇ C

    By the formula of Sherman and Morrison, M stays the inverse of the moving average
    L <- γ L + (1 - γ) v vᵀ, which starts at I, and this takes products with vectors only. (The
    formula that the paper prints has a plus, and gives the inverse of no average; in its code it is
    the inverses that decay.) In directions that no v has, L shrinks and M grows: if an entry of M
    is larger than ``largest``, M <- ζ M + (1 - ζ) I. The paper's updates have the size of the
    gradient, which is ``grafting="sgd"``. It needs statistics of ``fisher="empirical"`` (see
    ``value_and_grad``), as gradients at labels that are drawn from the model's predictions have
    mean zero.

    Attributes:
      factor_learning_rate: b1, the weight of a new v vᵀ, a number in (0, 1) or a schedule.
      damping_mode: The length of v beside the I at which the averages start and to which they are
        drawn back: "absolute" keeps its own (the paper's); "relative" makes it √d, with d its
        number of entries, so that the scales of the loss and of activations drop out.
      largest: The absolute value of an entry above which an inverse is drawn back to I, a number
        > 1.
      stabilizer: 1 - ζ, a number in (0, 1]: how far an inverse that is too large is drawn back to
        I. It must be larger than b1, or inverses grow faster than they are drawn back.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    factor_learning_rate: Hyperparameter = 0.05
    damping_mode: DampingMode = "relative"
    largest: float = 10.0
    stabilizer: float = 0.1
    precision: Precision = "highest"

    State: ClassVar[type] = MKORState
    #: Means and updates of rank one cost next to nothing, and fewer of them trained worse.
    recipe: ClassVar[Recipe] = Recipe(refresh_every=1)

    def __post_init__(self) -> None:
        check_number(
            "factor_learning_rate",
            self.factor_learning_rate,
            strict=True,
            maximum=1,
            strict_maximum=True,
        )
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative"))
        check_number("largest", self.largest, minimum=1, strict=True, schedule=False)
        check_number("stabilizer", self.stabilizer, strict=True, maximum=1, schedule=False)
        check_precision("precision", self.precision)
        rate = self.factor_learning_rate
        if isinstance(rate, int | float) and self.stabilizer <= rate:
            raise ValueError(
                f"`stabilizer` must be larger than `factor_learning_rate`, got {self.stabilizer} "
                f"and {rate}: in a refresh an inverse grows by 1 / (1 - factor_learning_rate), and "
                "is drawn back by 1 - stabilizer. Raise `stabilizer`, or lower the other."
            )

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The means of both sides."""
        return NO_MOMENTS, INPUTS, GRADIENTS

    def init(self, view: MatrixView) -> MKORState:
        """Both inverses are I."""
        for measure, structure in zip((INPUTS, GRADIENTS), view.structures, strict=True):
            measure.zeros(view)
            if not isinstance(structure, Dense | Diagonal):
                raise ValueError(
                    f"MKOR's inverses are dense or diagonal, got {structure!r} for layer "
                    f"{view.path!r}: an update of rank one does not keep other structures. Use "
                    f"layers.replace({view.path!r}, structures='dense'), or singd, which takes all "
                    "structures."
                )
        K, C = (
            structure.eye(dim, dtype, view.stack_shape)
            for structure, dim, dtype in zip(
                view.structures, view.dims, view.factor_dtype, strict=True
            )
        )
        return MKORState(K, C)

    def refresh(
        self,
        view: MatrixView,
        state: MKORState,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[MKORState, bool]:
        """Update both inverses by one more mean."""
        assert statistics is not None
        rate = hyperparameter_at(self.factor_learning_rate, count, view.statistics_dtype)
        K, C = (
            self._updated(matrix, statistics.value_of(measure), rate)
            for matrix, measure in ((state.K, INPUTS), (state.C, GRADIENTS))
        )
        return MKORState(K, C), True

    def _updated(self, matrix: StructuredMatrix, v: jax.Array, rate: jax.Array) -> StructuredMatrix:
        if self.damping_mode == "relative":
            square = jnp.mean(v**2, axis=-1, keepdims=True)
            v = v / jnp.sqrt(jnp.where(square > 0, square, 1))
        keep = 1 - rate
        weight = rate / keep
        if isinstance(matrix, DiagonalMatrix):
            own = matrix.diagonal
            new: StructuredMatrix = DiagonalMatrix(own / (keep * (1 + weight * v**2 * own)))
        else:
            assert isinstance(matrix, DenseMatrix)
            image = matrix.matmul(v[..., None], precision=self.precision)[..., 0]
            inner = contract("...i,...i->...", v, image, precision=self.precision)
            share = weight / (1 + weight * inner)
            outer = image[..., :, None] * (image * share[..., None])[..., None, :]
            new = DenseMatrix((matrix.entries - outer) / keep)
        drawn = (new * (1 - self.stabilizer)).add_identity(self.stabilizer)
        return choose(new.max_abs() > self.largest, drawn, new)

    def direction(
        self,
        view: MatrixView,
        state: MKORState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, MKORState]:
        """K X C."""
        left = jnp.swapaxes(state.K.matmul(vector, precision=self.precision), -1, -2)
        return jnp.swapaxes(state.C.matmul(left, precision=self.precision), -1, -2), state


@shows_scaling_of(MKOR)
def scale_by_mkor(layers: Layers, **options: object) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by MKOR's preconditioner: inverses by updates of rank one.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes K G C,
    where K and C are the inverses of moving averages of ā āᵀ and ḡ ḡᵀ, with ā and ḡ the means of
    inputs and output gradients. They are updated, and nothing is inverted.

    References:
      Mozaffari et al., MKOR: Momentum-Enabled Kronecker-Factor-Based Optimizer Using Rank-1
      Updates, NeurIPS 2023, arXiv 2306.01685.
    """
    return scaling_of(scale_by_mkor, MKOR, layers, options)


@shows_recipe_of(MKOR)
def mkor(
    learning_rate: Hyperparameter, layers: Layers, **options: object
) -> optax.GradientTransformationExtraArgs:
    """MKOR in the place of AdamW: inverses that each step updates by a product of two vectors.

    Take it for inverses that are never old, from means of inputs and output gradients. Mozaffari et
    al., NeurIPS 2023, arXiv 2306.01685.
    """
    return optimizer_of(mkor, MKOR, learning_rate, layers, options)
