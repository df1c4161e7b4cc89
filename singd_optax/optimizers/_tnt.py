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
    """TNT (arXiv 2106.02925) for matrices: ``Shampoo`` of order 1, with the trace taken out.

    The gradients g = vec G are taken for samples of a normal distribution with the covariance
    L ⊗ R / Tr L, which is E[g gᵀ] where that is a Kronecker product, and the step is the natural
    gradient for it, with its full power::

        G -> Tr L (L + ε λ_max I)^-1 G (R + ε λ_max I)^-1

    The paper has gradients of labels that are drawn from the model, for the Fisher matrix, and
    those of the data for the step; here they are the same, which is the empirical Fisher. It
    damps Ω = L / (√c n) by ε I, with the mean square c of gradients and n columns; here ε is
    relative to the largest eigenvalue. Other options are those of ``Shampoo``.

    Attributes:
      eps: ε >= 0: ε λ_max I is added before an inverse is taken; or a schedule.
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

    The equations are in ``singd_optax.optimizers.TNT``. How arrays make matrices is said at
    ``scale_by_rule``; scalars and vectors pass through. ``singd_optax.tnt`` is a complete
    optimizer.

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
    """TNT as a drop-in for AdamW, from gradients alone.

    Matrix-shaped parameters: ``scale_by_tnt``, an average of it, scaled to a root mean square as
    AdamW's updates have it, decoupled weight decay. All others go to ``fallback``.
    """
    return optimizer_of(tnt, TNT, learning_rate, layers, options)
