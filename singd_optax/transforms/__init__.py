"""Rules as optax transformations: ``scale_by_rule``, the sizes of updates, and schedules.

Words: a *size* is what sets the length of updates (``UpdateRMS``, ``KLClip``, ``Grafting``).
"""

from singd_optax.layers import RuleState
from singd_optax.transforms._curvature_product import curvature_product
from singd_optax.transforms._grafting import Grafting
from singd_optax.transforms._hybrid import HybridState, hybrid
from singd_optax.transforms._kld_correction import KLDCorrectionState, kld_correction
from singd_optax.transforms._levenberg_marquardt import (
    LevenbergMarquardtState,
    levenberg_marquardt,
)
from singd_optax.transforms._sample_weights import sample_weights
from singd_optax.transforms._scale_by_rule import scale_by_rule
from singd_optax.transforms._schedules import damping_schedule, refresh_schedule
from singd_optax.transforms._sizes import KLClip, Size, UpdateRMS

__all__ = [
    "Grafting",
    "HybridState",
    "KLClip",
    "KLDCorrectionState",
    "LevenbergMarquardtState",
    "RuleState",
    "Size",
    "UpdateRMS",
    "curvature_product",
    "damping_schedule",
    "hybrid",
    "kld_correction",
    "levenberg_marquardt",
    "refresh_schedule",
    "sample_weights",
    "scale_by_rule",
]
