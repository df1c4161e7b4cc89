"""Weights of positions: padding does not count."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from singd_optax._validate import check_weights
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._session import this_thread, weighting


@contextlib.contextmanager
def position_weights(*weights: jax.Array) -> Iterator[None]:
    """Say which positions count (tokens that are no padding, say), for the layers called inside.

    With weights w, the second moment of a layer's inputs is U = Σ w a aᵀ / Σ w, and N (or N S) in
    front of that of its output gradients counts positions with w > 0 (sums w) only, instead of
    all. So padded tokens, or the padding nodes of a batch of graphs, leave no trace.

    Use it inside the loss function, around the model or a part of it; an inner one replaces an
    outer one. Elsewhere it does nothing.

    Args:
      *weights: Arrays of 0 and 1 (or >= 0: how many positions each one counts for), each of the
        shape of the first leading axes of a layer's outputs: (batch,), (batch, tokens), (nodes,).
        Each layer takes the one that fits; with ranks higher than a layer has leading axes, as
        after pooling, an example counts if any of its positions does. Without any, every position
        counts.

    Returns:
      A context manager, for a ``with`` statement.

    Raises:
      TypeError: A weight is no array of numbers.
      ValueError: A weight is negative or not finite. From a layer inside: no weight fits its
        outputs, or several do. Give such a layer a ``position_weights`` of its own.

    Example:
      >>> import flax.linen as nn, singd_optax
      >>> model = nn.Dense(3)
      >>> x, mask = jnp.ones((8, 6, 5)), jnp.arange(6) < jnp.array([[4]] * 8)
      >>> params = model.init(jax.random.key(0), x)
      >>> def loss_fn(params, x, mask):
      ...     with singd_optax.position_weights(mask):
      ...         y = model.apply(params, x)
      ...     return jnp.sum(mask[..., None] * y**2) / jnp.sum(mask)
      >>> len(singd_optax.find_layers(loss_fn, params, x, mask, loss_average="batch+sequence"))
      1
    """
    for weight in weights:
        check_weights("position_weights", weight)
    with weighting(tuple(map(jnp.asarray, weights))):
        yield


def weights_of(
    use: KernelUse, inputs: jax.Array, outputs: jax.Array, layer: str
) -> jax.Array | None:
    """The position weights that are in force for a call of a layer, None if all count alike."""
    arranged = jax.eval_shape(use.operation.arrange, inputs, outputs)
    return current_weights(use.operation.leading(arranged[1]), layer)


def current_weights(leading: tuple[int, ...], layer: str) -> jax.Array | None:
    """The weights of a call with these leading axes of its outputs, or None if all count alike."""
    weights = this_thread.weights
    if not weights:
        return None
    fitting = [w for w in weights if w.shape == leading[: w.ndim]]
    if not fitting:
        fitting = [
            jnp.any(w > 0, axis=tuple(range(len(leading), w.ndim)))
            for w in weights
            if leading and w.shape[: len(leading)] == leading
        ]
    most = max((w.ndim for w in fitting), default=0)
    fitting = [w for w in fitting if w.ndim == most]
    if len(fitting) != 1:
        found = "no weight fits" if not fitting else "several weights fit"
        raise ValueError(
            f"position_weights: {found} the outputs of {layer}, whose leading axes are {leading}; "
            f"the weights have shapes {[w.shape for w in weights]}. Call the layer in a "
            "position_weights(...) of its own; position_weights() without any counts all alike."
        )
    return jax.lax.stop_gradient(fitting[0])
