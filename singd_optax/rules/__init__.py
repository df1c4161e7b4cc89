"""Rules: per layer, pure; how factors are made, refreshed and applied. No optax."""

from singd_optax.rules._base import (
    DampingMode,
    FactorStepNorm,
    Hyperparameter,
    Rule,
    hyperparameter_at,
)
from singd_optax.rules._ikfac import IKFAC
from singd_optax.rules._kfac import KFAC, InverseMethod
from singd_optax.rules._singd import SINGD

__all__ = [
    "IKFAC",
    "KFAC",
    "SINGD",
    "DampingMode",
    "FactorStepNorm",
    "Hyperparameter",
    "InverseMethod",
    "Rule",
    "hyperparameter_at",
]
