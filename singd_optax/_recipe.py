"""What the recipes have in common: momentum, sizes, weight decay, and who gets the rest."""

from collections.abc import Callable
from typing import Any

import optax

from singd_optax._validate import check_fallback, check_flag, check_mask, check_number
from singd_optax.layers import Layers, Leaves, check_not_flat, whole_layers
from singd_optax.rules import Hyperparameter
from singd_optax.transforms import (
    check_arguments_first,
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


def size_decay(momentum: float) -> Hyperparameter:
    """The decay of the running size of updates that goes with a momentum.

    Args:
      momentum: In [0, 1).
    """
    return momentum**0.5


def recipe(
    scale: optax.GradientTransformationExtraArgs,
    layers: Layers,
    *,
    learning_rate: Hyperparameter,
    momentum: float,
    nesterov: bool,
    weight_decay: Hyperparameter,
    mask: Any,
    consistent_rms: float | None,
    fallback: optax.GradientTransformation | None,
) -> optax.GradientTransformationExtraArgs:
    """Momentum, preconditioner, one size, weight decay and learning rate; AdamW for the rest."""
    trace = momentum_of(momentum, nesterov)
    check_common(learning_rate, weight_decay, mask, fallback)
    parts: list[optax.GradientTransformation] = [trace, scale]
    if consistent_rms is not None:
        decay = size_decay(momentum)
        parts.append(scale_by_consistent_rms(layers, consistent_rms, decay=decay))
    parts += [
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    ]
    if fallback is None:
        fallback = optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)
    split = {"kronecker": optax.chain(*parts), "fallback": fallback}
    return check_arguments_first(optax.partition(split, _labels(layers)), layers)


def check_common(
    learning_rate: Hyperparameter,
    weight_decay: Hyperparameter,
    mask: Any,
    fallback: optax.GradientTransformation | None,
) -> None:
    """Check what all recipes share, before anything is traced.

    Args:
      learning_rate: A number >= 0, or a schedule.
      weight_decay: Likewise.
      mask: None, a tree of bools, or a function of params.
      fallback: None, or a transformation.

    Raises:
      ValueError: One is out of range.
      TypeError: One is of another type.
    """
    check_number("learning_rate", learning_rate)
    check_number("weight_decay", weight_decay)
    check_mask("mask", mask)
    check_fallback("fallback", fallback)


def _labels(layers: Layers) -> Callable[[Any], Any]:
    def labels(params: Any) -> Any:
        leaves = Leaves(params)
        check_not_flat(leaves, "params")
        whole = [path for spec in whole_layers(layers, leaves, warn=True) for path in spec.shapes]
        return leaves.labelled(dict.fromkeys(whole, "kronecker"), "fallback")

    return labels
