"""Mini-block Fisher: a block for a dense layer, and one for each pair of channels of others."""

import dataclasses
import math
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_choice, check_number, check_precision
from singd_optax.layers import Layers, Role, Window
from singd_optax.measures import Statistics
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import (
    DampingMode,
    Hyperparameter,
    MatrixView,
    NoColumnFactor,
    Number,
    RowFactor,
    RowMoment,
    Rule,
    choose,
    hyperparameter_at,
)
from singd_optax.rules._inverse import check_invertible, inverse, inverse_of_small
from singd_optax.structures import DenseMatrix, Identity, Precision, StructuredMatrix, contract

#: Blocks of a convolution, (*stack, outputs, inputs, positions, positions), and those of its bias.
Blocks = tuple[jax.Array, ...]


class MiniBlockFisherState(NamedTuple):
    """What mini-block Fisher keeps of a dense layer.

    Attributes:
      K: The inverse of the damped S_K.
      C: The identity, without numbers.
      S_K: The moving average of G Gᵀ / d_o, weighted.
      moment_weight: The sum of the weights, by which S_K is divided.
    """

    K: RowFactor
    C: NoColumnFactor
    S_K: RowMoment
    moment_weight: Number


class MiniBlockFisherPairsState(NamedTuple):
    """What mini-block Fisher keeps of a convolution.

    Attributes:
      blocks: The inverses of the damped moments, (*stack, outputs, inputs, k, k); and, where there
        is a bias, its own, (*stack, outputs, 1, 1, 1).
      moments: The moving averages of g gᵀ, weighted, likewise.
      moment_weight: The sum of the weights, by which moments are divided.
    """

    blocks: Annotated[Blocks, Role("blocks", 1)]
    moments: Annotated[Blocks, Role("moment", 1)]
    moment_weight: Number


