"""The optax face of the rules."""

from singd_optax.layers import GradientRuleState
from singd_optax.transforms._caspr import scale_by_caspr
from singd_optax.transforms._curvature import scale_by_curvature
from singd_optax.transforms._first import check_arguments_first
from singd_optax.transforms._gradient_rule import scale_by_gradient_rule
from singd_optax.transforms._grafting import Grafting
from singd_optax.transforms._interval import Interval
from singd_optax.transforms._inverse_free_shampoo import scale_by_inverse_free_shampoo
from singd_optax.transforms._kfac import scale_by_kfac
from singd_optax.transforms._kl_clip import KLClip
from singd_optax.transforms._matrix_rms import MatrixRMSState, scale_by_matrix_rms
from singd_optax.transforms._rms import ConsistentRMSState, scale_by_consistent_rms
from singd_optax.transforms._scale_by import scale_by_ikfac, scale_by_singd
from singd_optax.transforms._schedules import damping_schedule, refresh_schedule
from singd_optax.transforms._shampoo import scale_by_shampoo

__all__ = [
    "ConsistentRMSState",
    "GradientRuleState",
    "Grafting",
    "Interval",
    "KLClip",
    "MatrixRMSState",
    "check_arguments_first",
    "damping_schedule",
    "refresh_schedule",
    "scale_by_caspr",
    "scale_by_consistent_rms",
    "scale_by_curvature",
    "scale_by_gradient_rule",
    "scale_by_ikfac",
    "scale_by_inverse_free_shampoo",
    "scale_by_kfac",
    "scale_by_matrix_rms",
    "scale_by_shampoo",
    "scale_by_singd",
]
