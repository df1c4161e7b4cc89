"""Names, flags, patterns, masks, and optimizers of others."""

import difflib
import functools
import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def near(value: Any, legal: Iterable[Any]) -> str:
    """A sentence that names the closest of the legal names; empty if none is close.

    >>> near("structure", ["structures", "kfac_approx"])
    " Did you mean 'structures'?"
    """
    if not isinstance(value, str):
        return ""
    names = [name for name in legal if isinstance(name, str)]
    found = difflib.get_close_matches(value, names, 1)
    return f" Did you mean {found[0]!r}?" if found else ""


def check_choice(name: str, value: Any, legal: Iterable[Any]) -> None:
    """Raise unless ``value`` is one of ``legal``.

    >>> check_choice("kfac_approx", "expnd", ("expand", "reduce"))
    Traceback (most recent call last):
    ValueError: `kfac_approx` must be one of 'expand', 'reduce', got 'expnd'. Did you mean 'expand'?
    """
    legal = tuple(legal)
    # Arrays, which have no hash, would be compared entry by entry.
    if type(value).__hash__ is None or value not in legal:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, legal))}, got {value!r}."
            f"{near(value, legal)}"
        )


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


def check_pattern(name: str, value: Any) -> re.Pattern[str]:
    """Raise unless ``value`` is a regular expression; return it compiled.

    >>> check_pattern("pattern", "[")
    Traceback (most recent call last):
    ValueError: `pattern` must be a regular expression, got '[': unterminated character set ...
    """
    if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
        return value
    if not isinstance(value, str):
        raise TypeError(
            f"`{name}` must be a regular expression on a path, such as 'blocks/.*kernel', got "
            f"{value!r} of type {type(value).__name__}."
        )
    try:
        return re.compile(value)
    except re.error as error:
        raise ValueError(
            f"`{name}` must be a regular expression, got {value!r}: {error}. To search for these "
            f"characters as they are, write re.escape({value!r})."
        ) from error


def check_precision(name: str, value: Any) -> None:
    """Raise unless JAX takes ``value`` as the precision of a product.

    >>> check_precision("precision", "hihgest")
    Traceback (most recent call last):
    ValueError: `precision` must be one that jax.numpy.einsum takes, such as None, 'default', ...
    """
    try:
        message = _refused(value)
    except TypeError as error:  # it has no hash
        message = str(error)
    if message:
        raise ValueError(
            f"`{name}` must be one that jax.numpy.einsum takes, such as None, 'default', 'high' "
            f"or 'highest', got {value!r}.{near(value, ('default', 'high', 'highest'))}"
        )


@functools.lru_cache(maxsize=64)
def _refused(precision: Any) -> str:
    """What JAX says against it; empty if nothing."""
    square = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    try:
        jax.eval_shape(lambda a: jnp.einsum("ij,jk->ik", a, a, precision=precision), square)
    except (TypeError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


def check_fallback(name: str, value: Any) -> None:
    """Raise unless ``value`` is None or an optax transformation.

    >>> check_fallback("fallback", dict)
    Traceback (most recent call last):
    TypeError: `fallback` must be None or an optax transformation, such as optax.adamw(1e-3), ...
    """
    if value is None or all(callable(getattr(value, part, None)) for part in ("init", "update")):
        return
    advice = ""
    if callable(value):
        called = getattr(value, "__name__", "fallback")
        advice = f" It was not called: write {called}(learning_rate)."
    raise TypeError(
        f"`{name}` must be None or an optax transformation, such as optax.adamw(1e-3), got "
        f"{value!r} of type {type(value).__name__}.{advice}"
    )


def check_mask(name: str, value: Any) -> None:
    """Raise unless ``value`` is None, a function of parameters, or a tree of True and False.

    >>> check_mask("mask", {"kernel": True, "bias": "no"})
    Traceback (most recent call last):
    TypeError: `mask` must be None, a function of params, or a tree like the params, or a prefix ...
    """
    if value is None or callable(value):
        return
    wrong = [leaf for leaf in jax.tree.leaves(value) if not _is_bool(leaf)]
    if wrong:
        raise TypeError(
            f"`{name}` must be None, a function of params, or a tree like the params, or a prefix "
            f"of it, of True and False; got {wrong[0]!r} of type {type(wrong[0]).__name__} in it. "
            f"For matrices alone write {name}=lambda params: jax.tree.map(lambda p: p.ndim > 1, "
            "params)."
        )


def _is_bool(leaf: Any) -> bool:
    scalar = getattr(leaf, "shape", None) == () and getattr(leaf, "dtype", None) == np.bool_
    return isinstance(leaf, bool) or scalar
