"""Factors that say where their products are computed."""

from typing import Any

import flax.struct
import jax

from singd_optax.layers._exchange import Factors, Statistics
from singd_optax.layers._placement import Placement, is_split, split_of
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
    columns: so each device does its share, and gradients travel instead of factors.
    """

    matrix: StructuredMatrix
    placement: Placement = flax.struct.field(pytree_node=False)
    side: int = flax.struct.field(pytree_node=False)

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
        return self._place(self.matrix.matmul(self._place(x), precision=precision))

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = "highest") -> jax.Array:
        """Aᵀ X."""
        return self._place(self.matrix.transpose_matmul(self._place(x), precision=precision))

    def _place(self, x: jax.Array) -> jax.Array:
        split = is_split(self.placement, self.matrix, self.side)
        return self.placement.constrain(x, self.placement.matrix(x.shape, split, self.side))


def placed_factors(spec: LayerSpec, factors: Any) -> Any:
    """The factors of a layer with products where the layer's placement says."""
    if spec.placement is None:
        return factors
    return factors._replace(
        K=PlacedMatrix(factors.K, spec.placement, 0), C=PlacedMatrix(factors.C, spec.placement, 1)
    )


def placed_memory(spec: LayerSpec, memory: Any) -> Any:
    """What a rule keeps beside the factors, with products of factors likewise."""
    products = getattr(memory, "products", None)
    if spec.placement is None or products is None:
        return memory
    placed = [
        product if product is None else PlacedMatrix(product, spec.placement, side)
        for side, product in enumerate(products)
    ]
    return memory._replace(products=products._replace(K=placed[0], C=placed[1]))


def gradient_to_factors(spec: LayerSpec, factors: Any, gradient: jax.Array) -> jax.Array:
    """The gradient matrix, from where the parameters are to where K is applied."""
    return _travel(spec, factors.K, gradient, 0, there=True)


def gradient_from_factors(spec: LayerSpec, factors: Any, gradient: jax.Array) -> jax.Array:
    """The preconditioned gradient, from where C was applied to where the parameters are."""
    return _travel(spec, factors.C, gradient, 1, there=False)


def _travel(spec: LayerSpec, factor: Any, matrix: jax.Array, side: int, there: bool) -> jax.Array:
    placement = spec.placement
    if placement is None or placement.home is None or not isinstance(factor, PlacedMatrix):
        return matrix
    shape = matrix.shape if side == 0 else (*matrix.shape[:-2], *matrix.shape[:-3:-1])
    away = split_of(
        placement.matrix(shape, is_split(placement, factor.matrix, side), side), matrix.ndim
    )
    if side == 1:
        away = (*away[:-2], away[-1], away[-2])
    ends = (placement.home, away) if there else (away, placement.home)
    return placement.moved(matrix, *ends)


def whitens_late(spec: LayerSpec, factors: Any) -> bool:
    """Whether statistics stay plain in the backward pass, and are whitened at the refresh.

    There the work is split over a mesh, and no factor has to be whole on a device; it needs
    structures in which Π(Kᵀ U K) follows from Π(U), as it does with blocks.
    """
    return (
        spec.placement is not None
        and isinstance(factors, Factors)
        and all(isinstance(factor, _CLOSED) for factor in factors)
    )


def whitened(
    spec: LayerSpec, factors: Any, statistics: Statistics, precision: Precision
) -> Statistics:
    """Statistics as the layer's rule wants them."""
    if not whitens_late(spec, factors):
        return statistics
    return statistics._replace(
        H_K=_whiten(factors.K, statistics.H_K, precision),
        H_C=_whiten(factors.C, statistics.H_C, precision),
    )


def _whiten(factor: Any, moment: Any, precision: Precision) -> Any:
    """Π(Kᵀ U K)."""
    if isinstance(factor, DiagonalMatrix):
        return factor.multiply(factor, precision=precision).multiply(moment, precision=precision)

    def turn(block: jax.Array, plain: jax.Array) -> jax.Array:
        half = contract("...ij,...jk->...ik", plain, block, precision=precision)
        return contract("...ji,...jk->...ik", block, half, precision=precision)

    return jax.tree.map(turn, factor, moment)
