"""Grams without a factor, where some methods have one."""

import dataclasses

import jax

from singd_optax.structures._base import Structure, StructuredMatrix
from singd_optax.structures._columns import Columns
from singd_optax.structures._numerics import HIGHEST, Precision


@dataclasses.dataclass(frozen=True)
class Projection:
    """The projection Π alone, in the place of a factor where second moments are not whitened.

    Attributes:
      structure: The structure that second moments are projected onto.
      dim: The number of rows of these matrices.

    >>> from singd_optax.structures import Diagonal
    >>> Projection(Diagonal(), 2).gram(jax.numpy.ones((3, 2))).to_dense()
    Array([[3., 0.],
           [0., 3.]], dtype=float32)
    """

    structure: Structure
    dim: int

    def gram(self, rows: jax.Array, *, precision: Precision = HIGHEST) -> StructuredMatrix:
        """The gram Π(rowsᵀ rows) of rows (..., n, dim)."""
        return self.structure.project_gram(rows, precision=precision)

    def gram_by_columns(
        self, columns: Columns, *, precision: Precision = HIGHEST
    ) -> StructuredMatrix:
        """The gram Π(rowsᵀ rows) of rows that are formed on demand."""
        return self.structure.project_columns(columns, precision=precision)
