"""Rows that are formed on demand, so that a gram needs no more of them at a time than it must."""

import abc
from collections.abc import Callable
from typing import Any

import jax

from singd_optax.structures._numerics import HIGHEST, Precision


class Columns(abc.ABC):
    """Rows (n, dim) that are formed on demand, as they are larger than what they are made of.

    Patches of images are such rows. ``StructuredMatrix.gram_by_columns`` asks for what its
    structure needs: a diagonal one for sums of squares, a block-diagonal one for the columns of one
    block at a time, all others for all columns of a few rows at a time.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """The number of rows and the number of columns, (n, dim)."""

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
        """The sum of ``form(rows)`` over parts of the rows, taken one after the other.

        Args:
          form: A function of some of the rows, (m, size), whose results are summed.
          start: The index of the first column; it may be traced.
          size: The number of columns; None for all columns, and then ``start`` is 0.
        """
