"""Moving averages that need no correction of their bias when they are read."""

import jax

from singd_optax.rules._numbers import Hyperparameter, hyperparameter_at


def new_weight(rate: Hyperparameter, averaged: jax.Array, count: jax.Array) -> jax.Array:
    """The weight w of a new value in ``average + w (new - average)``.

    With it the average is that of Adam, divided by 1 - (1 - b1)^t, from the first value on, so that
    whatever it started at leaves no trace.

    Args:
      rate: b1, in (0, 1], or a schedule.
      averaged: t - 1, how many values are in the average, (*stack).
      count: Updates made so far, for the schedule.

    >>> import jax.numpy as jnp
    >>> [round(float(new_weight(0.5, jnp.int32(n), jnp.int32(n))), 4) for n in range(3)]
    [1.0, 0.6667, 0.5714]
    """
    own = hyperparameter_at(rate, count)
    return own / (1 - (1 - own) ** (averaged + 1))
