"""The curvature of one layer in an orthogonal basis: the one form that all kinds have."""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax.placement import laid_out_like, on_auto_axes, partitions_of
from singd_optax.rules._eigenbasis import into_bases, out_of_bases
from singd_optax.structures import IdentityMatrix, StructuredMatrix


@flax.struct.dataclass
class Block:
    """H = (K ⊗ C) Diag(values) (K ⊗ C)ᵀ of a layer's matrix W (rows, columns).

    H W is K [values * (Kᵀ W C)] Cᵀ. KFAC has products of eigenvalues for values, EKFAC the Fisher's
    own diagonal in this basis, a diagonal curvature the identity for basis. Everything below is for
    (H + d I), with d the damping or the precision of a prior, and exact for it.

    Attributes:
      K: Orthogonal, of the rows (inputs).
      C: Orthogonal, of the columns (outputs).
      values: Eigenvalues, >= 0, (*stack, rows, columns); those of the summed negative
        log-likelihood.

    >>> eye = IdentityMatrix(2)
    >>> block = Block(eye, eye, jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> block.power(jnp.ones((2, 2)), -1.0, damping=1.0)[0]
    Array([0.5       , 0.33333334], dtype=float32)
    >>> float(block.trace()), [float(value) for value in block.spectrum()]
    (10.0, [4.0, 3.0, 2.0, 1.0])
    """

    K: StructuredMatrix
    C: StructuredMatrix
    values: jax.Array

    def into(self, matrix: jax.Array) -> jax.Array:
        """Kᵀ W C, the coefficients in the basis; more axes in front are a batch."""
        return self._each(lambda one: into_bases((self.K, self.C), one, "highest"), matrix)

    def out_of(self, coefficients: jax.Array) -> jax.Array:
        """K X Cᵀ, the inverse."""
        return self._each(lambda one: out_of_bases((self.K, self.C), one, "highest"), coefficients)

    def powers(self, exponent: float, damping: ArrayLike = 0.0) -> jax.Array:
        """(values + d)^p."""
        return _power(self.values + damping, exponent)

    def power(self, matrix: jax.Array, exponent: float, damping: ArrayLike = 0.0) -> jax.Array:
        """(H + d I)^p W: p = 1 is the curvature, -1 its inverse, ±1/2 their symmetric roots."""

        def product(block: Block, matrix: jax.Array, damping: ArrayLike) -> jax.Array:
            return block.out_of(block.into(matrix) * block.powers(exponent, damping))

        return laid_out_like(product, partitions_of(matrix), self, matrix, damping)

    def sample(self, key: jax.Array, damping: ArrayLike, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws from N(0, (H + d I)^-1), (*shape, *stack, rows, columns)."""
        normal = jax.random.normal(key, (*shape, *self.values.shape), self.values.dtype)
        return self.out_of(normal * self.powers(-0.5, damping))

    def trace(self) -> jax.Array:
        """Tr H."""
        return self.values.sum()

    def logdet(self, damping: ArrayLike = 0.0) -> jax.Array:
        """Log det(H + d I)."""
        return jnp.log(self.values + damping).sum()

    def quadratic(self, matrix: jax.Array, damping: ArrayLike = 0.0) -> jax.Array:
        """wᵀ (H + d I) w."""

        def product(block: Block, matrix: jax.Array, damping: ArrayLike) -> jax.Array:
            return (block.into(matrix) ** 2 * (block.values + damping)).sum()

        return on_auto_axes(product, self, matrix, damping)

    def diagonal(self, exponent: float = 1.0, damping: ArrayLike = 0.0) -> jax.Array:
        """The diagonal of (H + d I)^p, in the place of the entries, (*stack, rows, columns)."""
        squares = jax.tree.map(jnp.square, (self.K, self.C))
        return out_of_bases(squares, self.powers(exponent, damping), "highest")

    def spectrum(self) -> jax.Array:
        """All eigenvalues of H, in falling order."""
        return jnp.sort(self.values.reshape(-1))[::-1]

    def scaled(self, factor: ArrayLike) -> "Block":
        """The block of a loss that is this many times larger."""
        return dataclasses.replace(self, values=self.values * factor)

    def _each(self, function: Callable[[jax.Array], jax.Array], matrix: jax.Array) -> jax.Array:
        for _ in range(matrix.ndim - self.values.ndim):
            function = jax.vmap(function)
        return function(matrix)


def diagonal_block(values: jax.Array) -> Block:
    """Of these entries: the basis is the identity."""
    rows, columns = values.shape[-2:]
    name = values.dtype.name
    return Block(IdentityMatrix(rows, name), IdentityMatrix(columns, name), values)


def _power(values: jax.Array, exponent: float) -> jax.Array:
    if exponent == 1:
        return values
    return 1 / values if exponent == -1 else values**exponent
