"""What KFAC keeps of a layer, by its inverse method."""

from typing import Annotated, NamedTuple

import jax

from singd_optax.rules import (
    ColumnBasis,
    ColumnFactor,
    ColumnMoment,
    ColumnValues,
    Counter,
    Number,
    Role,
    RowBasis,
    RowFactor,
    RowMoment,
    RowValues,
)


class KFACState(NamedTuple):
    """What KFAC keeps of a layer.

    Attributes:
      K: The inverse of the damped S_K, fan_in x fan_in in its structure.
      C: The inverse of the damped S_C, fan_out x fan_out in its structure.
      S_K: The moving average of U, the second moment of inputs.
      S_C: The moving average of G, the second moment of output gradients.
      averaged: The number of statistics in the averages, int32.
      inverted_at: The step of the last inversion, int32; -1 before the first.
    """

    K: RowFactor
    C: ColumnFactor
    S_K: RowMoment
    S_C: ColumnMoment
    averaged: Counter
    inverted_at: Counter


class RootKFACState(NamedTuple):
    """What KFAC keeps of a layer with ``inverse_method="root"``.

    Attributes:
      K: A root of the inverse: K Kᵀ is the inverse of the damped S_K.
      C: A root of the inverse: C Cᵀ is the inverse of the damped S_C.
      S_K: The moving average of U; this and all below are as in ``KFACState``.
      S_C: The moving average of G.
      averaged: The number of statistics in the averages, int32.
      inverted_at: The step of the last inversion, int32; -1 before the first.
    """

    K: RowFactor
    C: ColumnFactor
    S_K: RowMoment
    S_C: ColumnMoment
    averaged: Counter
    inverted_at: Counter


class EigenKFACState(NamedTuple):
    """What KFAC keeps of a layer with ``inverse_method="eigh"``.

    Attributes:
      K: The eigenvectors of S_K.
      C: The eigenvectors of S_C.
      values_K: The eigenvalues of S_K, (fan_in,).
      values_C: The eigenvalues of S_C, (fan_out,).
      damping: λ, which is added to the products of eigenvalues.
      S_K: The moving average of U, the second moment of inputs.
      S_C: The moving average of G, the second moment of output gradients.
      averaged: The number of statistics in the averages, int32.
      inverted_at: The step of the last decomposition, int32; -1 before the first.
    """

    K: RowBasis
    C: ColumnBasis
    values_K: RowValues
    values_C: ColumnValues
    damping: Number
    S_K: RowMoment
    S_C: ColumnMoment
    averaged: Counter
    inverted_at: Counter


class CGKFACState(NamedTuple):
    """What KFAC keeps of a layer with ``inverse_method="cg"``, which has no inverses.

    Attributes:
      K: S_K, the moving average of U, the second moment of inputs.
      C: S_C, the moving average of G, the second moment of output gradients.
      damping: λ, which is added to their product.
      solution: The last solution, (fan_in, fan_out), or None without a warm start.
      averaged: The number of statistics in the averages, int32.
    """

    K: RowFactor
    C: ColumnFactor
    damping: Number
    solution: Annotated[jax.Array | None, Role("moment", 0)]
    averaged: Counter


AnyState = KFACState | RootKFACState | EigenKFACState | CGKFACState
