"""Second moments of each side, weighted by the size of the other."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from singd_optax.layers import MatrixView
from singd_optax.measures._measure import Measure, RowsOfSide
from singd_optax.structures import Identity, Precision, Projection, StructuredMatrix


class CrossMoments(NamedTuple):
    """The value of ``Cross``, with inputs a and output gradients g.

    Attributes:
      K: E[(gᵀ W_C g) a aᵀ], (*stack, fan_in, fan_in), in the structure of K.
      C: E[(aᵀ W_K a) g gᵀ], (*stack, fan_out, fan_out), in the structure of C.
      total: E[(aᵀ W_K a) (gᵀ W_C g)], (*stack,).
    """

    K: StructuredMatrix
    C: StructuredMatrix
    total: jax.Array


@dataclasses.dataclass(frozen=True)
class Cross(Measure):
    """Weighted second moments: the partial traces of the Fisher itself, not of its factors.

    With inputs a, output gradients g and weights W = I, ``K`` and ``C`` are the two partial traces
    of F = E[(a aᵀ) ⊗ (g gᵀ)], which the plain moments have only where inputs and gradients are
    independent.

    Attributes:
      weighted_by: The fields of the rule's state that, over their Frobenius norms, are W_K and W_C,
        positive semi-definite unless ``signed``; or None for I.
      whitened_by: The fields of the rule's state that are the factors K and C, with W_K = K Kᵀ and
        W_C = C Cᵀ, and Kᵀ a and Cᵀ g in place of a and g in the moments; or None.
      sides: Whether ``K`` and ``C`` are wanted; one that is not is the identity, and not formed.
      signed: Whether W_K and W_C may be any symmetric matrices, so that weights have signs: the
        moments are then differences of two, at twice the price, and need not be positive.

    >>> Cross(whitened_by=("K", "C")).fields
    ('K', 'C')
    """

    weighted_by: tuple[str, str] | None = None
    whitened_by: tuple[str, str] | None = None
    sides: tuple[bool, bool] = (True, True)
    signed: bool = False

    @property
    def degrees(self) -> tuple[int, int]:
        """The powers of inputs and of output gradients in the value: 2 on both sides."""
        return 2, 2

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the rule's state that are the weights, or K and C."""
        return self.weighted_by or self.whitened_by or ()

    def zeros(self, view: MatrixView) -> CrossMoments:
        """Zeros of the form of the value, in the structures of the layer's factors."""
        dtype, stack = view.statistics_dtype, view.stack_shape
        K, C = (
            (structure if wanted else Identity()).zeros(dim, dtype, stack)
            for structure, dim, wanted in zip(view.structures, view.dims, self.sides, strict=True)
        )
        return CrossMoments(K, C, jnp.zeros(stack, dtype))

    def of_rows(
        self,
        view: MatrixView,
        inputs: RowsOfSide,
        gradients: RowsOfSide,
        state: Mapping[str, StructuredMatrix | jax.Array],
        precision: Precision,
    ) -> CrossMoments:
        """The value of one call of one layer, as ``Measure.of_rows`` says."""
        dtype, scale = view.statistics_dtype, inputs.scale_of_pairs
        is_root = self.whitened_by is not None
        sides, sizes = (inputs, gradients), []
        found: list[StructuredMatrix] = []
        for index, side in enumerate(sides):
            W = state[self.fields[index]] if self.fields else None
            assert not isinstance(W, jax.Array)
            if W is not None and not is_root:
                norm = norm_of(W)
                W = W * (1 / jnp.where(norm > 0, norm, 1))
            size = side.rows.quadratic(W, is_root, side.bias, precision).astype(dtype)
            # Rounding may leave it below.
            sizes.append(size if self.signed else jnp.maximum(size, 0))
        for index, side in enumerate(sides):
            if not self.sides[index]:
                found.append(Identity().zeros(view.dims[index], dtype))
                continue
            weights = sizes[1 - index]
            largest = jnp.abs(weights).max()  # rows may have a narrow dtype
            weights = weights / jnp.where(largest > 0, largest, 1)
            whitening = Projection(view.structures[index], view.dims[index])
            if self.whitened_by:
                whitening = state[self.whitened_by[index]]  # type: ignore[assignment]
            parts = (jnp.maximum(weights, 0), jnp.maximum(-weights, 0))[: 2 if self.signed else 1]
            moments = [
                side.rows.gram(whitening, part, side.bias, precision)[0].astype(dtype)
                for part in parts
            ]
            moment = moments[0] - moments[1] if self.signed else moments[0]
            found.append(moment * (largest * scale))
        return CrossMoments(found[0], found[1], jnp.sum(sizes[0] * sizes[1]) * scale)


def norm_of(matrix: StructuredMatrix) -> jax.Array:
    """The Frobenius norm, whatever the size of entries: squares of moments may be out of range."""
    largest = matrix.max_abs()
    scale = jnp.where(largest > 0, largest, 1)
    return (matrix * (1 / scale)).frobenius_norm() * largest
