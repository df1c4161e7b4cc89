"""What a Kronecker layer is, and what is measured of it. No optax, no flax modules."""

from singd_optax.layers._check import (
    check_layers,
    check_params,
    check_updates,
    warn_of_unknown,
    whole_layers,
)
from singd_optax.layers._check_form import check_form, differing_form
from singd_optax.layers._check_state import check_factors, describe_factor
from singd_optax.layers._convolution import Convolution
from singd_optax.layers._find_matrices import find_matrices
from singd_optax.layers._layers import Layers, OtherParameter
from singd_optax.layers._layout import Layout
from singd_optax.layers._lookup import Lookup
from singd_optax.layers._matrices import MatrixSpec, matrix_specs
from singd_optax.layers._matrix_axes import MatrixAxes, Merged, Tiles, check_matrix_axes
from singd_optax.layers._operation import Operation
from singd_optax.layers._product import Product, parse_product
from singd_optax.layers._roles import Role, multiplying_sides, role_of_factors, roles_of, sides_of
from singd_optax.layers._rule_tag import RuleTag
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
    Factors,
    RuleState,
    as_count,
    factors,
    factors_of,
    measured_states,
    rule_states,
)
from singd_optax.layers._table import align_columns, format_bytes
from singd_optax.layers._tree import Leaves, check_not_flat, is_box, path_name
from singd_optax.layers._view import MatrixView

__all__ = [
    "EMBED",
    "AccumulatedState",
    "Convolution",
    "Factors",
    "KFACApprox",
    "LayerSpec",
    "Layers",
    "Layout",
    "Leaves",
    "Lookup",
    "LossAverage",
    "MatrixAxes",
    "MatrixSpec",
    "MatrixView",
    "Merged",
    "Operation",
    "OtherParameter",
    "Product",
    "Role",
    "RuleState",
    "RuleTag",
    "Stacking",
    "Tiles",
    "align_columns",
    "as_count",
    "check_factors",
    "check_form",
    "check_layers",
    "check_matrix_axes",
    "check_not_flat",
    "check_params",
    "check_updates",
    "describe_factor",
    "differing_form",
    "factors",
    "factors_of",
    "find_matrices",
    "format_bytes",
    "is_box",
    "join_path",
    "matrix_specs",
    "measured_states",
    "multiplying_sides",
    "parse_options",
    "parse_product",
    "path_name",
    "role_of_factors",
    "roles_of",
    "rule_states",
    "sides_of",
    "warn_of_unknown",
    "whole_layers",
]
