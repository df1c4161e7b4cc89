"""From strings to structures."""

import difflib
import re
from collections.abc import Callable

from singd_optax.structures._base import Structure
from singd_optax.structures._registry import STRUCTURES

_NUMBER = re.compile(r"\d+")


def parse_structure(structure: str | Structure) -> Structure:
    """Make a structure from its name; a structure is handed back as it is.

    ============================================  ====================================
    string                                        structure
    ============================================  ====================================
    ``"dense"``, ``"diagonal"``, ``"identity"``   ``Dense()``, ``Diagonal()``, ``Identity()``
    ``"block_diagonal:32"``                       ``BlockDiagonal(32)``
    ``"hierarchical:15,15"``                      ``Hierarchical(15, 15)``
    ``"lower_triangular:4"``                      ``TriangularLowRank(4)``
    ``"upper_triangular:4,top_left"``             ``TriangularLowRank(4, lower=False,
                                                  diagonal="top_left")``
    ``"lower_toeplitz"``, ``"upper_toeplitz"``    ``TriangularToeplitz(lower=...)``
    ``"auto"``, ``"auto:512"``                    ``Auto()``, ``Auto(max_dense_dim=512)``
    ============================================  ====================================

    The names of the PyTorch package ``singd`` are understood too: ``"block30diagonal"`` (for
    ``BlockDiagonal(30, balanced=False)``, with that package's rule for sizes of blocks) and
    ``"hierarchical15_15"`` with any numbers, ``"triltoeplitz"``, ``"triutoeplitz"``, and, with
    rank 1, ``"trilbottomrightdiag"``, ``"triltopleftdiag"``, ``"triubottomrightdiag"`` and
    ``"triutopleftdiag"``.

    Args:
      structure: A name as above, or a ``Structure``.

    Returns:
      The structure.

    Raises:
      ValueError: The name is unknown, or a number in it is not legal.
      TypeError: Neither a string nor a structure was given.

    >>> parse_structure("hierarchical:15,15")
    Hierarchical(k1=15, k2=15)
    >>> parse_structure("blockdiagonal:32")
    Traceback (most recent call last):
    ValueError: Unknown structure 'blockdiagonal:32'. Did you mean 'block_diagonal:32'? Legal, ...
    """
    if isinstance(structure, Structure):
        return structure
    if not isinstance(structure, str):
        raise TypeError(
            "A structure must be a string or a singd_optax.structures.Structure, got "
            f"{structure!r} of type {type(structure).__name__}. {_legal()}"
        )
    numbers = _NUMBER.findall(structure)
    constructor = _constructors().get(_NUMBER.sub("N", structure))
    if constructor is None or "N" in structure:
        raise ValueError(f"Unknown structure {structure!r}. {_suggestion(structure)}{_legal()}")
    return constructor(*map(int, numbers))


def parse_structures(
    pair: str | Structure | tuple[str | Structure, ...],
) -> tuple[Structure, Structure]:
    """The structures of the two factors (K, C) of a layer, from a pair or from one for both.

    Args:
      pair: (The structure of K, the input side; that of C, the output side), or one for both, each
        a name or a ``Structure``, as ``parse_structure`` takes.

    Returns:
      The two structures.

    Raises:
      ValueError: It is no pair, a name is unknown, or a number in it is not legal.
      TypeError: A part of it is neither a string nor a structure.

    >>> parse_structures(("dense", "diagonal"))
    (Dense(), Diagonal())
    """
    if isinstance(pair, str | Structure):
        pair = (pair, pair)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(
            "`structures` must be one structure for both factors, or a pair (that of K, the input "
            f"side; that of C, the output side), got {pair!r}. Write for example "
            "structures=('dense', 'diagonal')."
        )
    return parse_structure(pair[0]), parse_structure(pair[1])


def _constructors() -> dict[str, Callable[..., Structure]]:
    return {
        form: make for entry in STRUCTURES for form, make in (entry.forms | entry.aliases).items()
    }


def _legal() -> str:
    forms = [repr(form) for entry in STRUCTURES for form in entry.forms]
    aliases = [repr(alias) for entry in STRUCTURES for alias in entry.aliases]
    return (
        f"Legal, with a number for each N: {', '.join(forms)}; the reference's names "
        f"{', '.join(aliases)}; or an instance of singd_optax.structures.Structure, as in Dense()."
    )


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(_NUMBER.sub("N", name), _constructors(), n=1, cutoff=0.5)
    if not close:
        return ""
    numbers = iter(_NUMBER.findall(name))
    filled = re.sub("N", lambda _: next(numbers, "N"), close[0])
    return "" if filled == name else f"Did you mean {filled!r}? "
