"""From sums over a data set to blocks."""

import jax
import jax.numpy as jnp

from singd_optax.curvature._block import Block, diagonal_block
from singd_optax.measures import TotalsOfSides
from singd_optax.rules._eigenbasis import values_in
from singd_optax.rules._inverse import eigen
from singd_optax.structures import StructuredMatrix

Pair = tuple[StructuredMatrix, StructuredMatrix]


def bases_of(uses: tuple[TotalsOfSides, ...]) -> Pair:
    """The eigenvectors of both sides.

    A tied kernel has two uses, and on each side inputs and gradients of other units: these are
    added after they were balanced by their traces.
    """
    return _eigenvectors([_balanced(use) for use in uses])


def kfac_block(uses: tuple[TotalsOfSides, ...]) -> Block:
    """K / positions ⊗ C in its eigenbases: the sum over uses of their diagonals in common ones.

    With one use that is the Kronecker product itself.
    """
    K, C = bases_of(uses)
    values = [
        _positive(values_in(use.K * _inverse(use.positions), K, "highest"))[..., :, None]
        * _positive(values_in(use.C, C, "highest"))[..., None, :]
        for use in uses
    ]
    return Block(K, C, sum(values, jnp.zeros([])))


def eigen_corrected_block(bases: Pair, uses: tuple[jax.Array, ...]) -> Block:
    """With the Fisher's own diagonal."""
    return Block(*bases, sum(uses, jnp.zeros([])))


def squares_block(uses: tuple[jax.Array, ...]) -> Block:
    """In the basis of the parameters."""
    return diagonal_block(sum(uses, jnp.zeros([])))


def moments_block(S_K: StructuredMatrix, S_C: StructuredMatrix) -> Block:
    """S_K ⊗ S_C."""
    (K, rows), (C, columns) = eigen(S_K), eigen(S_C)
    return Block(K, C, _positive(rows)[..., :, None] * _positive(columns)[..., None, :])


def _balanced(use: TotalsOfSides) -> Pair:
    traces = use.K.average_trace(), use.C.average_trace()
    K, C = (
        side * jnp.where(trace > 0, 1 / jnp.where(trace > 0, trace, 1), 0)
        for side, trace in zip((use.K, use.C), traces, strict=True)
    )
    size = jnp.sqrt(traces[0] * _inverse(use.positions) * traces[1])
    return K * size, C * size


def _eigenvectors(pairs: list[Pair]) -> Pair:
    K, C = pairs[0]
    for more in pairs[1:]:
        K, C = K + more[0], C + more[1]
    return eigen(K).vectors, eigen(C).vectors


def _inverse(count: jax.Array) -> jax.Array:
    return jnp.where(count > 0, 1 / jnp.where(count > 0, count, 1), 0)


def _positive(values: jax.Array) -> jax.Array:
    """Rounding may leave eigenvalues of a singular moment below zero."""
    return jnp.maximum(values, 0)
