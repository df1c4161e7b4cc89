"""Structured matrices: square matrices that store, and compute with, what their structure needs.

They know nothing of layers, optax or flax modules.
"""

from singd_optax.structures._base import Structure, StructuredMatrix
from singd_optax.structures._dense import Dense, DenseMatrix
from singd_optax.structures._diagonal import Diagonal, DiagonalMatrix
from singd_optax.structures._numerics import Precision, contract, stochastic_round
from singd_optax.structures._parse import STRUCTURES, parse_structure, parse_structures

__all__ = [
    "STRUCTURES",
    "Dense",
    "DenseMatrix",
    "Diagonal",
    "DiagonalMatrix",
    "Precision",
    "Structure",
    "StructuredMatrix",
    "contract",
    "parse_structure",
    "parse_structures",
    "stochastic_round",
]
