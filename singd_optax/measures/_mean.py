"""Means of inputs, and of output gradients."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from singd_optax.layers import MatrixView
from singd_optax.measures._measure import Measure, RowsOfSide
from singd_optax.structures import Precision, StructuredMatrix


@dataclasses.dataclass(frozen=True)
class Mean(Measure):
    """The mean of a layer's inputs, or the sum of its output gradients, which is their mean.

    Gradients are those of the loss: where it is a mean over the batch, their sum is the mean over
    examples of each one's own, that is the gradient of a bias. Labels that are drawn from the
    model's predictions give gradients whose mean is zero: ``fisher="mc"`` and ``"ggn"`` are
    refused. So are kernels that a model also uses as their transpose, as inputs of the one use
    and output gradients of the other have nothing in common that could be averaged.

    Attributes:
      side: The rows that are averaged: 0 for inputs, 1 for output gradients.
    """

    side: Literal[0, 1]

    @property
    def degrees(self) -> tuple[int, int]:
        """The powers of inputs and of output gradients in the value: 1 on its side."""
        return (0, 1) if self.side else (1, 0)

    @property
    def fields(self) -> tuple[str, ...]:
        """No fields, as nothing of the rule's state is needed."""
        return ()

    def zeros(self, view: MatrixView) -> jax.Array:
        """Zeros of the form of the value, (*stack, dim) with the dim of its side.

        Raises:
          ValueError: The kernel is also used as its transpose.
        """
        if getattr(view, "tied", False):
            raise ValueError(
                f"Layer {view.path!r} is also used as its transpose, and means of inputs and "
                "gradients of two such uses cannot be added. Use layers.without(...) for it, or an "
                "optimizer of second moments (singd, kfac, ekfac)."
            )
        return jnp.zeros((*view.stack_shape, view.dims[self.side]), view.statistics_dtype)

    def of_rows(
        self,
        view: MatrixView,
        inputs: RowsOfSide,
        gradients: RowsOfSide,
        state: Mapping[str, StructuredMatrix | jax.Array],
        precision: Precision,
    ) -> jax.Array:
        """The value of one call of one layer, as ``Measure.of_rows`` says."""
        del state
        own = (inputs, gradients)[self.side]
        total = own.rows.sums(own.weights, own.bias, precision)
        return total.astype(view.statistics_dtype) * own.scale_of_sums
