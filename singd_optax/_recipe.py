"""What the recipes have in common: momentum, sizes, weight decay, and who gets the rest."""

from collections.abc import Callable
from typing import Any

import optax

from singd_optax._validate import check_flag, check_number
from singd_optax.layers import Layers, Leaves, check_not_flat, whole_layers
from singd_optax.rules import Hyperparameter
from singd_optax.transforms import (
    check_layers_first,
    damping_schedule,
    refresh_schedule,
    scale_by_consistent_rms,
)

DEFAULT_DAMPING = damping_schedule()
DEFAULT_REFRESH = refresh_schedule()


def check_one_size(kl_clip: Hyperparameter | None, consistent_rms: float | None) -> None:
    """Check that one thing alone sets the size of the update.

    Args:
      kl_clip: A bound, or None.
      consistent_rms: A size, or None.

    Raises:
      ValueError: Both are given.
    """
    if kl_clip is not None and consistent_rms is not None:
        raise ValueError(
            f"`kl_clip` and `consistent_rms` both set the size of the update, got {kl_clip!r} and "
            f"{consistent_rms!r}. Pass consistent_rms=None with kl_clip."
        )


def momentum_of(momentum: float, nesterov: bool) -> optax.GradientTransformation:
    """The momentum of the gradient, from checked settings.

    Args:
      momentum: In [0, 1).
      nesterov: Whether it looks one step ahead.
    """
    check_number("momentum", momentum, maximum=1, strict_maximum=True, schedule=False)
    check_flag("nesterov", nesterov)
    return optax.trace(momentum, nesterov)


def recipe(
    trace: optax.GradientTransformation,
    scale: optax.GradientTransformationExtraArgs,
    learning_rate: Hyperparameter,
    layers: Layers,
    weight_decay: Hyperparameter,
    mask: Any,
    consistent_rms: float | None,
    fallback: optax.GradientTransformation | None,
) -> optax.GradientTransformationExtraArgs:
    """Momentum, preconditioner, one size, weight decay and learning rate; AdamW for the rest."""
    check_number("learning_rate", learning_rate)
    check_number("weight_decay", weight_decay)
    parts: list[optax.GradientTransformation] = [trace, scale]
    if consistent_rms is not None:
        parts.append(scale_by_consistent_rms(layers, consistent_rms))
    parts += [
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    ]
    if fallback is None:
        fallback = optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)
    kronecker = check_layers_first(optax.chain(*parts), layers)
    return optax.partition({"kronecker": kronecker, "fallback": fallback}, _labels(layers))


def _labels(layers: Layers) -> Callable[[Any], Any]:
    def labels(params: Any) -> Any:
        leaves = Leaves(params)
        check_not_flat(leaves, "params")
        whole = [path for spec in whole_layers(layers, leaves, warn=True) for path in spec.shapes]
        return leaves.labelled(dict.fromkeys(whole, "kronecker"), "fallback")

    return labels
