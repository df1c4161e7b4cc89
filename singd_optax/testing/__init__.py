"""Conformance kits: a structure that passes here works in every optimizer of the package."""

from singd_optax.testing._density import check_no_hidden_density, largest_array
from singd_optax.testing._draw import draw_structures
from singd_optax.testing._structures import StructureCase, check_structure, structure_cases

__all__ = [
    "StructureCase",
    "check_no_hidden_density",
    "check_structure",
    "draw_structures",
    "largest_array",
    "structure_cases",
]
