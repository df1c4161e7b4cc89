"""From strings to structures."""

from collections.abc import Callable

from singd_optax.structures._base import Structure
from singd_optax.structures._dense import Dense
from singd_optax.structures._diagonal import Diagonal

#: Name -> constructor from the text behind the colon. A structure joins the library, its string
#: forms and its conformance tests by one line here.
STRUCTURES: dict[str, Callable[[], Structure]] = {"dense": Dense, "diagonal": Diagonal}


def parse_structure(structure: str | Structure) -> Structure:
    """A structure from its name; a structure is handed back as it is.

    Args:
      structure: ``"dense"``, ``"diagonal"``, or a ``Structure``.

    Returns:
      The structure.

    Raises:
      ValueError: The name is unknown.
      TypeError: Neither a string nor a structure was given.

    >>> parse_structure("diagonal")
    Diagonal()
    """
    if isinstance(structure, Structure):
        return structure
    if not isinstance(structure, str):
        raise TypeError(
            f"A structure is a string or a singd_optax.structures.Structure, got {structure!r} of "
            f"type {type(structure).__name__}. Give one of {sorted(STRUCTURES)}, or Dense()."
        )
    if structure not in STRUCTURES:
        raise ValueError(
            f"Unknown structure {structure!r}. Legal: {', '.join(map(repr, sorted(STRUCTURES)))}, "
            "or an instance of singd_optax.structures.Structure."
        )
    return STRUCTURES[structure]()


def parse_structures(
    pair: str | Structure | tuple[str | Structure, ...],
) -> tuple[Structure, Structure]:
    """The structures of (K, C) from a pair, or from one for both.

    >>> parse_structures(("dense", "diagonal"))
    (Dense(), Diagonal())
    """
    if isinstance(pair, str | Structure):
        pair = (pair, pair)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(
            f"`structures` is a pair (of K, the input side; of C, the output side), got {pair!r}. "
            "Write for example structures=('dense', 'diagonal')."
        )
    return parse_structure(pair[0]), parse_structure(pair[1])
