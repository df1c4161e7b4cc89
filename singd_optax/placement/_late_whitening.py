"""Statistics that are whitened at the refresh, and not where they are formed."""

from collections.abc import Sequence

import jax

from singd_optax.structures import (
    BlockDiagonalMatrix,
    DenseMatrix,
    DiagonalMatrix,
    Precision,
    StructuredMatrix,
    contract,
)

#: Structures in which Π(Kᵀ U K) follows from Π(U).
_CLOSED = (DenseMatrix, BlockDiagonalMatrix, DiagonalMatrix)


def can_whiten(factors: Sequence[StructuredMatrix]) -> bool:
    """Whether there are factors, of structures that can whiten what was projected before."""
    return len(factors) > 0 and all(isinstance(factor, _CLOSED) for factor in factors)


def whiten(
    factor: StructuredMatrix, moment: StructuredMatrix, precision: Precision
) -> StructuredMatrix:
    """Π(Kᵀ U K) of K and Π(U)."""
    if isinstance(factor, DiagonalMatrix):
        squares: StructuredMatrix = factor.multiply(factor, precision=precision)
        return squares.multiply(moment, precision=precision)

    def turn(block: jax.Array, plain: jax.Array) -> jax.Array:
        half = contract("...ij,...jk->...ik", plain, block, precision=precision)
        return contract("...ji,...jk->...ik", block, half, precision=precision)

    return jax.tree.map(turn, factor, moment)
