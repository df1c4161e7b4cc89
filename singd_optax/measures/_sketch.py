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
    """A second moment times a few fixed random columns Ω: U Ω of inputs, or G Ω of gradients.

    U is the second moment of a layer's inputs, G that of its output gradients. Averages of sketches
    are sketches of averages, and no array of dim x dim is ever formed. A side whose structure is
    diagonal has its diagonal instead, which is smaller.

    Attributes:
      side: Which second moment is sketched: 0 for that of inputs, 1 for that of output gradients.
      rank: The number of columns of Ω; the side's dim, where this is smaller.
    """

    side: Literal[0, 1]
    rank: int

    @property
    def degrees(self) -> tuple[int, int]:
        """The powers of inputs and of output gradients in the value: 2 on its side."""
        return (0, 2) if self.side else (2, 0)

    @property
    def fields(self) -> tuple[str, ...]:
        """No fields, as nothing of the rule's state is needed."""
        return ()

    def columns(self, view: MatrixView) -> jax.Array:
        """The columns Ω of a layer, (dim, rank), orthonormal, and always the same."""
        dim = view.dims[self.side]
        shape = dim, min(self.rank, dim)
        normal = jax.random.normal(jax.random.key(self.side), shape, view.statistics_dtype)
        return jnp.linalg.qr(normal)[0]

    def zeros(self, view: MatrixView) -> jax.Array | StructuredMatrix:
        """Zeros of the form of the value: (*stack, dim, rank), or a diagonal matrix."""
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
        """The value of one call of one layer, as ``Measure.of_rows`` says."""
        del state
        own, dtype = (inputs, gradients)[self.side], view.statistics_dtype
        if view.structures[self.side] == Diagonal():
            plain = Projection(Diagonal(), view.dims[self.side])
            moment, _ = own.rows.gram(plain, own.weights, own.bias, precision)
            return moment.astype(dtype) * own.scale
        found = own.rows.sketch(self.columns(view), own.weights, own.bias, precision)
        return found.astype(dtype) * own.scale
