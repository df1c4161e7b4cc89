"""Complete optimizers that need gradients only: chains, no arithmetic."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from singd_optax._recipe import DEFAULT_DAMPING, DEFAULT_REFRESH, check_common, size_decay
from singd_optax._validate import check_number
from singd_optax.layers import Leaves, MatrixAxes, matrix_specs
from singd_optax.rules import DampingMode, FactorStepNorm, Hyperparameter, RootMethod
from singd_optax.structures import Precision, Structure
from singd_optax.transforms import (
    Grafting,
    Interval,
    check_arguments_first,
    refresh_schedule,
    scale_by_caspr,
    scale_by_inverse_free_shampoo,
    scale_by_matrix_rms,
    scale_by_shampoo,
)

#: Roots are dear: few early ones. Products are cheap.
_ROOTS_REFRESH = refresh_schedule(5)


def shampoo(
    learning_rate: Hyperparameter,
    *,
    b1: float = 0.9,
    b2: Hyperparameter | None = 0.95,
    eps: Hyperparameter = 1e-6,
    weight_decay: Hyperparameter = 1e-4,
    mask: Any = None,
    grafting: Grafting = "rmsprop",
    block_size: int = 1024,
    root: int = 4,
    root_method: RootMethod = "eigh",
    refresh_every: Interval = _ROOTS_REFRESH,
    matrix_axes: Mapping[str, MatrixAxes | None] | None = None,
    fallback: optax.GradientTransformation | None = None,
    precision: Precision = "highest",
) -> optax.GradientTransformationExtraArgs:
    """Shampoo as a drop-in for AdamW: any model, gradients only.

    Matrix-shaped parameters: Shampoo's direction at the length of RMSProp's step (so that AdamW's
    learning rates carry over), an exponential moving average of it, decoupled weight decay. All
    other parameters go to ``fallback``. How arrays make matrices, stacked ones too, is said at
    ``scale_by_gradient_rule``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      b1: Decay of the average of the updates, in [0, 1).
      b2: Decay of the second moments, in [0, 1), or a schedule; None for plain sums.
      eps: ε λ_max I is added to a moment before its root is taken; a number >= 0 or a schedule.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``.
      grafting: Whose step's norm each parameter's update gets: "rmsprop", "adam", "sgd", or None
        for Shampoo's own.
      block_size: Rows and columns beyond this many are cut into blocks with factors of their own.
      root: The order of the inverse roots.
      root_method: "eigh", or "newton", which needs matrix products only.
      refresh_every: Steps between new roots, an int or a schedule; by default
        ``refresh_schedule(5)``: 1, growing to 10 over the first 50 steps.
      matrix_axes: Regular expression on a parameter's path -> (axes of rows, axes of columns), or
        None to give the parameter to ``fallback``, as one would an embedding.
      fallback: For parameters that are no matrices; default
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      precision: Of the products.

    Returns:
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: A hyper-parameter is out of range.
      TypeError: A hyper-parameter is of another type. ``optax.inject_hyperparams`` turns numbers
        into arrays: name ``block_size`` and ``root`` in its ``static_args``.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> x = jax.random.normal(jax.random.key(0), (64, 8))
      >>> y = x @ jax.random.normal(jax.random.key(1), (8, 3))
      >>> loss_fn = lambda params: jnp.mean((x @ params["kernel"] + params["bias"] - y) ** 2)
      >>> params = {"kernel": jnp.zeros((8, 3)), "bias": jnp.zeros(3)}
      >>> tx = singd_optax.shampoo(optax.linear_schedule(0.1, 0.0, 100))
      >>> opt_state = tx.init(params)
      >>> @jax.jit
      ... def step(params, opt_state):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> for _ in range(100):
      ...   params, opt_state = step(params, opt_state)
      >>> bool(loss_fn(params) < 1e-3)
      True
    """
    scale = scale_by_shampoo(
        b2=b2,
        eps=eps,
        grafting=grafting,
        block_size=block_size,
        root=root,
        root_method=root_method,
        refresh_every=refresh_every,
        matrix_axes=matrix_axes,
        precision=precision,
    )
    check_number("b1", b1, maximum=1, strict_maximum=True, schedule=False)
    parts = [scale, optax.ema(b1)]
    return _recipe(parts, learning_rate, weight_decay, mask, matrix_axes, fallback)


def caspr(
    learning_rate: Hyperparameter,
    *,
    b1: float = 0.9,
    b2: Hyperparameter | None = 0.95,
    eps: Hyperparameter = 1e-6,
    weight_decay: Hyperparameter = 1e-4,
    mask: Any = None,
    grafting: Grafting = "rmsprop",
    block_size: int = 1024,
    root: int = 4,
    root_method: RootMethod = "eigh",
    refresh_every: Interval = _ROOTS_REFRESH,
    matrix_axes: Mapping[str, MatrixAxes | None] | None = None,
    fallback: optax.GradientTransformation | None = None,
    precision: Precision = "highest",
) -> optax.GradientTransformationExtraArgs:
    """CASPR in the recipe of ``shampoo``: the same state, twice the products.

    Args:
      learning_rate: A number >= 0 or a schedule.
      b1: As for ``shampoo``.
      b2: As for ``shampoo``.
      eps: As for ``shampoo``.
      weight_decay: As for ``shampoo``.
      mask: As for ``shampoo``.
      grafting: As for ``shampoo``.
      block_size: As for ``shampoo``.
      root: As for ``shampoo``.
      root_method: As for ``shampoo``.
      refresh_every: As for ``shampoo``.
      matrix_axes: As for ``shampoo``.
      fallback: As for ``shampoo``.
      precision: As for ``shampoo``.

    Returns:
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: A hyper-parameter is out of range.
      TypeError: A hyper-parameter is of another type.
    """
    scale = scale_by_caspr(
        b2=b2,
        eps=eps,
        grafting=grafting,
        block_size=block_size,
        root=root,
        root_method=root_method,
        refresh_every=refresh_every,
        matrix_axes=matrix_axes,
        precision=precision,
    )
    check_number("b1", b1, maximum=1, strict_maximum=True, schedule=False)
    parts = [scale, optax.ema(b1)]
    return _recipe(parts, learning_rate, weight_decay, mask, matrix_axes, fallback)


def inverse_free_shampoo(
    learning_rate: Hyperparameter,
    *,
    momentum: float = 0.8,
    weight_decay: Hyperparameter = 1e-4,
    mask: Any = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] = "auto",
    damping: Hyperparameter = DEFAULT_DAMPING,
    damping_mode: DampingMode = "relative",
    factor_learning_rate: Hyperparameter = 0.5,
    factor_momentum: Hyperparameter = 0.5,
    factor_step_norm: FactorStepNorm = "spectral",
    factor_dtype: Any = None,
    refresh_every: Interval = DEFAULT_REFRESH,
    consistent_rms: float | None = 0.2,
    matrix_axes: Mapping[str, MatrixAxes | None] | None = None,
    fallback: optax.GradientTransformation | None = None,
    precision: Precision = "highest",
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Structured inverse- and root-free Shampoo in the recipe of ``singd``, without layers.

    Matrix-shaped parameters: ``scale_by_inverse_free_shampoo``, heavy-ball momentum, the update
    scaled to a root mean square as AdamW's is, decoupled weight decay. All other parameters go
    to ``fallback``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      momentum: Decay of the momentum buffer, in [0, 1).
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``.
      structures: Of the factors of (rows, columns), as for ``find_layers``.
      damping: λ, in the units of ``damping_mode``; by default ``damping_schedule()``, which falls
        from 1 to 0.03.
      damping_mode: "relative" to the mean square of the gradient, or "absolute".
      factor_learning_rate: The step on the factors.
      factor_momentum: Momentum of the factors' steps, in [0, 1).
      factor_step_norm: What bounds the factors' steps: "spectral", "max_abs" or None.
      factor_dtype: Of the factors, one or a pair; None for float32.
      refresh_every: Steps between refreshes, an int or a schedule; by default
        ``refresh_schedule()``: 1, growing to 10 over the first 250 steps.
      consistent_rms: Root mean square of each matrix's update before the learning rate; None
        keeps the update's own size.
      matrix_axes: As for ``shampoo``.
      fallback: For parameters that are no matrices; default
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      precision: Of the products on factors.
      seed: Of the random bits with which bfloat16 factors are rounded.

    Returns:
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: A hyper-parameter is out of range.
      TypeError: A hyper-parameter is of another type.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.inverse_free_shampoo(1e-2, structures=("dense", "diagonal"))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
    """
    scale = scale_by_inverse_free_shampoo(
        structures=structures,
        damping=damping,
        damping_mode=damping_mode,
        factor_learning_rate=factor_learning_rate,
        factor_momentum=factor_momentum,
        factor_step_norm=factor_step_norm,
        factor_dtype=factor_dtype,
        refresh_every=refresh_every,
        matrix_axes=matrix_axes,
        precision=precision,
        seed=seed,
    )
    check_number("momentum", momentum, maximum=1, strict_maximum=True, schedule=False)
    parts: list[optax.GradientTransformation] = [scale, optax.trace(momentum)]
    if consistent_rms is not None:
        decay = size_decay(momentum)
        parts.append(scale_by_matrix_rms(consistent_rms, decay=decay, matrix_axes=matrix_axes))
    return _recipe(parts, learning_rate, weight_decay, mask, matrix_axes, fallback)


def _recipe(
    parts: list[optax.GradientTransformation],
    learning_rate: Hyperparameter,
    weight_decay: Hyperparameter,
    mask: Any,
    matrix_axes: Mapping[str, MatrixAxes | None] | None,
    fallback: optax.GradientTransformation | None,
) -> optax.GradientTransformationExtraArgs:
    check_common(learning_rate, weight_decay, mask, fallback)
    parts = [
        *parts,
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    ]
    if fallback is None:
        fallback = optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)
    split = {"matrix": optax.chain(*parts), "fallback": fallback}
    return check_arguments_first(optax.partition(split, _labels(matrix_axes)))


def _labels(matrix_axes: Mapping[str, MatrixAxes | None] | None) -> Callable[[Any], Any]:
    def labels(params: Any) -> Any:
        leaves = Leaves(params)
        specs = matrix_specs(leaves, structures="auto", matrix_axes=matrix_axes)
        return leaves.labelled(dict.fromkeys(specs, "matrix"), "fallback")

    return labels
