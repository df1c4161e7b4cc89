"""Checks of what users pass, made before anything is traced."""

from singd_optax._validate._choices import (
    check_choice,
    check_fallback,
    check_flag,
    check_mask,
    check_pattern,
    check_precision,
    near,
)
from singd_optax._validate._numbers import (
    check_interval,
    check_number,
    check_seed,
    check_size,
    check_weights,
    concrete_number,
    is_known,
)

__all__ = [
    "check_choice",
    "check_fallback",
    "check_flag",
    "check_interval",
    "check_mask",
    "check_number",
    "check_pattern",
    "check_precision",
    "check_seed",
    "check_size",
    "check_weights",
    "concrete_number",
    "is_known",
    "near",
]
