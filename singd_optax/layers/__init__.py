"""What a Kronecker layer is, and what is measured of it. No optax, no flax modules."""

from singd_optax.layers._check import check_layers, check_params
from singd_optax.layers._exchange import (
    CurvatureState,
    Factors,
    Statistics,
    curvature_states,
    factors,
)
from singd_optax.layers._layers import Layers, OtherParameter
from singd_optax.layers._matrices import (
    MatrixAxes,
    MatrixSpec,
    check_matrix_axes,
    default_matrix_axes,
    matrix_specs,
)
from singd_optax.layers._rows import layer_statistics
from singd_optax.layers._spec import (
    KFACApprox,
    LayerSpec,
    LossAverage,
    join_path,
    parse_options,
)
from singd_optax.layers._stacking import Stacking
from singd_optax.layers._tree import Leaves, path_name

__all__ = [
    "CurvatureState",
    "Factors",
    "KFACApprox",
    "LayerSpec",
    "Layers",
    "Leaves",
    "LossAverage",
    "MatrixAxes",
    "MatrixSpec",
    "OtherParameter",
    "Stacking",
    "Statistics",
    "check_layers",
    "check_matrix_axes",
    "check_params",
    "curvature_states",
    "default_matrix_axes",
    "factors",
    "join_path",
    "layer_statistics",
    "matrix_specs",
    "parse_options",
    "path_name",
]
