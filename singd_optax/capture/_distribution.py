"""What a model predicts is a distribution, whose samples make its Fisher information."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from singd_optax._validate import check_choice, check_number
from singd_optax.capture._session import heard, this_thread
from singd_optax.capture._weights import current_weights

DistributionName = Literal["categorical", "bernoulli", "gaussian"]
DISTRIBUTIONS: tuple[DistributionName, ...] = ("categorical", "bernoulli", "gaussian")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Outputs that parametrize a distribution, (batch, shared positions, parameters).

    Attributes:
      outputs: The parameters: logits, or means.
      name: Which distribution.
      standard_deviation: The standard deviation of a Gaussian.
      weights: The position weights in force, or None.
    """

    outputs: jax.Array
    name: DistributionName
    standard_deviation: float
    weights: jax.Array | None

    @property
    def positions(self) -> int:
        """Shared positions of an example."""
        return math.prod(self.outputs.shape[1:-1])

    @property
    def columns(self) -> int:
        """How many columns the root of the Hessian of one example's loss has."""
        return self.positions * (self.outputs.shape[-1] if self.outputs.ndim > 1 else 1)

    def sampled_gradient(self, key: jax.Array, loss_average: str | None) -> jax.Array:
        """The gradient of the loss with respect to the outputs, at labels drawn from the model."""
        z = self._wide()
        if self.name == "categorical":
            labels = jax.random.categorical(key, z, axis=-1)
            gradient = jax.nn.softmax(z) - jax.nn.one_hot(labels, z.shape[-1], dtype=z.dtype)
        elif self.name == "bernoulli":
            p = jax.nn.sigmoid(z)
            gradient = p - jax.random.bernoulli(key, p).astype(z.dtype)
        else:
            gradient = jax.random.normal(key, z.shape, z.dtype) / self.standard_deviation
        return self._averaged(gradient, loss_average)

    def hessian_column(self, index: jax.Array, loss_average: str | None) -> jax.Array:
        """Column ``index`` of R with R Rᵀ the Hessian of each example's loss in the outputs."""
        z = self._wide()
        flat = z.reshape(z.shape[0], -1, z.shape[-1] if z.ndim > 1 else 1)
        position, parameter = index // flat.shape[-1], index % flat.shape[-1]
        chosen = jax.nn.one_hot(parameter, flat.shape[-1], dtype=z.dtype)
        if self.name == "categorical":
            p = jax.nn.softmax(flat)
            column = jnp.sqrt(p @ chosen)[..., None] * (chosen - p)
        elif self.name == "bernoulli":
            p = jax.nn.sigmoid(flat)
            column = jnp.sqrt(p * (1 - p)) * chosen
        else:
            column = jnp.broadcast_to(chosen / self.standard_deviation, flat.shape)
        here = jax.nn.one_hot(position, flat.shape[1], dtype=z.dtype)
        return self._averaged((column * here[:, None]).reshape(z.shape), loss_average)

    def terms(self, loss_average: str | None) -> jax.Array:
        """Over how many terms the loss is a mean; 1 for a sum."""
        return self._count(self._weights(self._wide().dtype), loss_average)

    def _weights(self, dtype: jnp.dtype) -> jax.Array:
        """(batch, shared positions), ones without weights."""
        shape = self.outputs.shape
        leading = shape[:-1] if len(shape) > 1 else shape
        weights = jnp.ones(leading[:1], dtype) if self.weights is None else self.weights
        weights = weights.reshape(weights.shape + (1,) * (len(leading) - weights.ndim))
        return jnp.broadcast_to(weights, leading).astype(dtype)

    def _count(self, weights: jax.Array, loss_average: str | None) -> jax.Array:
        examples = jnp.any(weights > 0, axis=tuple(range(1, weights.ndim))).sum()
        one = jnp.ones((), weights.dtype)
        counts = {"batch": examples, "batch+sequence": weights.sum(), None: one}
        return jnp.maximum(counts[loss_average], one)

    def _wide(self) -> jax.Array:
        return self.outputs.astype(jnp.promote_types(jnp.float32, self.outputs.dtype))

    def _averaged(self, gradient: jax.Array, loss_average: str | None) -> jax.Array:
        """As the mean that the loss is: over examples, over positions too, or a sum."""
        weights = self._weights(gradient.dtype)
        count = self._count(weights, loss_average)
        leading = weights.shape
        roots = jnp.sqrt(weights).reshape(leading + (1,) * (gradient.ndim - len(leading)))
        return (gradient * roots / count).astype(self.outputs.dtype)


def tag_distribution(
    outputs: jax.Array,
    distribution: DistributionName = "categorical",
    *,
    standard_deviation: float = 1.0,
) -> jax.Array:
    """Say inside a loss function what distribution the model's outputs stand for.

    ``value_and_grad(..., fisher="mc")`` and ``fisher="ggn"``, which make curvature of what the
    model predicts and not of the labels, need to know; otherwise this does nothing. The loss must
    be the negative log-likelihood of this distribution (up to a constant), averaged as the layers'
    ``loss_average`` says. Inside of an inner ``jax.jit`` or ``jax.checkpoint`` it works as well,
    for one more forward pass on refresh steps; inside ``jax.lax.scan`` and ``jax.vmap`` it would
    draw the same labels in each step, and is refused.

    Args:
      outputs: The parameters of the distribution, (batch, shared positions, parameters), where
        there may be any number of axes of positions (tokens, pixels). Use what is returned in their
        place.
      distribution: ``"categorical"`` (outputs are logits, softmax cross-entropy), ``"bernoulli"``
        (logits, sigmoid cross-entropy summed over the last axis) or ``"gaussian"`` (means, the
        squared error over 2 σ², summed over the last axis).
      standard_deviation: The standard deviation σ of ``"gaussian"``, > 0: 1 (the default) for half
        the squared error, 1/√2 for the whole.

    Returns:
      The ``outputs``, unchanged.

    Raises:
      ValueError: The distribution is unknown, or σ is not positive.
      TypeError: σ is not a number.

    >>> logits = tag_distribution(jnp.zeros((8, 10)), "categorical")
    """
    check_choice("distribution", distribution, DISTRIBUTIONS)
    check_number("standard_deviation", standard_deviation, strict=True, schedule=False)
    listener = this_thread.prediction_listener
    if listener is not None:
        heard()
        leading = outputs.shape[:-1] if outputs.ndim > 1 else outputs.shape
        weights = current_weights(leading, "tag_distribution")
        prediction = Prediction(outputs, distribution, standard_deviation, weights)
        replaced = listener(prediction)
        return outputs if replaced is None else replaced
    return outputs
