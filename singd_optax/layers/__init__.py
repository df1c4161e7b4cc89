"""What a Kronecker layer is: one kernel, and how its numbers make a matrix. No optax, no meshes.

Words: a *layer* is a kernel with its bias, or one array of two axes; a *stack* is a kernel of
several layers; its *spec* says all of it, static; a *view* is what a rule sees of a spec. *Layers*
are all specs of a model. *Factors* are the pair (K, C) that multiplies gradients; a rule's *state*
has them in fields with *roles*. What is not exported here is imported from its file.
"""

from singd_optax.layers._find_matrices import find_matrices
from singd_optax.layers._layers import Layers, OtherParameter
from singd_optax.layers._layout import Layout
from singd_optax.layers._matrices import MatrixSpec
from singd_optax.layers._matrix_axes import EMBEDDINGS, MatrixAxes, Merged, Tiles, UpTo
from singd_optax.layers._roles import Role
from singd_optax.layers._spec import KFACApprox, LayerSpec, LossAverage
from singd_optax.layers._stacking import Stacking
from singd_optax.layers._states import (
    Factors,
    RuleState,
    factors,
    measured_states,
    refresh_due,
    rule_states,
)
from singd_optax.layers._view import MatrixView
from singd_optax.layers._window import Window

__all__ = [
    "EMBEDDINGS",
    "Factors",
    "KFACApprox",
    "LayerSpec",
    "Layers",
    "Layout",
    "LossAverage",
    "MatrixAxes",
    "MatrixSpec",
    "MatrixView",
    "Merged",
    "OtherParameter",
    "Role",
    "RuleState",
    "Stacking",
    "Tiles",
    "UpTo",
    "Window",
    "factors",
    "find_matrices",
    "measured_states",
    "refresh_due",
    "rule_states",
]
