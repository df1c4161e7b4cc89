"""The recipe over any rule: a complete optimizer, as ``optax.adamw`` is."""

from collections.abc import Callable, Mapping

import optax

from singd_optax._types import PyTree
from singd_optax._validate import check_fallback, check_mask, check_number
from singd_optax.layers import Layers, MatrixAxes
from singd_optax.layers._check import check_layers, whole_layers
from singd_optax.layers._matrices import matrix_specs
from singd_optax.layers._matrix_axes import check_matrix_axes, with_embeddings_left
from singd_optax.layers._tree import Leaves, check_not_flat
from singd_optax.optimizers._options import (
    Function,
    check_options,
    shows_options_of,
    split,
)
from singd_optax.rules import Hyperparameter, Rule
from singd_optax.transforms import KLClip, refresh_schedule, scale_by_rule
from singd_optax.transforms._check_first import check_arguments_first

#: A tree of bools like the parameters, or a prefix of one, or a function of parameters.
Mask = PyTree

_REFRESH = refresh_schedule()
_SIZES = ("update_rms", "kl_clip", "grafting")


class _OfTheRule:
    """A default that each rule has for itself."""

    def __repr__(self) -> str:
        """As ``help`` shows it."""
        return "<the rule's>"


def recipe_of(rule: type[Rule] | Rule) -> dict[str, object]:
    """The common options that suit a rule, by name."""
    own = rule.recipe._asdict()
    return own | {"refresh_every": own["refresh_every"] or _REFRESH}


@shows_options_of(
    scale_by_rule,
    defaults=dict.fromkeys(
        ("momentum", "nesterov", "update_rms", "grafting", "refresh_every"), _OfTheRule()
    ),
)
def optimizer(
    learning_rate: Hyperparameter,
    rule: Rule,
    layers: Layers | None = None,
    *,
    weight_decay: Hyperparameter = 1e-4,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    **options: object,
) -> optax.GradientTransformationExtraArgs:
    """A complete optimizer with any rule, as a drop-in for AdamW.

    Matrices (of Kronecker layers, or of all arrays of two axes or more) get momentum, the rule's
    direction, one size, and decoupled weight decay; all other parameters go to ``fallback``.
    ``singd``, ``kfac``, ``shampoo`` and the like are this with their rules, and a rule of your own
    comes in by the same door.

    Args:
      learning_rate: A number >= 0 or a schedule.
      rule: What to do for each matrix, for example ``SINGD()``. It brings defaults for the common
        options (``Rule.recipe``).
      layers: From ``find_layers``; needed by rules that measure layers. None for all arrays of two
        axes or more but embeddings, see ``matrix_axes``.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      **options: Those of ``scale_by_rule``, by name:

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad`` if the rule
      has measures.

    Raises:
      ValueError: An option is out of range, or two set the size of updates.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> from singd_optax.optimizers import Shampoo
      >>> tx = singd_optax.optimizer(1e-2, Shampoo(b2=0.9), momentum=0.8)
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
    """
    check_options(optimizer, options)
    if not isinstance(rule, Rule):
        scale_by_rule(rule, layers)  # says what is wrong
    if layers is not None:
        check_layers(layers)
    options = {name: v for name, v in options.items() if not isinstance(v, _OfTheRule)}
    common = recipe_of(rule)
    if any(options.get(name) is not None for name in _SIZES):
        common |= {name: None for name in _SIZES if name not in options}
    options = common | options
    if layers is None and rule.leaves_embeddings:
        check_matrix_axes(options.get("matrix_axes"))
        options["matrix_axes"] = with_embeddings_left(options.get("matrix_axes"))  # type: ignore[arg-type]
    check_number("learning_rate", learning_rate)
    check_number("weight_decay", weight_decay)
    check_mask("mask", mask)
    check_fallback("fallback", fallback)
    clip = options.get("kl_clip")
    if clip is not None and not isinstance(clip, KLClip):
        options["kl_clip"] = KLClip(clip, learning_rate)  # type: ignore[arg-type]
    scale = scale_by_rule(rule, layers, **options)  # type: ignore[arg-type]
    chain = optax.chain(
        scale,
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
    if fallback is None:
        fallback = optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)
    matrix_axes: Mapping[str, MatrixAxes] | None = options.get("matrix_axes")  # type: ignore[assignment]
    split = {"preconditioned": chain, "fallback": fallback}
    return check_arguments_first(optax.partition(split, _labels(layers, matrix_axes)), layers)


