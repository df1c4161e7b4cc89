"""Conformance kits, for authors of structures and for users with a model.

A structure that passes ``check_structure`` works in every optimizer of the package. A model that
passes ``check_layers`` is measured as what it is: every sum, product and scaling of its layers is
compared with one that was made by hand.
"""

from singd_optax.testing._check_layers import check_layers
from singd_optax.testing._density import check_no_hidden_density, largest_array
from singd_optax.testing._draw import draw_structures
from singd_optax.testing._layer_check import LayerCheck
from singd_optax.testing._structures import StructureCase, check_structure, structure_cases

__all__ = [
    "LayerCheck",
    "StructureCase",
    "check_layers",
    "check_no_hidden_density",
    "check_structure",
    "draw_structures",
    "largest_array",
    "structure_cases",
]
