"""TNT: the natural gradient of a tensor-normal distribution."""

import dataclasses
from typing import ClassVar

import optax

from singd_optax.layers import Layers
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.optimizers._shampoo import Shampoo
from singd_optax.rules import Hyperparameter, Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class TNT(Shampoo):
    """TNT for matrices: ``Shampoo`` of order 1, with the trace divided out (arXiv 2106.02925).

    Gradients g = vec G are taken for samples of a normal distribution with the covariance
    L ⊗ R / Tr L, where L and R are the averages of G Gᵀ and Gᵀ G. This is E[g gᵀ] if that is a
    Kronecker product. The step is the natural gradient for it, without a root::

        G -> Tr L (L + ε λ_max I)^-1 G (R + ε λ_max I)^-1

    For the covariance the paper takes gradients at labels that are drawn from the model, and for
    the step those of the data. Here both are those of the data, and the covariance is the empirical
    Fisher matrix. The paper adds ε I to L / (√c n), where c is the mean square of gradients and n
    the number of columns; here ε is relative to the largest eigenvalue λ_max. Other options are
    those of ``Shampoo``.

    Attributes:
      eps: ε, a number >= 0 or a schedule: ε λ_max I is added before an inverse is taken.
    """

    eps: Hyperparameter = 0.01
    root: int = 1
    trace_scaled: bool = True

    recipe: ClassVar[Recipe] = Recipe(
        momentum=0.9, nesterov=False, update_rms=0.2, refresh_every=10
    )


@shows_scaling_of(TNT)
def scale_by_tnt(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by the inverse covariance of a tensor-normal distribution.

    A gradient G becomes Tr L · L^-1 G R^-1, where L and R are the damped averages of G Gᵀ and
    Gᵀ G.

    References:
      Ren and Goldfarb, Tensor Normal Training for Deep Learning Models, NeurIPS 2021, arXiv
      2106.02925.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_tnt(eps=0.0)
      >>> grads = {"kernel": jnp.diag(jnp.array([1.0, 2.0]))}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(3)
      Array([[5.   , 0.   ],
             [0.   , 0.625]], dtype=float32)
    """
    return scaling_of(scale_by_tnt, TNT, layers, options)


@shows_recipe_of(TNT)
def tnt(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """TNT in the place of AdamW: the natural gradient of a tensor-normal distribution.

    It works for any model, from gradients alone. A matrix moves by an average of gradients that
    were multiplied by the inverses of both moments, brought to the root mean square that AdamW's
    updates have, with decoupled weight decay. Ren and Goldfarb, NeurIPS 2021, arXiv 2106.02925.
    """
    return optimizer_of(tnt, TNT, learning_rate, layers, options)
