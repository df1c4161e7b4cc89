"""What a Kronecker layer is, and what is measured of it. No optax, no flax modules."""

from singd_optax.layers._check import (
    check_layers,
    check_not_flat,
    check_params,
    check_updates,
    warn_of_unknown,
    whole_layers,
)
from singd_optax.layers._check_form import check_form, differing_form
from singd_optax.layers._check_state import check_factors, describe_factor
from singd_optax.layers._convolution import Convolution
from singd_optax.layers._curvature import Curvature
from singd_optax.layers._exchange import (
    Eigenbases,
    Factors,
    Inverses,
    Statistics,
    whitening_factors,
)
from singd_optax.layers._layers import Layers, OtherParameter
from singd_optax.layers._layout import Layout
from singd_optax.layers._lookup import Lookup
from singd_optax.layers._matrices import (
    MatrixAxes,
    MatrixSpec,
    check_matrix_axes,
    default_matrix_axes,
    matrix_specs,
)
from singd_optax.layers._operation import Operation
from singd_optax.layers._product import Product, parse_product
from singd_optax.layers._rows import layer_statistics
from singd_optax.layers._rule_name import RuleName
from singd_optax.layers._spec import (
    EMBED,
    KFACApprox,
    LayerSpec,
    LossAverage,
    join_path,
    parse_options,
)
from singd_optax.layers._stacking import Stacking
from singd_optax.layers._states import (
    AccumulatedState,
    CurvatureState,
    GradientRuleState,
    as_count,
    curvature_states,
    factors,
    gradient_states,
)
from singd_optax.layers._table import align_columns, format_bytes
from singd_optax.layers._tree import Leaves, is_box, path_name

__all__ = [
    "EMBED",
    "AccumulatedState",
    "Convolution",
    "Curvature",
    "CurvatureState",
    "Eigenbases",
    "Factors",
    "GradientRuleState",
    "Inverses",
    "KFACApprox",
    "LayerSpec",
    "Layers",
    "Layout",
    "Leaves",
    "Lookup",
    "LossAverage",
    "MatrixAxes",
    "MatrixSpec",
    "Operation",
    "OtherParameter",
    "Product",
    "RuleName",
    "Stacking",
    "Statistics",
    "align_columns",
    "as_count",
    "check_factors",
    "check_form",
    "check_layers",
    "check_matrix_axes",
    "check_not_flat",
    "check_params",
    "check_updates",
    "curvature_states",
    "default_matrix_axes",
    "describe_factor",
    "differing_form",
    "factors",
    "format_bytes",
    "gradient_states",
    "is_box",
    "join_path",
    "layer_statistics",
    "matrix_specs",
    "parse_options",
    "parse_product",
    "path_name",
    "warn_of_unknown",
    "whitening_factors",
    "whole_layers",
]
