"""What a Kronecker layer is, and what is measured of it. No optax, no flax modules."""

from singd_optax.layers._check import (
    check_layers,
    check_not_flat,
    check_params,
    warn_of_unknown,
    whole_layers,
)
from singd_optax.layers._check_state import check_factors, describe_factor
from singd_optax.layers._convolution import Convolution
from singd_optax.layers._curvature import Curvature
from singd_optax.layers._exchange import (
    AccumulatedState,
    CurvatureState,
    Eigenbases,
    Factors,
    Inverses,
    Statistics,
    curvature_states,
    factors,
)
from singd_optax.layers._layers import Layers, OtherParameter
from singd_optax.layers._layout import Layout
from singd_optax.layers._lookup import Lookup
from singd_optax.layers._operation import Operation
from singd_optax.layers._product import Product, parse_product
from singd_optax.layers._rows import layer_statistics
from singd_optax.layers._spec import (
    EMBED,
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
    "EMBED",
    "AccumulatedState",
    "Convolution",
    "Curvature",
    "CurvatureState",
    "Eigenbases",
    "Factors",
    "Inverses",
    "KFACApprox",
    "LayerSpec",
    "Layers",
    "Layout",
    "Leaves",
    "Lookup",
    "LossAverage",
    "Operation",
    "OtherParameter",
    "Product",
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
    "parse_product",
    "path_name",
    "warn_of_unknown",
    "whole_layers",
]
