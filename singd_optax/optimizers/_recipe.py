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
    """Stands for a default that each rule has for itself, in ``Rule.recipe``."""

    def __repr__(self) -> str:
        """The text that ``help`` shows."""
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
    """Make a complete optimizer of any rule, for use in the place of ``optax.adamw``.

    A rule is what one method does for one matrix. For each matrix (a Kronecker layer, or any array
    of two axes or more) the momentum is preconditioned by the rule, its update is brought to one
    size, and weight decay is added, decoupled from the gradient as AdamW's is. All other parameters
    go to ``fallback``. ``singd``, ``kfac``, ``shampoo`` and the like are this with rules of the
    library; use it for a rule of your own, or for one that is wrapped in another.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      rule: What to do for each matrix, for example ``SINGD()``. It brings its own defaults for the
        options below (``Rule.recipe``).
      layers: The layers that ``find_layers`` found, which rules that measure layers need, or the
        matrices that ``find_matrices`` did. None: every array of two axes or more is a matrix, but
        for embeddings, see ``matrix_axes``.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      **options: The options of ``scale_by_rule``, by name:

    Returns:
      An optax transformation. If the rule has measures, its ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates.
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


#: Options that rules with measures have no use for: layers have the first three, and all of them
#: are measured at once.
_UNMEASURED = ("structures", "factor_dtype", "matrix_axes", "stagger")

#: The last paragraphs of docstrings, by whether the optimizer is complete and measures layers.
_LAST = {
    (True, True): """
Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
a refresh (``refresh_every``), from statistics of inputs and output gradients, which
``value_and_grad`` returns as ``curvature``. The equations are in
``singd_optax.optimizers.{rule}``.""",
    (True, False): """
All other parameters, such as biases and scales, go to ``fallback``. The equations are in
``singd_optax.optimizers.{rule}``; ``scale_by_rule`` says which arrays are matrices, and how.""",
    (False, True): """
The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.{rule}``;
``singd_optax.<name>`` is a complete optimizer.""",
    (False, False): """
Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
The equations are in ``singd_optax.optimizers.{rule}``; ``singd_optax.<name>`` is a complete
optimizer.""",
}
_LAYERS = """
  layers: The layers that ``find_layers`` found."""
_ANY_LAYERS = """
  layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
    the matrices that ``find_matrices`` did. None: every array of two axes or more is a
    matrix{rest}."""
_RATE = """
  learning_rate: The step on the parameters, a number >= 0 or an optax schedule."""
_REST = """
  **options: The options of the rule, and those that all optimizers have, by name:

Returns:
  {returns}

Raises:
  ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
    rule cannot keep its matrices in the structures that were asked for.
  TypeError: An option is unknown, or of another type."""
_MEASURED = """An optax transformation, whose ``update`` takes the ``curvature`` that
  ``value_and_grad`` returns."""
_PLAIN = "An optax transformation, which is used as ``optax.adamw`` is."
_MEASURED_EXAMPLE = """
Example:
  >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
  >>> model, x = nn.Dense(3), jnp.ones((8, 5))
  >>> params = model.init(jax.random.key(0), x)
  >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
  >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")"""
_EXAMPLES = {
    (True, True): f"""{_MEASURED_EXAMPLE}
  >>> tx = singd_optax.<name>(1e-3, layers)
  >>> opt_state = tx.init(params)
  >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
  >>> def step(params, opt_state, x):
  ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
  ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
  ...   return optax.apply_updates(params, updates), opt_state, value
  >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains""",
    (True, False): """
Example:
  >>> import jax, jax.numpy as jnp, optax, singd_optax
  >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
  >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
  >>> tx = singd_optax.<name>(1e-3)
  >>> opt_state = tx.init(params)
  >>> def step(params, opt_state, x):
  ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
  ...   return optax.apply_updates(params, updates), opt_state
  >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains""",
    (False, True): f"""{_MEASURED_EXAMPLE}
  >>> scale = singd_optax.scale_by_<name>(layers)
  >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
  >>> opt_state = tx.init(params)""",
    (False, False): "",
}


def _shown(rule: type[Rule], is_complete: bool) -> tuple[str, str]:
    """The sections and the example of a function with this rule."""
    is_measured = bool(rule().measures)
    of_both = is_complete, is_measured
    last = _LAST[of_both].format(rule=rule.__name__).strip()
    left = ", but\n    for embeddings, see ``matrix_axes``"
    rest = left if is_complete and rule.leaves_embeddings else ""
    layers = _LAYERS if is_measured else _ANY_LAYERS.format(rest=rest)
    arguments = (_RATE if is_complete else "") + layers
    others = _REST.format(returns=_MEASURED if is_measured else _PLAIN)
    return f"{last}\n\nArgs:{arguments}{others}", _EXAMPLES[of_both]


def shows_recipe_of(rule: type[Rule]) -> Callable[[Function], Function]:
    """A decorator for complete optimizers: their options are those of a rule and of the recipe.

    Args:
      rule: The class of the rule.
    """
    sections, example = _shown(rule, is_complete=True)
    return shows_options_of(
        rule,
        optimizer,
        defaults=recipe_of(rule),
        without=_UNMEASURED if rule().measures else (),
        sections=sections,
        example=example,
    )


def shows_scaling_of(rule: type[Rule]) -> Callable[[Function], Function]:
    """A decorator for ``scale_by_<rule>``: options of a rule and of ``scale_by_rule``.

    Args:
      rule: The class of the rule.
    """
    sections, example = _shown(rule, is_complete=False)
    return shows_options_of(
        rule,
        scale_by_rule,
        without=_UNMEASURED if rule().measures else (),
        sections=sections,
        example=example,
    )


def optimizer_of(
    function: Callable[..., object],
    rule: type[Rule],
    learning_rate: Hyperparameter,
    layers: Layers | None,
    options: Mapping[str, object],
) -> optax.GradientTransformationExtraArgs:
    """Make a complete optimizer of a rule, which is made of its options.

    Args:
      function: The function that the user called.
      rule: The class of the rule.
      learning_rate: The step on the parameters, as ``optimizer`` takes it.
      layers: The layers, or None, as ``optimizer`` takes them.
      options: The options of the rule and of ``optimizer``, by name.

    Raises:
      TypeError: An option is unknown, or of another type.
      ValueError: An option is out of range.
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
    """Make a ``scale_by_rule`` of a rule, which is made of its options.

    Args:
      function: The function that the user called.
      rule: The class of the rule.
      layers: The layers, or None, as ``scale_by_rule`` takes them.
      options: The options of the rule and of ``scale_by_rule``, by name.

    Raises:
      TypeError: An option is unknown, or of another type.
      ValueError: An option is out of range.
    """
    check_options(function, options)
    made, common = split(rule, options)
    return scale_by_rule(made, layers, **common)  # type: ignore[arg-type]
