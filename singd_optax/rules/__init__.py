"""Rules: per layer, pure; how factors are made, refreshed and applied. No optax."""

from singd_optax.rules._base import (
    DampingMode,
    FactorInit,
    FactorStepNorm,
    Hyperparameter,
    Rule,
    hyperparameter_at,
)
from singd_optax.rules._caspr import CASPR
from singd_optax.rules._gradient_rule import GradientRule, choose
from singd_optax.rules._ikfac import IKFAC
from singd_optax.rules._inverse_free_shampoo import GradientFactorInit, InverseFreeShampoo
from singd_optax.rules._kfac import KFAC, InverseMethod
from singd_optax.rules._roots import RootMethod, inverse_root
from singd_optax.rules._shampoo import Shampoo
from singd_optax.rules._singd import SINGD

__all__ = [
    "CASPR",
    "IKFAC",
    "KFAC",
    "SINGD",
    "DampingMode",
    "FactorInit",
    "FactorStepNorm",
    "GradientFactorInit",
    "GradientRule",
    "Hyperparameter",
    "InverseFreeShampoo",
    "InverseMethod",
    "RootMethod",
    "Rule",
    "Shampoo",
    "choose",
    "hyperparameter_at",
    "inverse_root",
]
