"""Squares of each example's gradient, in a basis."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from singd_optax.layers import MatrixView
from singd_optax.layers._operation import PlainRows, turned, with_ones
from singd_optax.measures._measure import Measure, RowsOfSide
from singd_optax.structures import Precision, StructuredMatrix


@dataclasses.dataclass(frozen=True)
class Squares(Measure):
    """The mean over examples of (Q_Kᵀ a gᵀ Q_C)², entry by entry: a diagonal of the Fisher.

    With inputs a and output gradients g, it is in units in which it is the product of the
    eigenvalues of both second moments where inputs and gradients are independent. Positions
    (tokens, pixels) of an example count as examples of their own, as in ``kfac_approx="expand"``,
    or were collapsed before, as in ``"reduce"``.

    Attributes:
      basis: The fields of the rule's state that are Q_K and Q_C, or None for I.
      exact: Whether the positions of each example are added up before they are squared, which is
        legal for ``"expand"`` alone. It costs as much as the gradient, and is done for one part of
        the examples after the other.

    >>> Squares(("K", "C")).degrees
    (2, 2)
    """

    basis: tuple[str, str] | None = None
    exact: bool = False

    @property
    def degrees(self) -> tuple[int, int]:
        """The powers of inputs and of output gradients in the value: 2 on both sides."""
        return 2, 2

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the rule's state that are the basis."""
        return self.basis or ()

    def zeros(self, view: MatrixView) -> jax.Array:
        """Zeros of the form of the value, (*stack, rows, columns).

        Raises:
          ValueError: Exact squares are wanted of positions that are collapsed first.
        """
        if self.exact and getattr(view, "kfac_approx", "expand") == "reduce":
            raise ValueError(
                f"Exact squares of layer {view.path!r} need each position of an example, and its "
                "kfac_approx='reduce' collapses them first. Find layers with kfac_approx='expand', "
                "or leave exact squares off."
            )
        return jnp.zeros((*view.stack_shape, *view.dims), view.statistics_dtype)

    def of_rows(
        self,
        view: MatrixView,
        inputs: RowsOfSide,
        gradients: RowsOfSide,
        state: Mapping[str, StructuredMatrix | jax.Array],
        precision: Precision,
    ) -> jax.Array:
        """The value of one call of one layer, as ``Measure.of_rows`` says."""
        K, C = (state[name] for name in self.basis) if self.basis else (None, None)
        assert not isinstance(K, jax.Array)
        assert not isinstance(C, jax.Array)

        def products(
            side: RowsOfSide,
            Q: StructuredMatrix | None,
            plain: RowsOfSide,
            P: StructuredMatrix | None,
        ) -> jax.Array:
            assert isinstance(plain.rows, PlainRows)
            rows = with_ones(plain.rows.rows, plain.bias).astype(view.statistics_dtype)
            other = turned(rows.reshape(-1, rows.shape[-1]), P, precision).reshape(rows.shape)
            return side.rows.squared_products(Q, other, side.bias, self.exact, precision)

        if isinstance(gradients.rows, PlainRows):
            found = products(inputs, K, gradients, C)
        else:  # a kernel that is used as its transpose has inputs of any kind on this side
            found = products(gradients, C, inputs, K).T
        return found.astype(view.statistics_dtype) * inputs.scale_of_pairs
