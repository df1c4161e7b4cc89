"""Factors that say where their products are computed."""

import math
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax

from singd_optax.layers._moves import Split
from singd_optax.layers._placement import Placement, is_split, split_of
from singd_optax.layers._roles import roles_of
from singd_optax.layers._spec import LayerSpec
from singd_optax.structures import (
    BlockDiagonalMatrix,
    DenseMatrix,
    DiagonalMatrix,
    Precision,
    Structure,
    StructuredMatrix,
    contract,
)

_CLOSED = (DenseMatrix, BlockDiagonalMatrix, DiagonalMatrix)


@flax.struct.dataclass
class PlacedMatrix(StructuredMatrix):
    """A factor whose products with gradients are split over a mesh.

    A factor with split rows multiplies gradients with split rows; a whole one those with split
    columns: so each device does its share, and gradients travel instead of factors, unless the
    factor is ``fetched``: whole for its products, though its rows are split where it is kept.
    """

    matrix: StructuredMatrix
    placement: Placement = flax.struct.field(pytree_node=False)
    side: int = flax.struct.field(pytree_node=False)
    fetched: bool = flax.struct.field(pytree_node=False, default=False)

    @property
    def structure(self) -> Structure:
        """Of the matrix."""
        return self.matrix.structure

    @property
    def dim(self) -> int:
        """Of the matrix."""
        return self.matrix.dim

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Of the matrix."""
        return self.matrix.batch_shape

    def to_dense(self) -> jax.Array:
        """Of the matrix."""
        return self.matrix.to_dense()

    def matmul(self, x: jax.Array, *, precision: Precision = "highest") -> jax.Array:
        """A X."""
        return self._place(self._at_hand().matmul(self._place(x), precision=precision))

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = "highest") -> jax.Array:
        """Aᵀ X."""
        return self._place(self._at_hand().transpose_matmul(self._place(x), precision=precision))

    @property
    def is_split(self) -> bool:
        """Whether its products are of split rows."""
        return not self.fetched and is_split(self.placement, self.matrix, self.side)

    def _place(self, x: jax.Array) -> jax.Array:
        partition = self.placement.matrix(x.shape, self.is_split, self.side)
        return self.placement.constrain(x, partition)

    def _at_hand(self) -> StructuredMatrix:
        if not self.fetched:
            return self.matrix
        whole = lambda leaf: self.placement.constrain(leaf, self.placement.factor(leaf.shape, None))
        return jax.tree.map(whole, self.matrix)


def placed_state(spec: Any, state: Any) -> Any:
    """The state of a layer with products where the layer's placement says."""
    placement = getattr(spec, "placement", None)
    if placement is None:
        return state
    roles = roles_of(type(state))
    pair = [
        next((getattr(state, n) for n, r in roles.items() if r.multiplies and r.side == side), None)
        for side in (0, 1)
    ]
    fetched = None if None in pair else _fetched(spec, placement, pair)
    return state._replace(
        **{
            name: PlacedMatrix(getattr(state, name), placement, role.side, fetched == role.side)
            for name, role in roles.items()
            if role.multiplies and role.side is not None and getattr(state, name) is not None
        }
    )


def _fetched(spec: LayerSpec, placement: Placement, both: Any) -> int | None:
    """The side whose factor travels to the gradients: 0 for K, 1 for C, None for neither.

    Where the rows of both factors are split, gradients travel to K, from K to C, and home. With
    one of the two at hand they stay between K and C; a structured factor may be smaller than they
    are. Dense factors never travel.
    """
    if not placement.spare or not all(is_split(placement, m, side) for side, m in enumerate(both)):
        return None
    shape = (*spec.stack_shape, spec.fan_in, spec.fan_out)
    travels = {}
    for side, matrix in enumerate(both):
        leaves = jax.tree.leaves(matrix)
        numbers = sum(placement.share(leaf.shape, None) for leaf in leaves)
        if not isinstance(matrix, DenseMatrix) and numbers <= 2 * math.prod(shape) / placement.size:
            # Gradients are then split over their columns for K, or over their rows for C.
            away = _gradients_at(placement, shape, split=side == 1, side=0)
            travels[side] = (len(placement.moves(shape, placement.home, away)), numbers)
    return min(travels, key=travels.__getitem__, default=None)


def _gradients_at(placement: Placement, shape: Sequence[int], *, split: bool, side: int) -> Split:
    """The partition of gradients (*stack, fan_in, fan_out) at a factor."""
    rank = len(shape)
    if side == 0:
        return split_of(placement.matrix(shape, split, side), rank)
    turned = (*shape[:-2], shape[-1], shape[-2])
    away = split_of(placement.matrix(turned, split, side), rank)
    return (*away[:-2], away[-1], away[-2])


def gradient_to_factors(spec: Any, state: Any, gradient: jax.Array) -> jax.Array:
    """The gradient matrix, from where the parameters are to where K is applied."""
    return _travel(spec, state, gradient, 0, there=True)


def gradient_from_factors(spec: Any, state: Any, gradient: jax.Array) -> jax.Array:
    """The preconditioned gradient, from where C was applied to where the parameters are."""
    return _travel(spec, state, gradient, 1, there=False)


def _travel(spec: Any, state: Any, matrix: jax.Array, side: int, there: bool) -> jax.Array:
    placement = getattr(spec, "placement", None)
    placed = [one for one in state if isinstance(one, PlacedMatrix) and one.side == side]
    if placement is None or placement.home is None or not placed:
        return matrix
    away = _gradients_at(placement, matrix.shape, split=placed[0].is_split, side=side)
    ends = (placement.home, away) if there else (away, placement.home)
    return placement.moved(matrix, *ends)


def whitens_late(spec: Any, factors: Any) -> bool:
    """Whether statistics stay plain in the backward pass, and are whitened at the refresh.

    There the work is split over a mesh, and no factor has to be whole on a device; it needs
    structures in which Π(Kᵀ U K) follows from Π(U), as it does with blocks.
    """
    return getattr(spec, "placement", None) is not None and all(
        isinstance(factor, _CLOSED) for factor in factors
    )


def whitened(spec: Any, factors: Any, moments: Any, precision: Precision) -> Any:
    """(H_K, H_C) as the layer's rule wants them."""
    if not whitens_late(spec, factors):
        return moments
    return tuple(_whiten(f, m, precision) for f, m in zip(factors, moments, strict=True))


def _whiten(factor: Any, moment: Any, precision: Precision) -> Any:
    """Π(Kᵀ U K)."""
    if isinstance(factor, DiagonalMatrix):
        return factor.multiply(factor, precision=precision).multiply(moment, precision=precision)

    def turn(block: jax.Array, plain: jax.Array) -> jax.Array:
        half = contract("...ij,...jk->...ik", plain, block, precision=precision)
        return contract("...ji,...jk->...ik", block, half, precision=precision)

    return jax.tree.map(turn, factor, moment)
