"""Conformance kits, for authors of structures and of rules, and for users with a model.

A rule that passes ``check_rule`` works in ``scale_by_rule`` and in the recipe. A structure that
passes ``check_structure`` works in every optimizer of the package. A model that passes
``check_layers`` is measured as what it is: every sum, product and scaling of its layers is compared
with one that was made by hand.
"""

from singd_optax.testing._check_layers import check_layers
from singd_optax.testing._check_rule import check_rule
from singd_optax.testing._density import check_no_hidden_density, largest_array
from singd_optax.testing._draw import draw_structures
from singd_optax.testing._layer_check import LayerCheck
from singd_optax.testing._rule_problem import Step
from singd_optax.testing._structures import StructureCase, check_structure, structure_cases

__all__ = [
    "LayerCheck",
    "Step",
    "StructureCase",
    "check_layers",
    "check_no_hidden_density",
    "check_rule",
    "check_structure",
    "draw_structures",
    "largest_array",
    "structure_cases",
]
