"""The one transformation: any rule, on layers or on matrices."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from singd_optax._types import PyTree
from singd_optax._validate import check_flag, check_interval, check_seed
from singd_optax.layers import Layers, LayerSpec, MatrixAxes, MatrixView, RuleState
from singd_optax.layers._check import check_layers, check_params
from singd_optax.layers._matrices import matrix_specs
from singd_optax.layers._matrix_axes import check_matrix_axes
from singd_optax.layers._roles import roles_of
from singd_optax.layers._spec import parse_options
from singd_optax.layers._states import as_count
from singd_optax.layers._tree import Leaves
from singd_optax.measures import Statistics
from singd_optax.placement import laid_out_like, partitions_of
from singd_optax.rules import Hyperparameter, Interval, Rule
from singd_optax.structures import Structure
from singd_optax.transforms._check import (
    check_axes,
    check_matrices,
    check_states,
    check_tag,
    checked_curvature,
    checked_layers,
)
from singd_optax.transforms._direction_options import DirectionName, directed
from singd_optax.transforms._grafting import GraftedStep
from singd_optax.transforms._momentum import Momentum
from singd_optax.transforms._params import check_some_params, present_layers, warn_of_params
from singd_optax.transforms._rule_step import RuleStep
from singd_optax.transforms._size_options import size_of
from singd_optax.transforms._sizes import KLClip


def scale_by_rule(
    rule: Rule,
    layers: Layers | None = None,
    *,
    direction: DirectionName = "natural",
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Precondition matrix-shaped gradients by a rule; pass all others through.

    A rule is what one method does for one matrix: it keeps factors, the matrices K and C that
    multiply a gradient from the left and from the right, and makes them anew in a refresh.

    With ``layers`` the matrices are those of Kronecker layers, kernel and bias together. Without,
    every array of two axes or more is one: leading axes are merged to rows and trailing ones to
    columns, cut where the larger side is smallest (``(3, 3, 64, 128)`` becomes 576 x 128,
    ``(768, 12, 64)`` 768 x 768). A parameter of a stack of layers (``nn.scan``) looks like any
    other array of that shape, so say by ``matrix_axes`` which axes are rows and columns; the layers
    of the stack are then preconditioned apart.

    The factors are refreshed on steps with ``count % refresh_every == 0``, step 0 included, where
    count is the number of updates before. A refresh is skipped and counted, for each matrix by
    itself, if its statistics are not finite, or empty, or of an earlier step (which outside of
    ``jax.jit`` is an error), or if its factors would not be finite. A gradient that is not finite
    passes on, and changes no factor and no moment. A gradient that is finite, but so large that its
    preconditioned form is not, gives an update of zeros.

    If a wrapper (``optax.masked``, ``partition``, ...) masks out a parameter of a layer, the layer
    has no state, and what is left of it passes through.

    Args:
      rule: What to do for each matrix, for example ``SINGD()``, or a rule of your own.
      layers: The layers that ``find_layers`` found, or the matrices that ``find_matrices`` did.
        Rules with measures, which want statistics of layers, need the former; all others may have
        either. None: every array of two axes or more is a matrix.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      A transformation. Its ``update`` takes ``curvature``, the statistics that ``value_and_grad``
      returns, as an extra argument, if the rule has measures, and ignores it otherwise. With
      ``refresh=True`` or False this step refreshes, or does not, whatever the state says, and its
      program has no branch; see ``singd_optax.refresh_due``. With ``stagger`` True is for what is
      due of the matrices.

    Raises:
      ValueError: An option is out of range, or two set the size. From ``init`` and ``update``:
        gradients do not match ``layers`` or the state, axes do not fit, ``curvature`` is missing.
      TypeError: An option is of another type.

    Example:
      >>> import jax.numpy as jnp, optax, singd_optax
      >>> from singd_optax.optimizers import Shampoo
      >>> scale = singd_optax.scale_by_rule(Shampoo(), update_rms=0.2)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(0.1))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
      >>> updates["kernel"].round(3)[0]
      Array([-0.02, -0.02], dtype=float32)
    """
    _check_rule(rule, layers)
    rule = directed(rule, direction, softness, matrix_axes, layers)
    check_interval("refresh_every", refresh_every)
    check_seed("seed", seed)
    ball = Momentum(momentum, nesterov, accumulator_dtype)
    size = size_of(update_rms, kl_clip, grafting, momentum)
    if layers is None:
        structures = rule.structures if structures is None else structures
        parse_options("float32", structures=structures, factor_dtype=factor_dtype)
        check_matrix_axes(matrix_axes)
    else:
        _check_unused(structures=structures, factor_dtype=factor_dtype, matrix_axes=matrix_axes)
    check_flag("stagger", stagger)
    if stagger and rule.measures:
        raise ValueError(
            f"`stagger` is for rules that need gradients only, got True for {rule.state_name}: the "
            "backward pass of a refresh measures all layers at once. Write stagger=False."
        )
    step = RuleStep(rule, ball, size, refresh_every, stagger, seed)

    def matrices(leaves: Leaves) -> dict[str, MatrixView]:
        return dict(
            matrix_specs(
                leaves, structures=structures, factor_dtype=factor_dtype, matrix_axes=matrix_axes
            )
        )

    @functools.cache
    def initial_form(view: MatrixView) -> PyTree:
        return jax.eval_shape(lambda: (rule.init(view), step.size_init(view)))

    def init_fn(params: optax.Params) -> RuleState:
        check_some_params(params)
        leaves = Leaves(params)
        if layers is not None:
            views = {view.path: view for view in present_layers(layers, params)}
            warn_of_params(layers, params)
            check_axes(rule, views)
            return step.init(views, params)
        if not leaves.is_placeholder:
            found = matrices(leaves)
            check_axes(rule, found)
            return step.init(found, params)
        # optax inits with a placeholder to find what is shaped like parameters: the momentum, and
        # of the rest nothing; one leaf for each field says so whatever the parameters are.
        nothing: PyTree = jnp.zeros([])
        return step.init({}, params)._replace(
            rule_states=nothing,
            size_states=nothing,
            skipped_refreshes=nothing,
            skipped_in_a_row=nothing,
            places=nothing,
        )

    def update_fn(
        updates: optax.Updates,
        state: RuleState,
        params: optax.Params | None = None,
        *,
        curvature: Mapping[str, Statistics] | None = None,
        refresh: bool | None = None,
        **extra_args: object,
    ) -> tuple[optax.Updates, RuleState]:
        del params, extra_args
        if refresh is not None:
            check_flag("refresh", refresh)
        leaves = Leaves(updates)
        if layers is None and leaves.is_placeholder:
            return updates, state
        state = jax.tree.map(as_count, state)
        check_tag(step.tag, state.rule_tag)
        if layers is None:
            views = matrices(leaves)
            check_matrices(views, state)
        else:
            views = checked_layers(layers, state)
            check_params(views.values(), leaves, "updates")
        check_states(views, state, initial_form)
        measures = () if refresh is False else rule.measures
        statistics = checked_curvature(curvature, views, measures, state)
        own = {path: leaves[path] for view in views.values() for path in view.shapes}
        function = functools.partial(step.update, views, is_refresh=refresh)
        like = partitions_of((own, state))
        changed, new_state = laid_out_like(function, like, own, state, statistics)
        return leaves.replaced(changed), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _check_rule(rule: Rule, layers: Layers | None) -> None:
    if not isinstance(rule, Rule):
        called = " It was not called: write SINGD()." if isinstance(rule, type) else ""
        raise TypeError(
            f"`rule` must be a singd_optax.rules.Rule, such as SINGD(), got {rule!r}.{called}"
        )
    roles_of(rule.State)
    if layers is not None:
        check_layers(layers)
    is_measured = layers is not None and all(isinstance(s, LayerSpec) for s in layers.specs)
    if rule.measures and not is_measured:
        got = "no `layers`" if layers is None else "matrices from find_matrices"
        raise TypeError(
            f"`layers` must be those of a model, which {rule.state_name} measures, got {got}. "
            "Write layers = singd_optax.find_layers(loss_fn, params, batch), and pass them."
        )


def _check_unused(**options: object) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(
            f"`{given[0]}` is for optimizers without `layers`, which have their own: got "
            f"{options[given[0]]!r}. Use layers.replace(pattern, ...), or give `matrix_axes` to "
            "find_matrices."
        )
