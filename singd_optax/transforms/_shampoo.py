"""Shampoo as an optax transformation."""

from collections.abc import Mapping

import optax

from singd_optax._validate import check_size
from singd_optax.layers import MatrixAxes
from singd_optax.rules import Hyperparameter, RootMethod, Shampoo
from singd_optax.structures import BlockDiagonal, Precision
from singd_optax.transforms._gradient_rule import scale_by_gradient_rule
from singd_optax.transforms._grafting import Grafting
from singd_optax.transforms._interval import Interval


def scale_by_shampoo(
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
    """Scale gradients by Shampoo's preconditioner, from gradients alone.

    A gradient G becomes L^(-1/4) G R^(-1/4), with L and R the averages of G Gᵀ and Gᵀ G; the
    equations are in ``singd_optax.rules.Shampoo``. Roots are taken in float32 (float64 for
    float64 parameters). How arrays make matrices is said at ``scale_by_gradient_rule``; scalars
    and vectors pass through. ``singd_optax.shampoo`` is a complete optimizer.

    Args:
      b2: Decay of L and R, in [0, 1), or a schedule; None for plain sums.
      eps: ε >= 0: ε λ_max I is added before a root is taken; or a schedule.
      grafting: Whose step's norm each parameter's update gets: None, "sgd", "rmsprop", "adam".
      block_size: Rows and columns beyond this many are cut into blocks with factors of their own.
      root: p, the order of the inverse roots.
      root_method: "eigh", or "newton", which needs matrix products only.
      refresh_every: Steps between new roots, or a schedule step -> int.
      matrix_axes: Which axes are rows and columns, by regular expressions on paths.
      precision: Of all products.

    Returns:
      A transformation; its state counts roots that failed, in ``failed_refreshes``.

    Raises:
      ValueError: A hyper-parameter is out of range.
      TypeError: A hyper-parameter is of another type. ``optax.inject_hyperparams`` turns numbers
        into arrays: name ``block_size`` and ``root`` in its ``static_args``.

    References:
      Gupta, Koren and Singer, Shampoo: Preconditioned Stochastic Tensor Optimization, ICML 2018,
      arXiv 1802.09568. Anil et al., Scalable Second Order Optimization for Deep Learning, arXiv
      2002.09018 (blocks, grafting, the coupled Newton iteration).

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> tx = optax.chain(
      ...   singd_optax.scale_by_shampoo(grafting="adam"), optax.scale_by_learning_rate(0.1))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> opt_state = tx.init(params)
      >>> grads = jax.tree.map(jnp.ones_like, params)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> updates["kernel"].round(3)
      Array([[-0.1, -0.1],
             [-0.1, -0.1],
             [-0.1, -0.1]], dtype=float32)
    """
    check_size("block_size", block_size)
    rule = Shampoo(b2=b2, eps=eps, root=root, root_method=root_method, precision=precision)
    return scale_by_gradient_rule(
        rule,
        structures=BlockDiagonal(block_size),
        matrix_axes=matrix_axes,
        refresh_every=refresh_every,
        grafting=grafting,
    )
