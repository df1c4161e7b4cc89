"""What ``update`` gets is checked before anything is traced."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.layers import Layers, MatrixView, RuleState
from singd_optax.layers._by_path import ByPath
from singd_optax.layers._check_form import check_form
from singd_optax.layers._check_state import check_stacks
from singd_optax.layers._groups import grouped
from singd_optax.layers._rule_tag import RuleTag
from singd_optax.measures import Measure, Statistics, is_stale
from singd_optax.rules import Rule
from singd_optax.transforms._directions import chains_of


def checked_layers(layers: Layers, state: RuleState) -> dict[str, MatrixView]:
    """The layers that a state is of, by path.

    Args:
      layers: The layers of the optimizer.
      state: A state from its ``init``, or from a checkpoint.

    Raises:
      ValueError: The state is of other layers.
    """
    unknown = [path for path in state.rule_states if path not in layers]
    if unknown:
        raise ValueError(
            f"`opt_state` has factors for the layers {unknown}, which `layers` of this optimizer "
            f"have not: they have {list(layers)}. Use a state from tx.init(params), or from a "
            "checkpoint that was written with these layers."
        )
    views: dict[str, MatrixView] = {path: layers[path] for path in state.rule_states}
    check_stacks(views, state.rule_states)
    return views


def check_matrices(views: Mapping[str, MatrixView], state: RuleState) -> None:
    """Raise unless a state is of these matrices.

    Args:
      views: What the gradients make.
      state: The state of an optimizer without layers.

    Raises:
      ValueError: It is of others.
    """
    if set(views) != set(state.rule_states):
        raise ValueError(
            f"The gradients have matrices at {sorted(views)}, the optimizer state is of "
            f"{sorted(state.rule_states)}. Call tx.init again with the parameters that you train."
        )
    check_stacks(views, state.rule_states)


def check_states(
    views: Mapping[str, MatrixView],
    state: RuleState,
    initial: Callable[[MatrixView], tuple[PyTree, PyTree]],
) -> None:
    """Raise unless what a state keeps is of the form that ``init`` makes.

    Args:
      views: The layers that the state is of.
      state: From a checkpoint, or from ``init``.
      initial: View -> the forms of its rule's state and of its size's.

    Raises:
      ValueError: They differ, with where.
    """
    kept = {"rule_states": state.rule_states, "size_states": state.size_states}
    by_group = grouped(views, ByPath.each(state.rule_states).groups)
    for group, view in by_group.items():
        for (name, own), wanted in zip(kept.items(), initial(view), strict=True):
            parts = ByPath.each(own)
            if all(path in parts for path in group):
                check_form(parts.of_group(group), wanted, f"`{name}` of {view.path!r}")


def checked_curvature(
    curvature: Mapping[str, Statistics] | None,
    views: Mapping[str, MatrixView],
    measures: tuple[Measure, ...],
    state: RuleState,
) -> dict[str, Statistics]:
    """The statistics of these layers, of this step; none for a rule without measures.

    Args:
      curvature: What the user passed to ``update``.
      views: The layers that the state is of.
      measures: What the rule wants.
      state: The state.

    Raises:
      ValueError: There are none, they are of other layers, or of an earlier step and that can be
        seen, as their numbers are concrete. Under ``jax.jit`` refreshes with them are skipped.
    """
    if not measures:
        return {}
    if curvature is None and views:
        raise ValueError(
            "Write tx.update(grads, opt_state, params, curvature=curvature), with value, grads, "
            "curvature = grad_fn(params, batch, opt_state=opt_state) and grad_fn = "
            "singd_optax.value_and_grad(loss_fn, layers): update() got no `curvature`, and these "
            "layers are preconditioned by statistics of the loss. Some wrappers drop "
            "arguments that they do not know: instead of flax's TrainState use "
            "singd_optax.training.TrainState and apply_gradients(grads=grads, "
            "curvature=curvature); inside of optax.lookahead and optax.contrib.sam use "
            "singd_optax.training.bind_curvature(tx, curvature)."
        )
    curvature = {} if curvature is None else curvature
    missing = [path for path in views if path not in curvature]
    if missing:
        raise ValueError(
            f"`curvature` has no statistics for the layers {missing}, only for {list(curvature)}. "
            "Use the same layers for the optimizer and for value_and_grad, and pass grad_fn the "
            "opt_state that update gets. What grad_fn(..., refresh=False) returns has none: then "
            "write tx.update(..., refresh=False), too."
        )
    for path, view in views.items():
        _check_shapes(view, measures, curvature[path])
        _check_step(path, curvature[path], state.rule_count)
    return {path: curvature[path] for path in views}


def _check_shapes(view: MatrixView, measures: tuple[Measure, ...], got: Statistics) -> None:
    zeros = functools.partial(Statistics.zeros, view, measures)
    expected = jax.eval_shape(zeros)
    plain = got._replace(measured_at=None) if isinstance(got, Statistics) else got
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (plain, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"`curvature` of layer {view.path!r} does not match `layers`: got {shapes[0]}, "
            f"expected {shapes[1]}. Use the same layers for the optimizer and value_and_grad."
        )


def _check_step(path: str, statistics: Statistics, count: jax.Array) -> None:
    stale = is_stale(statistics, count)
    if not isinstance(stale, jax.core.Tracer) and stale:
        raise ValueError(
            f"`curvature` is of an earlier step: it was measured with an opt_state after "
            f"{statistics.measured_at} updates, and update() got one after {count}. Hand on what "
            "grad_fn(params, batch, opt_state=opt_state) returned for this step, and pass both the "
            "same opt_state."
        )


def check_tag(own: RuleTag, tag: RuleTag) -> None:
    """Raise unless a state is of this rule.

    Args:
      own: The tag of the optimizer's rule.
      tag: What the state says.

    Raises:
      ValueError: It is of another one.
    """
    if not isinstance(tag, RuleTag) or tag.name != own.name:
        written = tag.name if isinstance(tag, RuleTag) else tag
        raise ValueError(
            f"`opt_state` is of the rule {written!r}, and this optimizer has {own.name!r}. Use the "
            "optimizer that the state is of, or a new state from tx.init(params)."
        )


def check_axes(rule: Rule, views: Mapping[str, MatrixView]) -> None:
    """Raise if a rule of whole matrices is to take the axes of a parameter one after the other.

    Args:
      rule: The rule.
      views: The parameters, by path.

    Raises:
      ValueError: It is.
    """
    for names in chains_of(views).values():
        if rule.is_of_whole and len(names) > 1:
            parameter = next(iter(views[names[0]].shapes))
            raise ValueError(
                f"{rule.state_name} must see a matrix as a whole, got {len(names)} matrices of "
                f"{parameter!r}, one for each axis. Say which axes are rows and columns, as "
                f"matrix_axes={{{parameter!r}: ((0,), (1, 2))}}, or 'cut'; Shampoo and "
                "InverseFreeShampoo take axes one after the other."
            )
