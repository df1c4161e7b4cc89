"""Linear systems of two factors, solved by products with the factors alone."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from singd_optax._validate import check_flag, check_interval
from singd_optax.structures import Precision, StructuredMatrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConjugateGradients:
    """Solve A X B + λ X = V for X by conjugate gradients; an ``inverse_method`` of ``KFAC``.

    In other words it solves (A ⊗ B + λ I) X = V. An iteration takes one product with A and one with
    B. After k iterations X is the best approximation, in the norm of the system, that k such
    products can make of V. With as many iterations as there are different eigenvalues it is exact.
    Few iterations leave out directions of little curvature, as damping does.

    Attributes:
      iterations: The number of iterations in each step, an int >= 1.
      warm_start: Whether to start at the solution of the last step, times the number that brings it
        nearest to the new one. It is kept in the state, and has the size of the kernel. If not, the
        start is 0.

    References:
      Hestenes and Stiefel, Methods of Conjugate Gradients for Solving Linear Systems, 1952. For
      KFAC: Chen, An Iterative K-FAC Algorithm for Deep Learning, 2021, arXiv 2101.00218.

    Example:
      >>> from singd_optax.structures import DenseMatrix
      >>> A, B = (DenseMatrix(jnp.diag(jnp.array(d))) for d in ([1.0, 2.0], [3.0]))
      >>> V = jnp.array([[3.5], [6.5]])
      >>> ConjugateGradients(iterations=2).solved((A, B), jnp.float32(0.5), V).round(4)
      Array([[1.],
             [1.]], dtype=float32)
    """

    iterations: int = 10
    warm_start: bool = False

    def __post_init__(self) -> None:
        check_interval("iterations", self.iterations, schedule=False)
        check_flag("warm_start", self.warm_start)

    def solved(
        self,
        factors: tuple[StructuredMatrix, StructuredMatrix],
        damping: jax.Array,
        vector: jax.Array,
        start: jax.Array | None = None,
        precision: Precision = "highest",
    ) -> jax.Array:
        """The solution X for each matrix of a stack.

        Args:
          factors: A and B, symmetric positive semi-definite.
          damping: λ >= 0, of shape ``stack_shape``.
          vector: V, (*stack_shape, rows, columns).
          start: The X to start from, shaped like V; None for 0.
          precision: The precision of the products.

        Returns:
          X, shaped like V.
        """
        A, B = factors

        def product(x: jax.Array) -> jax.Array:
            left = jnp.swapaxes(A.matmul(x, precision=precision), -1, -2)
            both = jnp.swapaxes(B.matmul(left, precision=precision), -1, -2)
            return both + damping[..., None, None] * x

        scale = _largest(vector)  # squares of entries may be out of range
        residual = vector / scale
        x = jnp.zeros_like(residual)
        if start is not None:
            own = start / _largest(start)
            image = product(own)
            share = _ratio(_dot(own, residual), _dot(own, image))
            x, residual = share * own, residual - share * image
        square = _dot(residual, residual)
        enough = jnp.finfo(square.dtype).eps ** 2 * square

        def step(_: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            x, residual, toward, square = carry
            image = product(toward)
            length = jnp.where(square > enough, _ratio(square, _dot(toward, image)), 0)
            x, residual = x + length * toward, residual - length * image
            new = _dot(residual, residual)
            return x, residual, residual + _ratio(new, square) * toward, new

        found = lax.fori_loop(0, self.iterations, step, (x, residual, residual, square))
        return found[0] * scale


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sum(x * y, axis=(-2, -1), keepdims=True)


def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    """The quotient x / y, and 0 where y is not positive."""
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)


def _largest(x: jax.Array) -> jax.Array:
    """The largest absolute value of each matrix, or 1 for a matrix of zeros."""
    largest = jnp.abs(x).max((-2, -1), keepdims=True)
    return jnp.where(largest > 0, largest, 1)
