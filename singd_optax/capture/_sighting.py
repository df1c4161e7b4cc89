"""What is seen of a use of parameters while layers are found."""

import dataclasses

from singd_optax.capture._use import Use


@dataclasses.dataclass(frozen=True)
class Sighting:
    """One call that uses parameters.

    Attributes:
      index: Of the group of parameters: those in one mapping.
      removed: Axes that lifted transforms took off before the call.
      seen_shape: The shape of one of the arrays inside the call.
      caller: Who called, for people: a module's class, or ``tag``.
      use: How the call used its kernel, or the reason why it is no Kronecker layer.
      array: The name of the array whose shape was seen; None for the group's representative.
    """

    index: int
    removed: tuple[int, ...]
    seen_shape: tuple[int, ...]
    caller: str
    use: Use | str
    array: str | None = None

    @property
    def tagged(self) -> bool:
        """Whether the user's own code said so."""
        return self.array is not None