def _labels(
    layers: Layers | None, matrix_axes: Mapping[str, MatrixAxes] | None
) -> Callable[[PyTree], PyTree]:
    def labels(params: PyTree) -> PyTree:
        leaves = Leaves(params)
        if layers is None:
            specs = matrix_specs(leaves, structures="auto", matrix_axes=matrix_axes)
            paths = [path for spec in specs.values() for path in spec.shapes]
        else:
            check_not_flat(leaves, "params")
            whole = whole_layers(layers, leaves, warn=True)
            paths = [path for spec in whole for path in spec.shapes]
        return leaves.labelled(dict.fromkeys(paths, "preconditioned"), "fallback")

    return labels


#: Options that rules with measures have no use for: layers say it, or are measured all at once.
_UNMEASURED = ("structures", "factor_dtype", "matrix_axes", "stagger")

_LAYERS = """
  layers: From ``find_layers``."""
_ANY_LAYERS = """
  layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
    ``find_matrices``; None for all arrays of two axes or more{rest}."""
_RATE = """
  learning_rate: A number >= 0 or a schedule."""
_REST = """
  **options: Of the rule, and common ones, by name:

Returns:
  {returns}

Raises:
  ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
    cannot have a structure.
  TypeError: An option is unknown or of another type."""
_MEASURED = "An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``."
_PLAIN = "An optax transformation, used as ``optax.adamw`` is."


def _sections(rule: type[Rule], first: str) -> str:
    is_measured = bool(rule().measures)
    rest = _REST.format(returns=_MEASURED if is_measured else _PLAIN)
    left = " but\n    embeddings, see ``matrix_axes``" if first and rule.leaves_embeddings else ""
    return "Args:" + first + (_LAYERS if is_measured else _ANY_LAYERS.format(rest=left)) + rest


def shows_recipe_of(rule: type[Rule]) -> Callable[[Function], Function]:
    """A decorator for complete optimizers: their options are those of a rule and of the recipe.

    Args:
      rule: The class of the rule.
    """
    return shows_options_of(
        rule,
        optimizer,
        defaults=recipe_of(rule),
        without=_UNMEASURED if rule().measures else (),
        sections=_sections(rule, _RATE),
    )


def shows_scaling_of(rule: type[Rule]) -> Callable[[Function], Function]:
    """A decorator for ``scale_by_<rule>``: options of a rule and of ``scale_by_rule``.

    Args:
      rule: The class of the rule.
    """
    return shows_options_of(
        rule,
        scale_by_rule,
        without=_UNMEASURED if rule().measures else (),
        sections=_sections(rule, ""),
    )


def optimizer_of(
    function: Callable[..., object],
    rule: type[Rule],
    learning_rate: Hyperparameter,
    layers: Layers | None,
    options: Mapping[str, object],
) -> optax.GradientTransformationExtraArgs:
    """``optimizer`` with a rule that is made of its options.

    Args:
      function: What the user called.
      rule: The class of the rule.
      learning_rate: Of the recipe.
      layers: From ``find_layers``, or None.
      options: Of the rule and of the recipe.
    """
    check_options(function, options)
    made, common = split(rule, options)
    return optimizer(learning_rate, made, layers, **common)  # type: ignore[arg-type]


def scaling_of(
    function: Callable[..., object],
    rule: type[Rule],
    layers: Layers | None,
    options: Mapping[str, object],
) -> optax.GradientTransformationExtraArgs:
    """``scale_by_rule`` with a rule that is made of its options.

    Args:
      function: What the user called.
      rule: The class of the rule.
      layers: From ``find_layers``, or None.
      options: Of the rule and of the transformation.
    """
    check_options(function, options)
    made, common = split(rule, options)
    return scale_by_rule(made, layers, **common)  # type: ignore[arg-type]
