"""Rows that are formed on demand, so that a gram needs no more of them at a time than it must."""

import abc
from collections.abc import Callable
from typing import Any

import jax

from singd_optax.structures._numerics import HIGHEST, Precision


class Columns(abc.ABC):
    """Rows (n, dim) that would be larger than what they are made of, as patches of images are.

    ``StructuredMatrix.gram_by_columns`` asks for what its structure needs: a diagonal one for sums
    of squares, a block-diagonal one for the columns of one block at a time, all others for all
    columns of a few rows at a time.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """The number of rows and of columns."""

    @abc.abstractmethod
    def squares(self, *, precision: Precision = HIGHEST) -> jax.Array:
        """The sum of squares of each column, (dim,), at least float32."""

    @abc.abstractmethod
    def accumulate(
        self,
        form: Callable[[jax.Array], Any],
        start: jax.Array | int = 0,
        size: int | None = None,
    ) -> Any:
        """The sum of ``form(rows)`` over parts of the rows, one after the other.

        Args:
          form: From some of the rows, (m, size).
          start: The first column; may be traced.
          size: The number of columns; None for all from ``start`` 0 on.
        """
