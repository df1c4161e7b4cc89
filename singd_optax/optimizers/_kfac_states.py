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
      K: The inverse of the damped S_K.
      C: The inverse of the damped S_C.
      S_K: Exponential moving average of U.
      S_C: Exponential moving average of G.
      averaged: How many statistics are in them, int32.
      inverted_at: The step of the last inversion, int32, or -1.
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
      K: With K Kᵀ the inverse of the damped S_K; all others are as in ``KFACState``.
      C: With C Cᵀ the inverse of the damped S_C.
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
      K: Eigenvectors of S_K.
      C: Eigenvectors of S_C.
      values_K: Their eigenvalues, (fan_in,).
      values_C: Likewise, (fan_out,).
      damping: λ, added to the products of eigenvalues.
      S_K: Exponential moving average of U.
      S_C: Exponential moving average of G.
      averaged: How many statistics are in them, int32.
      inverted_at: The step of the last decomposition, int32, or -1.
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
    """What KFAC keeps of a layer with ``inverse_method="cg"``: no inverse.

    Attributes:
      K: S_K, exponential moving average of U.
      C: S_C, exponential moving average of G.
      damping: λ, added to their product.
      solution: The last solution, (fan_in, fan_out), or None without a warm start.
      averaged: How many statistics are in the averages, int32.
    """

    K: RowFactor
    C: ColumnFactor
    damping: Number
    solution: Annotated[jax.Array | None, Role("moment", 0)]
    averaged: Counter


AnyState = KFACState | RootKFACState | EigenKFACState | CGKFACState
