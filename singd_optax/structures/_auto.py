"""Dense where a dim is small, and structured where it is large."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax._validate import check_size
from singd_optax.structures._base import Structure, StructuredMatrix
from singd_optax.structures._block_diagonal import BlockDiagonal
from singd_optax.structures._dense import Dense
from singd_optax.structures._numerics import HIGHEST, Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class Auto(Structure):
    """A choice by size: dense for dim <= ``max_dense_dim``, else another structure.

    A dense factor of d rows costs d² numbers, and O(d³) operations each time that it is refreshed
    (made anew), which is little for small dims and too much for the fan-in of a wide layer or for a
    vocabulary. The choice is made for each factor
    when its size is known: ``find_layers`` shows, and layers hold, what was chosen. The row of a
    bias does not count: a layer of 1024 inputs has a dense factor with a bias, as without one.

    Attributes:
      max_dense_dim: The largest number of rows of a dense factor, the row of a bias not counted.
      otherwise: The structure for larger dims, by default ``BlockDiagonal(256)``.

    Raises:
      TypeError: ``max_dense_dim`` is not an int, or ``otherwise`` not a structure.
      ValueError: ``max_dense_dim`` is not positive.

    >>> Auto(max_dense_dim=100).resolve(100), Auto(max_dense_dim=100).resolve(101)
    (Dense(), BlockDiagonal(block_size=256))
    >>> Auto(max_dense_dim=100).resolve(101, bias=True)
    Dense()
    """

    max_dense_dim: int = 1024
    otherwise: Structure = dataclasses.field(default_factory=lambda: BlockDiagonal(256))

    def __post_init__(self) -> None:
        check_size("max_dense_dim", self.max_dense_dim)
        if not isinstance(self.otherwise, Structure):
            raise TypeError(
                "`otherwise` must be a singd_optax.structures.Structure, such as "
                f"BlockDiagonal(256), got {self.otherwise!r} of type "
                f"{type(self.otherwise).__name__}."
            )

    def resolve(self, dim: int, *, bias: bool = False) -> Structure:
        """``Dense()`` for a factor of at most ``max_dense_dim`` rows, else ``otherwise``."""
        if dim - bias <= self.max_dense_dim:
            return Dense()
        return self.otherwise.resolve(dim, bias=bias)

    def eye(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> StructuredMatrix:
        """The identity of the structure chosen for ``dim``."""
        return self.resolve(dim).eye(dim, dtype, batch_shape)

    def zeros(
        self, dim: int, dtype: DTypeLike = jnp.float32, batch_shape: tuple[int, ...] = ()
    ) -> StructuredMatrix:
        """The zero matrix of the structure chosen for ``dim``."""
        return self.resolve(dim).zeros(dim, dtype, batch_shape)

    def project(self, symmetric: jax.Array) -> StructuredMatrix:
        """The projection onto the structure chosen for the size of ``symmetric``."""
        return self.resolve(symmetric.shape[-1]).project(symmetric)

    def project_gram(self, rows: jax.Array, *, precision: Precision = HIGHEST) -> StructuredMatrix:
        """The gram Π(rowsᵀ rows) of rows (..., n, dim), in the structure chosen for ``dim``."""
        return self.resolve(rows.shape[-1]).project_gram(rows, precision=precision)
