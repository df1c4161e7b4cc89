"""CASPR: Shampoo's inverse roots, in another combination."""

import dataclasses

import jax
import optax

from singd_optax.layers import Layers
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.optimizers._shampoo import Shampoo, ShampooState, multiply_right
from singd_optax.rules import Hyperparameter, MatrixView


@dataclasses.dataclass(frozen=True, kw_only=True)
class CASPR(Shampoo):
    """CASPR: Shampoo's inverse roots, combined by sums (Duvvuri et al., ICLR 2024).

    With the inverse roots A and B of ``Shampoo``, of order p = 4, a gradient G is preconditioned
    as::

        G -> (A² G + 2 A G B + G B²) / 4

    These are two passes of G -> (A G + G B) / 2. A pass is a Kronecker sum, so that the
    preconditioner is no Kronecker product: it lies between that of Shampoo and the inverse root of
    the full second moment, which both approximate. State and options are those of ``Shampoo``.
    """

    def direction(
        self,
        view: MatrixView,
        state: ShampooState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, ShampooState]:
        """Two passes of the mean of A G and G B."""
        for _ in range(2):
            left = state.K.matmul(vector, precision=self.precision)
            vector = (left + multiply_right(vector, state.C, self.precision)) / 2
        return vector, state


@shows_scaling_of(CASPR)
def scale_by_caspr(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by CASPR's preconditioner, from gradients alone.

    A gradient G becomes (A² G + 2 A G B + G B²) / 4, where A = L^(-1/4) and B = R^(-1/4) are
    Shampoo's roots. With the same state as Shampoo, and twice the products, this is closer to
    full-matrix Adagrad.

    References:
      Duvvuri, Devvrit, Anil, Hsieh and Dhillon, Combining Axes Preconditioners through Kronecker
      Approximation for Deep Learning, ICLR 2024.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_caspr(b2=None, eps=0.0)
      >>> grads = {"kernel": jnp.diag(jnp.array([4.0, 9.0]))}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(4)
      Array([[1., 0.],
             [0., 1.]], dtype=float32)
    """
    return scaling_of(scale_by_caspr, CASPR, layers, options)


@shows_recipe_of(CASPR)
def caspr(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """CASPR in the place of AdamW: Shampoo's inverse roots in a sharper combination.

    It works for any model, from gradients alone: the state of ``shampoo``, and twice its products.
    A matrix moves by an average of CASPR's directions, each at the length of RMSProp's step, with
    decoupled weight decay. Duvvuri et al., ICLR 2024.
    """
    return optimizer_of(caspr, CASPR, learning_rate, layers, options)
