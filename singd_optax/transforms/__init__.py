"""The optax face of the rules."""

from singd_optax.transforms._curvature import Interval, scale_by_curvature
from singd_optax.transforms._kfac import scale_by_kfac
from singd_optax.transforms._kl_clip import KLClip
from singd_optax.transforms._rms import scale_by_consistent_rms
from singd_optax.transforms._scale_by import scale_by_ikfac, scale_by_singd
from singd_optax.transforms._schedules import refresh_schedule

__all__ = [
    "Interval",
    "KLClip",
    "refresh_schedule",
    "scale_by_consistent_rms",
    "scale_by_curvature",
    "scale_by_ikfac",
    "scale_by_kfac",
    "scale_by_singd",
]
