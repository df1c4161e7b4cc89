"""Moving averages that need no correction of their bias when they are read."""

import jax

from singd_optax.rules._numbers import Hyperparameter, hyperparameter_at


def new_weight(rate: Hyperparameter, averaged: jax.Array, count: jax.Array) -> jax.Array:
    """The weight w of a new value in ``average + w (new - average)``, without a bias.

    With this weight the average is what Adam's is after its division by 1 - (1 - b1)^t, from the
    first value on. So the first value takes the place of whatever the average started at.

    Args:
      rate: b1, a number in (0, 1] or a schedule.
      averaged: t - 1, the number of values in the average, for each matrix of a stack, (*stack).
      count: The number of updates made so far, for the schedule.

    Returns:
      w, (*stack).

    >>> import jax.numpy as jnp
    >>> [round(float(new_weight(0.5, jnp.int32(n), jnp.int32(n))), 4) for n in range(3)]
    [1.0, 0.6667, 0.5714]
    """
    own = hyperparameter_at(rate, count)
    return own / (1 - (1 - own) ** (averaged + 1))
