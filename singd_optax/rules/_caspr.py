"""CASPR: Shampoo's roots, combined along axes."""

import dataclasses

import jax

from singd_optax.layers import Factors
from singd_optax.rules._shampoo import Shampoo, multiply_right


@dataclasses.dataclass(frozen=True, kw_only=True)
class CASPR(Shampoo):
    """CASPR (Duvvuri et al., ICLR 2024): the same state and roots as Shampoo, another combination.

    With Shampoo's roots A and B (of order p = 4)::

        G -> (A² G + 2 A G B + G B²) / 4

    which are two passes of G -> (A G + G B) / 2. Each pass is a Kronecker sum, so that the
    preconditioner is not a Kronecker product: as an approximation to the inverse root of the
    full second moment it lies between that and Shampoo's.

    Attributes:
      b2: As for ``Shampoo``.
      eps: As for ``Shampoo``.
      root: As for ``Shampoo``.
      root_method: As for ``Shampoo``.
      precision: As for ``Shampoo``.
    """

    def precondition(self, factors: Factors, gradient: jax.Array) -> jax.Array:
        """Two passes of the mean of A G and G B."""
        for _ in range(2):
            left = factors.K.matmul(gradient, precision=self.precision)
            gradient = (left + multiply_right(gradient, factors.C, self.precision)) / 2
        return gradient
