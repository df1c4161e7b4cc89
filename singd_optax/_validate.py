"""Checks of what users pass, made before anything is traced."""

import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def concrete_number(value: Any) -> float | None:
    """The value as a float if it is a concrete number; None for schedules and traced arrays."""
    if isinstance(value, numbers.Real | np.ndarray):
        return float(value)
    return None


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
      value: A number, an optax schedule (a callable), or an array (which may be traced).
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
        if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
            return
        kinds = "a number or an optax schedule" if schedule else "a number"
        raise TypeError(f"`{name}` must be {kinds}, got {value!r} of type {type(value).__name__}.")
    too_small = number < minimum or (strict and number == minimum)
    too_large = number > maximum or (strict_maximum and number == maximum)
    if not math.isfinite(number) or too_small or too_large:
        raise ValueError(f"`{name}` must be {legal}, got {value!r}.")


def check_interval(name: str, value: int | Callable[[Any], Any]) -> None:
    """Raise unless ``value`` is a positive int or a schedule step -> int.

    >>> check_interval("refresh_every", 0)
    Traceback (most recent call last):
    ValueError: `refresh_every` must be an int >= 1 or a schedule step -> int, got 0.
    """
    if callable(value) or hasattr(value, "dtype"):
        return
    message = f"`{name}` must be an int >= 1 or a schedule step -> int, got {value!r}."
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(message)
    if value < 1:
        raise ValueError(message)


def check_choice(name: str, value: Any, legal: Iterable[Any]) -> None:
    """Raise unless ``value`` is one of ``legal``.

    >>> check_choice("kfac_approx", "expnd", ("expand", "reduce"))
    Traceback (most recent call last):
    ValueError: `kfac_approx` must be one of 'expand', 'reduce', got 'expnd'.
    """
    legal = tuple(legal)
    if value not in legal:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, legal))}, got {value!r}.")


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


def check_flag(name: str, value: Any) -> None:
    """Raise unless ``value`` is True or False.

    >>> check_flag("lower", "yes")
    Traceback (most recent call last):
    TypeError: `lower` must be True or False, got 'yes' of type str.
    """
    if not isinstance(value, bool):
        raise TypeError(
            f"`{name}` must be True or False, got {value!r} of type {type(value).__name__}."
        )
