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
from singd_optax.layers._exchange import Eigenbases, Factors, Inverses, Statistics
from singd_optax.layers._explicit import gathered, laid_out_like, partitions_of
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
from singd_optax.layers._placed import (
    gradient_from_factors,
    gradient_to_factors,
    placed_factors,
    placed_memory,
    whitened,
    whitens_late,
)
from singd_optax.layers._placement import (
    Placement,
    constrained,
    constrained_moments,
    constrained_parameters,
    fitting,
    partitions,
)
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
    "Placement",
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
    "constrained",
    "constrained_moments",
    "constrained_parameters",
    "curvature_states",
    "default_matrix_axes",
    "describe_factor",
    "differing_form",
    "factors",
    "fitting",
    "format_bytes",
    "gathered",
    "gradient_from_factors",
    "gradient_states",
    "gradient_to_factors",
    "is_box",
    "join_path",
    "laid_out_like",
    "layer_statistics",
    "matrix_specs",
    "parse_options",
    "parse_product",
    "partitions",
    "partitions_of",
    "path_name",
    "placed_factors",
    "placed_memory",
    "warn_of_unknown",
    "whitened",
    "whitens_late",
    "whole_layers",
]
