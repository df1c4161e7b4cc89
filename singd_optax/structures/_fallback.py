"""Dense arithmetic for what a structure does not say itself."""

import warnings
from typing import TypeVar

import jax
import jax.numpy as jnp

from singd_optax.structures._numerics import accumulation_dtype

Matrix = TypeVar("Matrix")


class PerformanceWarning(UserWarning):
    """A structure works on all dim x dim entries, because it does not override an operation."""


def warn_dense(owner: object, method: str) -> None:
    """Say that ``method`` of the class of ``owner`` is dense arithmetic."""
    warnings.warn(
        f"{type(owner).__name__}.{method} falls back on dense arithmetic, with dim x dim entries. "
        "That is fine for small dims; override it to use the structure.",
        PerformanceWarning,
        stacklevel=3,
    )


def read_entries(template: Matrix, dense: jax.Array) -> Matrix:
    """The stored numbers of a matrix from its entries.

    ``to_dense`` is linear, and puts each stored number (times a constant c) at places of its own.
    So with L for ``to_dense``, LᵀL is diagonal, its diagonal is Lᵀ(L(1)), and the numbers are
    Lᵀ(dense) / Lᵀ(L(1)). Lᵀ is what autodiff calls the pullback.

    Args:
      template: Any matrix with ``to_dense``, of the structure, dim and batch axes wanted.
      dense: Entries (..., dim, dim) that lie in the structure.

    Returns:
      A matrix like the template, in the dtype of ``dense``.
    """
    wide = accumulation_dtype(dense)
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, wide), template)
    entries, pull_back = jax.vjp(lambda matrix: matrix.to_dense(), ones)
    (sums,) = pull_back(dense.astype(entries.dtype))
    (counts,) = pull_back(entries)
    return jax.tree.map(
        lambda total, count: (total / jnp.where(count == 0, 1, count)).astype(dense.dtype),
        sums,
        counts,
    )
