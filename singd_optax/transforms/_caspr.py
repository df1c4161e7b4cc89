"""CASPR as an optax transformation."""

from collections.abc import Mapping

import optax

from singd_optax._validate import check_size
from singd_optax.layers import MatrixAxes
from singd_optax.rules import CASPR, Hyperparameter, RootMethod
from singd_optax.structures import BlockDiagonal, Precision
from singd_optax.transforms._gradient_rule import scale_by_gradient_rule
from singd_optax.transforms._grafting import Grafting
from singd_optax.transforms._interval import Interval


def scale_by_caspr(
    *,
    b2: Hyperparameter | None = 0.95,
    eps: Hyperparameter = 1e-6,
    grafting: Grafting = None,
    block_size: int = 1024,
    root: int = 4,
    root_method: RootMethod = "eigh",
    refresh_every: Interval = 1,
    matrix_axes: Mapping[str, MatrixAxes | None] | None = None,
    precision: Precision = "highest",
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by CASPR's preconditioner, from gradients alone.

    With Shampoo's roots A = L^(-1/4) and B = R^(-1/4), a gradient G becomes
    (A² G + 2 A G B + G B²) / 4: the same state, twice the products, and a preconditioner closer
    to full-matrix Adagrad's. The equations are in ``singd_optax.rules.CASPR``.
    ``singd_optax.caspr`` is a complete optimizer.

    Args:
      b2: As for ``scale_by_shampoo``.
      eps: As for ``scale_by_shampoo``.
      grafting: As for ``scale_by_shampoo``.
      block_size: As for ``scale_by_shampoo``.
      root: As for ``scale_by_shampoo``.
      root_method: As for ``scale_by_shampoo``.
      refresh_every: As for ``scale_by_shampoo``.
      matrix_axes: As for ``scale_by_shampoo``.
      precision: As for ``scale_by_shampoo``.

    Returns:
      A transformation; its state counts roots that failed, in ``failed_refreshes``.

    Raises:
      ValueError: A hyper-parameter is out of range.
      TypeError: A hyper-parameter is of another type.

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
    check_size("block_size", block_size)
    rule = CASPR(b2=b2, eps=eps, root=root, root_method=root_method, precision=precision)
    return scale_by_gradient_rule(
        rule,
        structures=BlockDiagonal(block_size),
        matrix_axes=matrix_axes,
        refresh_every=refresh_every,
        grafting=grafting,
    )
