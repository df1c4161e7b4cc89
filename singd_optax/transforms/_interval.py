"""When refreshes are due."""

import jax
import jax.numpy as jnp

from singd_optax._validate import check_interval
from singd_optax.rules import Interval


def is_due(interval: Interval, count: jax.Array) -> jax.Array:
    """Whether a refresh is due after this many updates.

    Args:
      interval: The steps between refreshes, an int >= 1, or a schedule step -> int.
      count: Updates made so far.

    Raises:
      ValueError: A schedule returned a number below 1.
      TypeError: A schedule returned something else than one integer.

    >>> [int(is_due(3, jnp.int32(count))) for count in range(5)]
    [1, 0, 0, 1, 0]
    """
    return count % interval_at(interval, count) == 0


def interval_at(interval: Interval, count: jax.Array) -> jax.Array:
    """The steps between refreshes after this many updates.

    What a schedule returns is checked where it is known; where it is traced, it counts as at least
    1: one below would be a division by zero, which is silent.

    Args:
      interval: As in ``is_due``.
      count: Updates made so far.

    Raises:
      ValueError: A schedule returned a number below 1.
      TypeError: A schedule returned something else than one integer.
    """
    if callable(interval):
        value = interval(count)
        _check_returned(value)
    else:
        value = interval
    return jnp.maximum(jnp.asarray(value, count.dtype), 1)


def _check_returned(value: object) -> None:
    name = "refresh_every(step)"
    dtype = getattr(value, "dtype", None)
    if isinstance(value, float) or (dtype is not None and jnp.issubdtype(dtype, jnp.floating)):
        raise TypeError(
            f"`{name}` must be an int >= 1, got {value!r}. A schedule of optax returns floats: "
            "round it, as in lambda step: jnp.round(schedule(step)).astype(int)."
        )
    check_interval(name, value, schedule=False)
