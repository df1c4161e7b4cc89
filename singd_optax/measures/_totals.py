"""Sums over a data set, in the units of a loss that is a sum over it.

Statistics of optimizers are means, each call and each batch with its own count. What is to be added
up over a data set must not depend on how that is cut, so these are plain sums.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from singd_optax.layers import MatrixView
from singd_optax.measures._measure import Measure, RowsOfSide
from singd_optax.measures._moments import zero_mean
from singd_optax.measures._squares import Squares
from singd_optax.structures import Precision, Projection, StructuredMatrix


class TotalsOfSides(NamedTuple):
    """Sums of squares of both sides of a layer.

    Attributes:
      K: Π(Σ a aᵀ) over all positions; of a tied kernel's transposed use, that of gradients.
      C: Π(Σ g gᵀ), g the gradient of a loss that is a sum; in that use, of inputs.
      positions: How many these are, (*stack).
    """

    K: StructuredMatrix
    C: StructuredMatrix
    positions: jax.Array


@dataclasses.dataclass(frozen=True)
class MomentTotals(Measure):
    """Σ a aᵀ, Σ g gᵀ and how many: K / positions ⊗ C is KFAC's curvature of the summed loss.

    >>> MomentTotals().degrees
    (2, 2)
    """

    @property
    def degrees(self) -> tuple[int, int]:
        """Those of K ⊗ C; in passes for each column of a Hessian K and count grow alike."""
        return 2, 2

    @property
    def fields(self) -> tuple[str, ...]:
        """None."""
        return ()

    def zeros(self, view: MatrixView) -> TotalsOfSides:
        """Zero matrices in the structures of the layer."""
        K, C = (
            structure.zeros(dim, view.statistics_dtype, view.stack_shape)
            for structure, dim in zip(view.structures, view.dims, strict=True)
        )
        return TotalsOfSides(K, C, zero_mean(view))

    def of_rows(
        self,
        view: MatrixView,
        inputs: RowsOfSide,
        gradients: RowsOfSide,
        state: Mapping[str, StructuredMatrix | jax.Array],
        precision: Precision,
    ) -> TotalsOfSides:
        """As ``Measure`` says."""
        dtype = view.statistics_dtype
        totals = []
        for index, side in enumerate((inputs, gradients)):
            plain = Projection(view.structures[index], view.dims[index])
            gram, _ = side.rows.gram(plain, side.weights, side.bias, precision)
            totals.append(gram.astype(dtype) * side.scale_of_totals)
        return TotalsOfSides(totals[0], totals[1], inputs.positions.astype(dtype))


@dataclasses.dataclass(frozen=True)
class SquareTotals(Squares):
    """Σ (Q_Kᵀ a gᵀ Q_C)², entry by entry: a diagonal of the Fisher of the summed loss.

    Attributes:
      basis: As of ``Squares``.
      exact: Likewise.

    >>> SquareTotals().fields
    ()
    """

    def of_rows(
        self,
        view: MatrixView,
        inputs: RowsOfSide,
        gradients: RowsOfSide,
        state: Mapping[str, StructuredMatrix | jax.Array],
        precision: Precision,
    ) -> jax.Array:
        """As ``Measure`` says."""
        mean = super().of_rows(view, inputs, gradients, state, precision)
        # What undoes the average of the loss: of gradients, and 1 of inputs, whichever side it is.
        return mean * _averaged_over(inputs) * _averaged_over(gradients)


def _averaged_over(side: RowsOfSide) -> jax.Array:
    """0 where no position counts."""
    empty = side.scale_of_sums == 0
    return jnp.where(empty, 0, side.scale / jnp.where(empty, 1, side.scale_of_sums))
