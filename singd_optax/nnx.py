"""Flax NNX: the same three steps, with models that hold their own state.

    layers = singd_optax.nnx.find_layers(loss_fn, model, batch)
    optimizer = nnx.Optimizer(model, singd_optax.singd(learning_rate, layers), wrt=nnx.Param)
    grad_fn = singd_optax.nnx.value_and_grad(loss_fn, layers)

Example:
    >>> from flax import nnx
    >>> import jax.numpy as jnp, singd_optax
    >>> model = nnx.Sequential(nnx.Linear(1, 16, rngs=nnx.Rngs(0)), nnx.tanh,
    ...                        nnx.Linear(16, 1, rngs=nnx.Rngs(1)))
    >>> x = jnp.linspace(-1, 1, 32)[:, None]
    >>> loss_fn = lambda model, x: jnp.mean((model(x) - jnp.sin(3 * x)) ** 2)
    >>> layers = singd_optax.nnx.find_layers(loss_fn, model, x)
    >>> optimizer = nnx.Optimizer(model, singd_optax.singd(0.02, layers), wrt=nnx.Param)
    >>> grad_fn = singd_optax.nnx.value_and_grad(loss_fn, layers)
    >>> @nnx.jit
    ... def train_step(model, optimizer, x):
    ...     value, grads, curvature = grad_fn(model, x, optimizer=optimizer)
    ...     optimizer.update(model, grads, curvature=curvature)
    ...     return value
    >>> for _ in range(100):
    ...     value = train_step(model, optimizer, x)
    >>> bool(value < 0.02)
    True
"""

from singd_optax.capture import nnx_find_layers as find_layers
from singd_optax.capture import nnx_plain_params as plain_params
from singd_optax.capture import nnx_value_and_grad as value_and_grad

__all__ = ["find_layers", "plain_params", "value_and_grad"]
