"""Second moments by what they make of a few fixed columns."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from singd_optax.layers import MatrixView
from singd_optax.measures._measure import Measure, RowsOfSide
from singd_optax.structures import Diagonal, Precision, Projection, StructuredMatrix


@dataclasses.dataclass(frozen=True)
class Sketch(Measure):
    """U Ω of inputs, or G Ω of output gradients, for fixed random columns Ω.

    Averages of sketches are sketches of averages, and no array of dim x dim is ever formed. A side
    whose structure is diagonal has its diagonal instead, which is smaller.

    Attributes:
      side: 0 for inputs, 1 for output gradients.
      rank: How many columns Ω has, at most the side's dim.
    """

    side: Literal[0, 1]
    rank: int

    @property
    def degrees(self) -> tuple[int, int]:
        """2 on its side."""
        return (0, 2) if self.side else (2, 0)

    @property
    def fields(self) -> tuple[str, ...]:
        """None."""
        return ()

    def columns(self, view: MatrixView) -> jax.Array:
        """Ω of a layer, (dim, rank), orthonormal, always the same."""
        dim = view.dims[self.side]
        shape = dim, min(self.rank, dim)
        normal = jax.random.normal(jax.random.key(self.side), shape, view.statistics_dtype)
        return jnp.linalg.qr(normal)[0]

    def zeros(self, view: MatrixView) -> jax.Array | StructuredMatrix:
        """(*stack, dim, rank), or a diagonal matrix."""
        dim, dtype = view.dims[self.side], view.statistics_dtype
        if view.structures[self.side] == Diagonal():
            return Diagonal().zeros(dim, dtype, view.stack_shape)
        return jnp.zeros((*view.stack_shape, dim, min(self.rank, dim)), dtype)

    def of_rows(
        self,
        view: MatrixView,
        inputs: RowsOfSide,
        gradients: RowsOfSide,
        state: Mapping[str, StructuredMatrix | jax.Array],
        precision: Precision,
    ) -> jax.Array | StructuredMatrix:
        """As ``Measure`` says."""
        del state
        own, dtype = (inputs, gradients)[self.side], view.statistics_dtype
        if view.structures[self.side] == Diagonal():
            plain = Projection(Diagonal(), view.dims[self.side])
            moment, _ = own.rows.gram(plain, own.weights, own.bias, precision)
            return moment.astype(dtype) * own.scale
        found = own.rows.sketch(self.columns(view), own.weights, own.bias, precision)
        return found.astype(dtype) * own.scale
