"""The contract of a measure."""

import abc
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.struct
import jax
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax.layers import MatrixView
from singd_optax.layers._operation import Rows
from singd_optax.structures import Precision, StructuredMatrix


class RowsOfSide(NamedTuple):
    """The rows of one side of one call of a layer, and how they count.

    Rows are in the format [batch, shared, features], with positions (tokens, pixels) that share the
    kernel on the second axis.

    Attributes:
      rows: The rows of the inputs, or of the output gradients.
      weights: How much each row counts, (batch, shared), or None for ones.
      bias: Whether a row has a last entry that is 1.
      scale: What a sum of squares of rows is multiplied with: 1 over their number for inputs; what
        undoes the average of the loss for gradients, and makes up for positions left out.
      scale_of_sums: What a sum of rows is multiplied with: 1 over their number for inputs; for
        gradients, which are those of an average already, 1, or more where positions are left out.
      scale_of_pairs: What a sum of squares of inputs times squares of gradients is multiplied
        with: the ``scale`` of gradients, on both sides.
      scale_of_totals: What a sum of squares of rows is multiplied with for the sum over all
        positions: 1 for inputs (more where positions were left out); for gradients the square of
        what undoes the average of the loss, as for a loss that is a sum.
      positions: How many positions there are, the same on both sides.
    """

    rows: Rows
    weights: jax.Array | None
    bias: bool
    scale: jax.Array
    scale_of_sums: jax.Array
    scale_of_pairs: jax.Array
    scale_of_totals: jax.Array
    positions: jax.Array


class Measure(abc.ABC):
    """What a rule wants to know of a layer: something formed of its inputs and output gradients.

    Sub-classes are frozen, hashable dataclasses without arrays. Values add up over the calls of a
    layer, over micro-batches and over shards.
    """

    @property
    @abc.abstractmethod
    def degrees(self) -> tuple[int, int]:
        """The powers of inputs and of output gradients in the value: (2, 2) for Σ a² g².

        By them it is scaled where these have other units. An odd power of gradients is that of a
        mean, which is zero where labels are drawn from the model's predictions.
        """

    @property
    @abc.abstractmethod
    def fields(self) -> tuple[str, ...]:
        """The fields of the rule's state that ``of_rows`` needs."""

    def whitening(self, state: PyTree) -> Sequence[StructuredMatrix]:
        """The factors K and C of a rule's state, if they whiten the rows; else nothing.

        On a mesh they may do so later, at the refresh.

        Args:
          state: The state of one layer, a NamedTuple.
        """
        del state
        return ()

    @abc.abstractmethod
    def zeros(self, view: MatrixView) -> PyTree:
        """Zeros of the form that the value has for this layer: shapes, structures and dtypes."""

    @abc.abstractmethod
    def of_rows(
        self,
        view: MatrixView,
        inputs: RowsOfSide,
        gradients: RowsOfSide,
        state: Mapping[str, StructuredMatrix | jax.Array],
        precision: Precision,
    ) -> PyTree:
        """The value of one call of one layer.

        Args:
          view: The layer.
          inputs: The rows on the side of K.
          gradients: The rows on the side of C.
          state: What ``fields`` names of the rule's state, by field.
          precision: The precision of the products, as ``jax.numpy.einsum`` takes it.
        """


@flax.struct.dataclass
class Measured:
    """The value of a measure, together with the measure.

    Attributes:
      value: What was measured, of the form of ``measure.zeros``.
      measure: The measure whose value it is.
    """

    value: PyTree
    measure: Measure = flax.struct.field(pytree_node=False)

    def scaled(self, inputs: ArrayLike, gradients: ArrayLike) -> "Measured":
        """The value in other units.

        Args:
          inputs: How many times larger the squares of inputs are.
          gradients: How many times larger the squares of output gradients are.
        """
        a, g = self.measure.degrees
        return self.times(_power(inputs, a) * _power(gradients, g))

    def times(self, factor: ArrayLike) -> "Measured":
        """The value, multiplied with a number."""
        return Measured(jax.tree.map(lambda leaf: leaf * factor, self.value), self.measure)


def _power(squares: ArrayLike, degree: int) -> ArrayLike:
    """Of units of squares; only odd powers need a root."""
    return squares ** (degree // 2) if degree % 2 == 0 else squares ** (degree / 2)


def carried_fields(
    view: MatrixView, measures: tuple[Measure, ...], state: PyTree
) -> dict[str, PyTree]:
    """What measures need of a rule's state, by field; without factors that whiten later.

    Args:
      view: The layer.
      measures: The measures of the rule.
      state: What the rule keeps of the layer, a NamedTuple.
    """
    return {
        name: getattr(state, name)
        for measure in measures
        if not view.placement.whitens_late(measure.whitening(state))
        for name in measure.fields
    }
