"""What a Kronecker layer is, and what is measured of it. No optax, no flax modules."""

from singd_optax.layers._check import (
    check_layers,
    check_not_flat,
    check_params,
    warn_of_unknown,
    whole_layers,
)
from singd_optax.layers._check_state import check_factors, describe_factor
from singd_optax.layers._curvature import Curvature
from singd_optax.layers._exchange import (
    AccumulatedState,
    CurvatureState,
    Factors,
    Statistics,
    curvature_states,
    factors,
)
from singd_optax.layers._layers import Layers, OtherParameter
from singd_optax.layers._rows import layer_statistics
from singd_optax.layers._spec import (
    KFACApprox,
    LayerSpec,
    LossAverage,
    join_path,
    parse_options,
)
from singd_optax.layers._stacking import Stacking
from singd_optax.layers._table import align_columns, format_bytes
from singd_optax.layers._tree import Leaves, path_name

__all__ = [
    "AccumulatedState",
    "Curvature",
    "CurvatureState",
    "Factors",
    "KFACApprox",
    "LayerSpec",
    "Layers",
    "Leaves",
    "LossAverage",
    "OtherParameter",
    "Stacking",
    "Statistics",
    "align_columns",
    "check_factors",
    "check_layers",
    "check_not_flat",
    "check_params",
    "curvature_states",
    "describe_factor",
    "factors",
    "format_bytes",
    "join_path",
    "layer_statistics",
    "parse_options",
    "path_name",
    "warn_of_unknown",
    "whole_layers",
]
