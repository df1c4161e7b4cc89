"""Conformance kits: a structure that passes here works in every optimizer of the package."""

from singd_optax.testing._structures import StructureCase, check_structure, structure_cases

__all__ = ["StructureCase", "check_structure", "structure_cases"]
