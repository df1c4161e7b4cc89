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

#: In which units damping is: those of the problem, or those of this layer's statistics.
DampingMode = Literal["absolute", "relative"]


def hyperparameter_at(
    value: Hyperparameter, count: jax.Array, dtype: DTypeLike | None = None
) -> jax.Array:
    """The value of a hyper-parameter at a step.

    Args:
      value: A number or a schedule.
      count: The step.
      dtype: Of the result: with 64 bits enabled a schedule may return float64, and what is kept
        in a state must keep its dtype.
    """
    return jnp.asarray(value(count) if callable(value) else value, dtype)
