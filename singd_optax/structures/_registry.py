"""The structures of the library: one entry gives a structure its string forms and its tests."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from singd_optax.structures._auto import Auto
from singd_optax.structures._base import Structure
from singd_optax.structures._block_diagonal import BlockDiagonal
from singd_optax.structures._dense import Dense
from singd_optax.structures._diagonal import Diagonal
from singd_optax.structures._hierarchical import Hierarchical
from singd_optax.structures._identity import Identity
from singd_optax.structures._toeplitz import TriangularToeplitz
from singd_optax.structures._triangular_low_rank import TriangularLowRank


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One kind of structure.

    Attributes:
      forms: String form -> structure. N in a form stands for a number, which is an argument.
      aliases: More forms, the names of the reference implementation.
      examples: Instances, small enough that they differ at the dims of the conformance kit.
    """

    forms: dict[str, Callable[..., Structure]]
    aliases: dict[str, Callable[..., Structure]] = dataclasses.field(default_factory=dict)
    examples: tuple[Structure, ...]


def _triangular(
    lower: bool, diagonal: Literal["bottom_right", "top_left"]
) -> Callable[[int], Structure]:
    return lambda rank: TriangularLowRank(rank, lower=lower, diagonal=diagonal)


#: A structure joins the library, the string forms and the tests by one entry here.
STRUCTURES: tuple[Entry, ...] = (
    Entry(forms={"dense": Dense}, examples=(Dense(),)),
    Entry(forms={"diagonal": Diagonal}, examples=(Diagonal(),)),
    Entry(
        forms={"block_diagonal:N": BlockDiagonal},
        aliases={"blockNdiagonal": lambda size: BlockDiagonal(size, balanced=False)},
        examples=(BlockDiagonal(4), BlockDiagonal(4, balanced=False)),
    ),
    Entry(
        forms={"hierarchical:N,N": Hierarchical},
        aliases={"hierarchicalN_N": Hierarchical},
        examples=(Hierarchical(2, 3),),
    ),
    Entry(
        forms={
            "lower_triangular:N": _triangular(True, "bottom_right"),
            "lower_triangular:N,top_left": _triangular(True, "top_left"),
            "upper_triangular:N": _triangular(False, "bottom_right"),
            "upper_triangular:N,top_left": _triangular(False, "top_left"),
        },
        aliases={
            "trilbottomrightdiag": lambda: _triangular(True, "bottom_right")(1),
            "triltopleftdiag": lambda: _triangular(True, "top_left")(1),
            "triubottomrightdiag": lambda: _triangular(False, "bottom_right")(1),
            "triutopleftdiag": lambda: _triangular(False, "top_left")(1),
        },
        examples=(
            TriangularLowRank(3),
            TriangularLowRank(3, diagonal="top_left"),
            TriangularLowRank(3, lower=False),
            TriangularLowRank(3, lower=False, diagonal="top_left"),
        ),
    ),
    Entry(
        forms={
            "lower_toeplitz": TriangularToeplitz,
            "upper_toeplitz": lambda: TriangularToeplitz(lower=False),
        },
        aliases={
            "triltoeplitz": TriangularToeplitz,
            "triutoeplitz": lambda: TriangularToeplitz(lower=False),
        },
        examples=(TriangularToeplitz(), TriangularToeplitz(lower=False)),
    ),
    # No examples: its one matrix stays as it is under sums and multiples.
    Entry(forms={"identity": Identity}, examples=()),
    # No examples: it makes the matrices of other structures.
    Entry(
        forms={"auto": Auto, "auto:N": lambda dim: Auto(max_dense_dim=dim)},
        examples=(),
    ),
)
