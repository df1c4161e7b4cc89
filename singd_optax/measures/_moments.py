"""Second moments of both sides, whitened or plain."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.layers import MatrixView
from singd_optax.measures._measure import Measure, RowsOfSide
from singd_optax.structures import (
    Diagonal,
    Identity,
    Precision,
    Projection,
    Structure,
    StructuredMatrix,
)


@dataclasses.dataclass(frozen=True)
class Moments(Measure):
    """The second moments Π(Kᵀ U K) and Π(Cᵀ G C), or Π(U) and Π(G), of a layer.

    They are ``H_K`` and ``H_C`` of its statistics. U is the second moment of the inputs, G that of
    the output gradients; Π projects onto the structures of the factors K and C.

    Attributes:
      whitened_by: The fields of the rule's state that are K and C, or None for plain moments.
      structures: The structures that the two sides are projected onto, None for the layer's own;
        ``Identity()`` turns a side off, so that its rows are not multiplied with each other. This
        is for plain moments only.

    >>> from singd_optax.structures import Identity
    >>> Moments(whitened_by=("K", "C")).fields
    ('K', 'C')
    >>> of_inputs = Moments(structures=(None, Identity()))
    """

    whitened_by: tuple[str, str] | None = None
    structures: tuple[Structure | None, Structure | None] = (None, None)

    @property
    def degrees(self) -> tuple[int, int]:
        """The powers of both sides, 2 and 2; statistics scale each moment by its own side's."""
        return 2, 2

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the rule's state that are K and C, if they whiten."""
        return self.whitened_by or ()

    def whitening(self, state: PyTree) -> Sequence[StructuredMatrix]:
        """The factors K and C of a rule's state, if they whiten the rows; else nothing."""
        return [getattr(state, name) for name in self.fields]

    def zeros(self, view: MatrixView) -> tuple[StructuredMatrix, StructuredMatrix]:
        """Zero matrices in the structures of the two moments, (*stack, dim, dim) each."""
        K, C = (
            structure.zeros(dim, view.statistics_dtype, view.stack_shape)
            for structure, dim in zip(self.structures_of(view), view.dims, strict=True)
        )
        return K, C

    def structures_of(self, view: MatrixView) -> tuple[Structure, Structure]:
        """The structures of the two moments of a layer."""
        K, C = (own or given for own, given in zip(self.structures, view.structures, strict=True))
        return K, C

    def of_rows(
        self,
        view: MatrixView,
        inputs: RowsOfSide,
        gradients: RowsOfSide,
        state: Mapping[str, StructuredMatrix | jax.Array],
        precision: Precision,
    ) -> tuple[tuple[StructuredMatrix, jax.Array], tuple[StructuredMatrix, jax.Array]]:
        """The moments of one call, with their traces: (H_K, mean_U) and (H_C, mean_G)."""
        sides = []
        dtype = view.statistics_dtype
        for index, side in enumerate((inputs, gradients)):
            name = self.fields[index] if self.fields else ""
            structure = self.structures_of(view)[index]
            is_off = self.structures[index] == Identity()
            # The trace of a side that is off falls out of squares, which any kind of rows has.
            plain = Projection(Diagonal() if is_off else structure, view.dims[index])
            whitening = state.get(name, plain)  # late whitening leaves them out
            assert not isinstance(whitening, jax.Array)
            moment, squares = side.rows.gram(whitening, side.weights, side.bias, precision)
            if is_off:
                moment = structure.zeros(view.dims[index], dtype)
            mean = squares.astype(dtype) * (side.scale / view.dims[index])
            sides.append((moment.astype(dtype) * side.scale, mean))
        return sides[0], sides[1]


PLAIN = Moments()
#: For rules that want other measures alone: statistics have their mean traces then.
NO_MOMENTS = Moments(structures=(Identity(), Identity()))


def moments_of(measures: tuple[Measure, ...]) -> Moments:
    """The ``Moments`` among these measures, or plain ones, which statistics always have."""
    return next((one for one in measures if isinstance(one, Moments)), PLAIN)


def zero_mean(view: MatrixView) -> jax.Array:
    """Zeros for the mean traces."""
    return jnp.zeros(view.stack_shape, view.statistics_dtype)
