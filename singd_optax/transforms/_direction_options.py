"""What becomes of a rule that is to have polar directions."""

from collections.abc import Mapping
from typing import Literal

from singd_optax._validate import check_choice, check_number, concrete_number
from singd_optax.layers import Layers, MatrixAxes
from singd_optax.rules import Hyperparameter, Polar, Rule
from singd_optax.transforms._directions import chains_of

#: The rule's own direction, or that of equal singular values.
DirectionName = Literal["natural", "polar"]


def directed(
    rule: Rule,
    direction: DirectionName,
    softness: Hyperparameter,
    matrix_axes: Mapping[str, MatrixAxes] | None,
    layers: Layers | None,
) -> Rule:
    """The rule, with the direction that options ask for.

    Args:
      rule: The user's rule.
      direction: "natural" or "polar".
      softness: The softness of polar directions.
      matrix_axes: The user's axes, or None.
      layers: The user's layers, or None.

    Raises:
      ValueError: The rule does not whiten, an option is out of range or of no use, or axes are
        preconditioned one by one.
    """
    check_choice("direction", direction, ("natural", "polar"))
    check_number("softness", softness)
    is_given = callable(softness) or concrete_number(softness) not in (0, None)
    if is_given and (direction == "natural" or isinstance(rule, Polar)):
        is_twice = isinstance(rule, Polar)
        advice = "Polar(rule, softness=...)" if is_twice else "direction='polar' with it"
        raise ValueError(
            f"`softness` is of direction='polar', got {softness!r} with "
            f"{'a rule that has its own' if is_twice else f'direction={direction!r}'}. "
            f"Write {advice}."
        )
    if direction == "polar" and not isinstance(rule, Polar):
        rule = Polar(rule, softness=softness)
    if isinstance(rule, Polar):
        each = [path for path, axes in (matrix_axes or {}).items() if axes == "each"]
        if layers is not None:
            each = [names[0] for names in chains_of(layers).values() if len(names) > 1]
        if each:
            raise ValueError(
                f"A polar factor is one of a matrix, got `matrix_axes` 'each' for {each[0]!r}, "
                "which is preconditioned along one axis after the other. Say which axes are rows "
                "and which are columns, such as ((0,), (1, 2)), or use direction='natural'."
            )
    return rule
