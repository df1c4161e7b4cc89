"""What a Kronecker layer is, and what is measured of it. No optax, no flax modules."""

from singd_optax.layers._check import check_layers, check_params
from singd_optax.layers._convolution import Convolution
from singd_optax.layers._exchange import (
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
from singd_optax.layers._tree import Leaves, path_name

__all__ = [
    "EMBED",
    "Convolution",
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
    "check_layers",
    "check_params",
    "curvature_states",
    "factors",
    "join_path",
    "layer_statistics",
    "parse_options",
    "parse_product",
    "path_name",
]
