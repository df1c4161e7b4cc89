"""Which of three options sets the size."""

from singd_optax._validate import concrete_number
from singd_optax.rules import Hyperparameter
from singd_optax.transforms._grafting import GraftedStep, Grafting
from singd_optax.transforms._sizes import KLClip, Size, UpdateRMS


def size_of(
    update_rms: float | None,
    kl_clip: Hyperparameter | KLClip | None,
    grafting: GraftedStep | None,
    momentum: Hyperparameter,
) -> Size | None:
    """The size that options ask for.

    Args:
      update_rms: A root mean square, or None.
      kl_clip: A bound, or None.
      grafting: An optimizer, or None.
      momentum: The decay of the momentum, by which that of the running size goes.

    Raises:
      ValueError: Two of them are given, or one is out of range.
      TypeError: One is of another type.
    """
    options = {"update_rms": update_rms, "kl_clip": kl_clip, "grafting": grafting}
    given = {name: value for name, value in options.items() if value is not None}
    if len(given) > 1:
        names = " and ".join(f"`{name}`" for name in given)
        raise ValueError(
            f"{names} both set the size of the update, got "
            f"{' and '.join(map(repr, given.values()))}. Pass one of them, and None for the other."
        )
    if grafting is not None:
        return Grafting(grafting)
    if kl_clip is not None:
        return kl_clip if isinstance(kl_clip, KLClip) else KLClip(kl_clip)
    if update_rms is not None:
        assert not callable(momentum)
        decay = 0.9 if concrete_number(momentum) == 0 else momentum**0.5
        return UpdateRMS(update_rms, decay)
    return None