Kept = MiniBlockFisherState | MiniBlockFisherPairsState


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiniBlockFisher(Rule):
    """Mini-block Fisher (arXiv 2202.04124), from the gradients of batches.

    It is the empirical Fisher matrix of batches, of which the blocks on the diagonal are kept. The
    blocks and the inverse are the paper's; when statistics are taken, and what becomes of biases,
    are choices made here. A dense layer with the gradient G
    (d_i inputs x d_o outputs) has one block of d_i x d_i, the mean over those of its outputs::

        S <- b2 S + (1 - b2) G Gᵀ / d_o        on every step
        K = (S/w + λ I)^-1                     on refresh steps
        M -> K M

    with M the momentum, and w = 1 - b2^t the weight of what S has seen, so that no start from other
    batches is needed. A convolution of k positions has one block of k x k for each pair of an
    input and an output channel, with the k entries g of that pair's gradient in place of G, and
    d_o = 1; with k = 1 it is g / (v + λ), by the average v of squares. That takes 2 k numbers for
    each number of the kernel.

    Convolutions are the layers that ``find_layers`` calls so. Without layers they are the arrays of
    four axes or more, taken for (positions ..., inputs, outputs) as Flax has it, with 64 positions
    at most; all others are dense, as the cut of ``scale_by_rule`` has them, those of a
    one-dimensional convolution among them, which attention's look like. ``matrix_axes`` says it
    otherwise, with ``Tiles`` of ``singd_optax.layers``: ``{"conv1d": Tiles((0, 1), (2,),
    positions=(0,))}``, ``{"scanned": Tiles((1, 2, 3), (4,), positions=(1, 2))}`` for a stack of
    convolutions, or ``{"experts": ((2,), (3,))}`` for four axes that are none.

    A bias that comes with its kernel is a dense layer's last input, and for a convolution a block
    of one entry for each output.

    Attributes:
      b2: The decay of S, a number in [0, 1) or a schedule.
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute", or "relative", where λ is multiplied by the mean of the diagonal of
        all of a layer's blocks, which is the mean square of its gradients' entries.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    b2: Hyperparameter = 0.95
    damping: Hyperparameter = 0.1
    damping_mode: DampingMode = "relative"
    precision: Precision = "highest"

    State: ClassVar[type] = MiniBlockFisherState
    is_of_whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("b2", self.b2, maximum=1, strict_maximum=True)
        check_number("damping", self.damping, strict=True)
        check_choice("damping_mode", self.damping_mode, ("absolute", "relative"))
        check_precision("precision", self.precision)

    def init(self, view: MatrixView) -> Kept:
        """Inverses of I, and averages of nothing."""
        stack, dtype = view.stack_shape, view.statistics_dtype
        weight = jnp.zeros(stack, dtype)
        if view.window is not None:
            parts = view.window.shapes(view.dims[0])
            shapes = [(*stack, *part, part[-1]) for part in parts]
            eyes = (jnp.eye(shape[-1], dtype=view.factor_dtype[0]) for shape in shapes)
            blocks = tuple(map(jnp.broadcast_to, eyes, shapes))
            moments = tuple(jnp.zeros(shape, dtype) for shape in shapes)
            return MiniBlockFisherPairsState(blocks, moments, weight)
        rows = view.structures[0]
        check_invertible(rows, view.path)
        K = rows.eye(view.dims[0], view.factor_dtype[0], stack)
        C = Identity().eye(view.dims[1], view.factor_dtype[1])
        return MiniBlockFisherState(K, C, rows.zeros(view.dims[0], dtype, stack), weight)

    def observe(
        self,
        view: MatrixView,
        state: Kept,
        gradient: jax.Array,
        count: jax.Array,
    ) -> Kept:
        """Add this gradient to the averages."""
        decay = hyperparameter_at(self.b2, count, view.statistics_dtype)
        weight = state.moment_weight * decay + (1 - decay)
        if isinstance(state, MiniBlockFisherPairsState):
            moments = tuple(
                old * decay + (1 - decay) * part[..., :, None] * part[..., None, :]
                for old, part in zip(state.moments, _window(view).split(gradient), strict=True)
            )
            return state._replace(moments=moments, moment_weight=weight)
        turned = jnp.swapaxes(gradient, -1, -2)
        gram = view.structures[0].project_gram(turned, precision=self.precision)
        S_K = state.S_K * decay + gram * ((1 - decay) / view.dims[1])
        return state._replace(S_K=S_K, moment_weight=weight)

    def refresh(
        self,
        view: MatrixView,
        state: Kept,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[Kept, bool]:
        """New inverses; those of a layer that saw no gradient at all stay as they are."""
        dtype = view.statistics_dtype
        damping = hyperparameter_at(self.damping, count, dtype)
        weight = jnp.where(state.moment_weight > 0, state.moment_weight, 1)
        moments = [moment * (1 / weight) for moment in _moments(state)]
        size = _mean_of_diagonals(moments, len(view.stack_shape))
        is_relative = self.damping_mode == "relative"
        unit = jnp.where(size > 0, size, 1) if is_relative else jnp.ones_like(size)
        damped = [(moment * (1 / unit)).add_identity(damping) for moment in moments]
        new: Kept
        if isinstance(state, MiniBlockFisherPairsState):
            inverses = (DenseMatrix(inverse_of_small(one.to_dense())) for one in damped)
            new = state._replace(blocks=tuple((one * (1 / unit)).entries for one in inverses))
        else:
            new = state._replace(K=inverse(damped[0]) * (1 / unit))
        return choose(size > 0, new, state), True

    def direction(
        self,
        view: MatrixView,
        state: Kept,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, Kept]:
        """Each block times its part of the momentum."""
        if not isinstance(state, MiniBlockFisherPairsState):
            return state.K.matmul(vector, precision=self.precision), state
        window = _window(view)
        parts = tuple(
            contract("...ij,...j->...i", block, part, precision=self.precision)
            for block, part in zip(state.blocks, window.split(vector), strict=True)
        )
        return window.join(parts), state


def _window(view: MatrixView) -> Window:
    """Of a view whose state is one of pairs."""
    assert view.window is not None
    return view.window


def _moments(state: Kept) -> list[StructuredMatrix]:
    """What inverses are of, with leading axes of the stack, and of pairs."""
    if isinstance(state, MiniBlockFisherPairsState):
        return [DenseMatrix(part) for part in state.moments]
    return [state.S_K]


def _mean_of_diagonals(moments: list[StructuredMatrix], rank: int) -> jax.Array:
    """The mean over all blocks of a layer, for each matrix of a stack of this rank."""
    total: jax.Array | float = 0.0
    count = 0
    for moment in moments:
        traces = moment.average_trace() * moment.dim
        total = total + traces.sum(tuple(range(rank, traces.ndim)))
        count += math.prod(traces.shape[rank:]) * moment.dim
    return jnp.asarray(total) / count


@shows_scaling_of(MiniBlockFisher)
def scale_by_mini_block_fisher(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by the inverse of small blocks of the Fisher matrix, from gradients alone.

    The equations, and which arrays are convolutions, are in
    ``singd_optax.optimizers.MiniBlockFisher``. The structure of rows is that of a dense layer's
    block: dense, block-diagonal or diagonal; that of columns, and those of convolutions, are not
    used. Scalars and vectors pass through. ``singd_optax.mini_block_fisher`` is a complete
    optimizer.

    References:
      Bahamou, Goldfarb and Ren, A Mini-Block Fisher Method for Deep Neural Networks, AISTATS 2023,
      arXiv 2202.04124.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_mini_block_fisher(damping=1.0, damping_mode="absolute")
      >>> grads = {"conv": jnp.ones((3, 3, 4, 8)), "dense": jnp.ones((4, 8))}
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> (1 / updates["conv"]).round(2)[0, 0, 0, :2]  # 1 + 9, a block has the 9 positions
      Array([10., 10.], dtype=float32)
      >>> (1 / updates["dense"]).round(2)[0, :2]  # 1 + 4, the block has the 4 inputs
      Array([5., 5.], dtype=float32)
    """
    return scaling_of(scale_by_mini_block_fisher, MiniBlockFisher, layers, options)


@shows_recipe_of(MiniBlockFisher)
def mini_block_fisher(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Mini-block Fisher in the place of AdamW: inverses of small blocks, from gradients alone.

    It works for any model, and is meant for convolutional nets, whose kernels have one small block
    for each pair of channels. A matrix moves by its preconditioned momentum, brought to one root
    mean square, with decoupled weight decay. Bahamou et al., AISTATS 2023, arXiv 2202.04124.
    """
    return optimizer_of(mini_block_fisher, MiniBlockFisher, learning_rate, layers, options)
