"""When to refresh."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from singd_optax._validate import check_interval, check_number


def refresh_schedule(
    early_steps: int = 50, *, early: int = 1, late: int = 10
) -> Callable[[Any], jax.Array]:
    """Refresh often at the start, rarely later.

    K = C = I is far from the curvature, so the first steps decide how soon the preconditioner is
    of use; later the curvature drifts slowly.

    Args:
      early_steps: How many steps are early.
      early: The interval between refreshes during these.
      late: The interval afterwards.

    Returns:
      A schedule step -> interval, for ``refresh_every``.

    Raises:
      ValueError: A number is out of range.

    >>> schedule = refresh_schedule(50, late=10)
    >>> int(schedule(49)), int(schedule(50))
    (1, 10)
    """
    check_number("early_steps", early_steps, schedule=False)
    check_interval("early", early)
    check_interval("late", late)

    def schedule(count: Any) -> jax.Array:
        return jnp.where(jnp.asarray(count) < early_steps, early, late)

    return schedule
