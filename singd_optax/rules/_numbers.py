"""Hyper-parameters: numbers, or schedules of them."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

#: A number, a traced scalar, or an optax schedule: step -> value.
Hyperparameter = ArrayLike | Callable[[ArrayLike], ArrayLike]

#: A number of steps, or a schedule step -> int.
Interval = ArrayLike | Callable[[ArrayLike], ArrayLike]

#: The units of damping: those of the problem, or those of this layer's statistics.
DampingMode = Literal["absolute", "relative"]


def hyperparameter_at(
    value: Hyperparameter, count: jax.Array, dtype: DTypeLike | None = None
) -> jax.Array:
    """The value of a hyper-parameter at a step.

    Args:
      value: A number, or a schedule step -> number.
      count: The step, int32.
      dtype: The dtype of the result, or None for its own. With 64 bits enabled a schedule may
        return float64, and what is kept in a state must keep its dtype.

    Returns:
      A scalar array.

    >>> float(hyperparameter_at(lambda step: 1 / (1 + step), jnp.int32(3)))
    0.25
    """
    return jnp.asarray(value(count) if callable(value) else value, dtype)
