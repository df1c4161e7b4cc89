"""Structured matrices: square matrices that store, and compute with, what their structure needs.

They know nothing of layers, optax or flax modules.
"""

from singd_optax.structures._auto import Auto
from singd_optax.structures._base import Structure, StructuredMatrix
from singd_optax.structures._block_diagonal import BlockDiagonal, BlockDiagonalMatrix
from singd_optax.structures._columns import Columns
from singd_optax.structures._dense import Dense, DenseMatrix
from singd_optax.structures._diagonal import Diagonal, DiagonalMatrix
from singd_optax.structures._fallback import PerformanceWarning
from singd_optax.structures._hierarchical import Hierarchical, HierarchicalMatrix
from singd_optax.structures._identity import Identity, IdentityMatrix
from singd_optax.structures._numerics import Precision, contract, stochastic_round
from singd_optax.structures._parse import parse_structure, parse_structures
from singd_optax.structures._projection import Projection
from singd_optax.structures._registry import STRUCTURES
from singd_optax.structures._toeplitz import TriangularToeplitz, TriangularToeplitzMatrix
from singd_optax.structures._triangular_low_rank import TriangularLowRank, TriangularLowRankMatrix

__all__ = [
    "STRUCTURES",
    "Auto",
    "BlockDiagonal",
    "BlockDiagonalMatrix",
    "Columns",
    "Dense",
    "DenseMatrix",
    "Diagonal",
    "DiagonalMatrix",
    "Hierarchical",
    "HierarchicalMatrix",
    "Identity",
    "IdentityMatrix",
    "PerformanceWarning",
    "Precision",
    "Projection",
    "Structure",
    "StructuredMatrix",
    "TriangularLowRank",
    "TriangularLowRankMatrix",
    "TriangularToeplitz",
    "TriangularToeplitzMatrix",
    "contract",
    "parse_structure",
    "parse_structures",
    "stochastic_round",
]
