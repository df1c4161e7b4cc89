"""What a complete optimizer gets is checked before any of its parts sees it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from singd_optax._types import PyTree
from singd_optax.layers import Layers, rule_states
from singd_optax.layers._check import check_updates
from singd_optax.layers._check_form import differing_form
from singd_optax.layers._tree import Leaves
from singd_optax.transforms._check import checked_layers
from singd_optax.transforms._params import check_some_params


def check_arguments_first(
    transformation: optax.GradientTransformation, layers: Layers | None = None
) -> optax.GradientTransformationExtraArgs:
    """The same transformation, which looks at its arguments before anything else.

    What runs before ``scale_by_<rule>`` in a chain would take gradients that broadcast to the
    shapes of its buffers, and stumble over a state of another optimizer with less to say.

    Args:
      transformation: A complete optimizer.
      layers: The layers of the rule in it, if that has any.

    Returns:
      A transformation whose ``init`` raises where there are no parameters, and whose ``update``
      raises where gradients and parameters do not match, or the state is of another optimizer.
    """
    transformation = optax.with_extra_args_support(transformation)
    expected = _once(transformation.init)

    def init_fn(params: optax.Params) -> PyTree:
        check_some_params(params)
        return transformation.init(params)

    def update_fn(
        updates: optax.Updates,
        state: PyTree,
        params: optax.Params | None = None,
        **extra_args: object,
    ) -> tuple[optax.Updates, PyTree]:
        if params is not None:
            check_updates(Leaves(updates), Leaves(params))
        if layers is not None:
            for own in rule_states(state):
                checked_layers(layers, own)
        if params is not None:
            difference = differing_form(state, expected(params))
            if difference:
                raise ValueError(
                    f"`opt_state` is not of this optimizer: {difference}. It was made by another "
                    "optimizer, or with other options: use the one that it is of, or a new state "
                    "from tx.init(params)."
                )
        return transformation.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _once(init: Callable[[PyTree], PyTree]) -> Callable[[PyTree], PyTree]:
    """The form of the states that ``init`` makes, found once for parameters of one form."""
    found: dict[object, PyTree] = {}

    def form(params: PyTree) -> PyTree:
        leaves, treedef = jax.tree.flatten(params)
        key = treedef, tuple(map(jnp.shape, leaves))
        if key not in found:
            found[key] = jax.eval_shape(init, params)
        return found[key]

    return form
