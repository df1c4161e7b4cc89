"""Numbers, intervals, sizes and seeds."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

#: Steps are counted in int32.
_LARGEST_INTERVAL = 2**31 - 1


def concrete_number(value: Any) -> float | None:
    """The value as a float if it is one number that is known now; else None.

    Numbers of Python, scalars of NumPy and JAX. Bools are no numbers; schedules and traced arrays
    are not known.

    >>> concrete_number(np.float32(0.5)), concrete_number(jnp.ones([])), concrete_number(True)
    (0.5, 1.0, None)
    """
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, numbers.Real) or (_is_scalar(value) and is_known(value)):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return None


def _is_scalar(value: Any) -> bool:
    """Whether this is an array of one number, which may be traced."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or getattr(value, "shape", None) != ():
        return False
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer))


def is_known(array: Any) -> bool:
    """Whether an array has values that this process can read."""
    if isinstance(array, np.ndarray | np.generic):
        return True
    if not isinstance(array, jax.Array) or isinstance(array, jax.core.Tracer):
        return False
    return array.is_fully_addressable or array.is_fully_replicated


def _described(value: Any) -> str:
    return f"{value!r} of type {type(value).__name__}"


def check_number(
    name: str,
    value: Any,
    *,
    minimum: float = 0.0,
    strict: bool = False,
    maximum: float = math.inf,
    strict_maximum: bool = False,
    schedule: bool = True,
) -> None:
    """Raise unless ``value`` is a number in the range, a schedule, or a traced scalar.

    Args:
      name: What the user calls it.
      value: A number, an optax schedule (a callable), or a scalar array (which may be traced).
      minimum: The smallest legal value, excluded if ``strict``.
      strict: Whether the minimum is excluded.
      maximum: The largest legal value, excluded if ``strict_maximum``.
      strict_maximum: Whether the maximum is excluded.
      schedule: Whether a callable is legal.

    Raises:
      TypeError: Not a number (nor a schedule, where one is legal).
      ValueError: Out of range or not finite.

    >>> check_number("damping", -1.0)
    Traceback (most recent call last):
    ValueError: `damping` must be a finite number >= 0, got -1.0.
    """
    if callable(value) and schedule:
        return
    legal = f"a finite number {'>' if strict else '>='} {minimum:g}"
    if maximum != math.inf:
        legal += f" and {'<' if strict_maximum else '<='} {maximum:g}"
    number = concrete_number(value)
    if number is None:
        if _is_scalar(value):
            return
        kinds = "a number or an optax schedule" if schedule else "a number"
        raise TypeError(f"`{name}` must be {kinds}, got {_described(value)}.")
    too_small = number < minimum or (strict and number == minimum)
    too_large = number > maximum or (strict_maximum and number == maximum)
    if not math.isfinite(number) or too_small or too_large:
        raise ValueError(f"`{name}` must be {legal}, got {value!r}.")


def check_interval(name: str, value: Any, *, schedule: bool = True) -> None:
    """Raise unless ``value`` is a positive int or, if that is legal, a schedule step -> int.

    A scalar array of integers will do too, traced or not. Steps are counted in 32 bits, which
    bounds the interval.

    >>> check_interval("refresh_every", 0)
    Traceback (most recent call last):
    ValueError: `refresh_every` must be an int >= 1 or a schedule step -> int, got 0.
    """
    if callable(value) and schedule:
        return
    or_schedule = " or a schedule step -> int" if schedule else ""
    message = f"`{name}` must be an int >= 1{or_schedule}, got {value!r}"
    is_int = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_int and not (_is_scalar(value) and jnp.issubdtype(value.dtype, jnp.integer)):
        raise TypeError(f"{message} of type {type(value).__name__}.")
    if not is_int and not is_known(value):
        return
    if int(value) < 1:
        raise ValueError(f"{message}.")
    if int(value) > _LARGEST_INTERVAL:
        raise ValueError(f"{message}: more than 2**31 - 1 steps are never counted.")


def check_size(name: str, value: Any) -> None:
    """Raise unless ``value`` is a positive int.

    >>> check_size("rank", 0)
    Traceback (most recent call last):
    ValueError: `rank` must be an int >= 1, got 0.
    """
    message = f"`{name}` must be an int >= 1, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{message} of type {type(value).__name__}.")
    if value < 1:
        raise ValueError(f"{message}.")


def check_seed(name: str, value: Any) -> None:
    """Raise unless ``value`` seeds a random key: an int, or a scalar array of integers.

    >>> check_seed("seed", -1)
    Traceback (most recent call last):
    ValueError: `seed` must be an int from 0 to 2**32 - 1, got -1.
    """
    message = f"`{name}` must be an int from 0 to 2**32 - 1, got {value!r}"
    is_int = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_int and not (_is_scalar(value) and jnp.issubdtype(value.dtype, jnp.integer)):
        raise TypeError(f"{message} of type {type(value).__name__}.")
    if (is_int or is_known(value)) and not 0 <= int(value) < 2**32:
        raise ValueError(f"{message}.")


def check_weights(name: str, value: Any) -> None:
    """Raise unless ``value`` is an array of numbers that are finite and not negative.

    What is traced has a dtype only, and no values to look at.

    >>> check_weights("weights", np.array([1.0, -1.0]))
    Traceback (most recent call last):
    ValueError: `weights` must be finite and not negative, got values from -1 to 1. ...
    """
    try:
        dtype = None if value is None else jnp.result_type(value)
    except (TypeError, ValueError):
        dtype = None
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    if dtype is None or not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        raise TypeError(f"`{name}` must be an array of numbers or bools, got {_described(value)}.")
    if isinstance(value, jax.Array) and not is_known(value):
        return
    array = np.asarray(value).astype(np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError(
            f"`{name}` must be finite and not negative, got values from {array.min():g} to "
            f"{array.max():g}. Pass 0 for positions that do not count, and 1 for those that do."
        )
