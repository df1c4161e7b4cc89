"""Do these parameters match these layers?"""

import warnings
from collections.abc import Iterable

import jax.numpy as jnp

from singd_optax.layers._layers import Layers
from singd_optax.layers._spec import LayerSpec
from singd_optax.layers._tree import Leaves, check_not_flat
from singd_optax.layers._view import MatrixView


def check_layers(layers: Layers) -> None:
    """Raise unless ``layers`` are layers.

    Args:
      layers: What the user passed.

    Raises:
      TypeError: Something else.
    """
    if not isinstance(layers, Layers):
        raise TypeError(
            f"`layers` must be the Layers that find_layers returned, got {layers!r} of type "
            f"{type(layers).__name__}. Write layers = singd_optax.find_layers(loss_fn, params, "
            "batch)."
        )


def check_params(specs: Iterable[MatrixView], leaves: Leaves, what: str) -> None:
    """Raise unless all kernels and biases of the layers are there with their shapes.

    Args:
      specs: The layers.
      leaves: Parameters or gradients.
      what: What they are, for the message.

    Raises:
      ValueError: One is missing, or has another shape.
    """
    check_not_flat(leaves, what)
    for spec in specs:
        for path, shape in spec.shapes.items():
            if path not in leaves:
                found = ", ".join(leaves.paths[:20])
                raise ValueError(
                    f"`{what}` do not match `layers`: no array at {path!r}. There are: {found}. "
                    f"{_advice(path, leaves)}"
                )
            got = jnp.shape(leaves[path])
            if got != shape:
                raise ValueError(
                    f"`{what}` do not match `layers`: {path!r} has shape {got}, and the layer that "
                    f"was found has {shape}. Call find_layers again for this model."
                )


def check_updates(updates: Leaves, params: Leaves) -> None:
    """Raise unless there is a gradient of the same shape for each parameter, and no other.

    Shapes that broadcast would not stop what comes next.

    Args:
      updates: Gradients; where a wrapper masked one out, there is nothing to compare.
      params: Parameters.

    Raises:
      ValueError: One is missing, is of no parameter, or has another shape.
    """
    if updates.is_placeholder or params.is_placeholder:
        return
    for path in params:
        if path in updates:
            got, expected = jnp.shape(updates[path]), jnp.shape(params[path])
            if got != expected:
                raise ValueError(
                    f"`updates` do not match `params`: the gradient of {path!r} has shape {got}, "
                    f"and the parameter has {expected}. Pass the gradients with respect to these "
                    "params, as grad_fn returns them."
                )
        elif not updates.is_masked(path):
            raise ValueError(_unmatched("updates", "params", path, updates))
    for path in updates:
        if path not in params and not params.is_masked(path):
            raise ValueError(_unmatched("params", "updates", path, params))


def _unmatched(what: str, other: str, path: str, leaves: Leaves) -> str:
    return (
        f"`{what}` do not match `{other}`: no array at {path!r}. There are: "
        f"{', '.join(leaves.paths[:20])}. Pass the gradients with respect to these params."
    )


def _advice(path: str, leaves: Leaves) -> str:
    if f"params/{path}" in leaves.paths:
        return (
            "This is the whole dict of variables that model.init returned, and `layers` were found "
            "for its params alone: pass variables['params']."
        )
    return "Call find_layers again with the params that you train, in the same nesting."


def warn_of_unknown(layers: Layers, leaves: Leaves) -> None:
    """Warn of parameters that were not there when layers were found.

    Args:
      layers: From ``find_layers``, which names every parameter.
      leaves: The parameters that an optimizer gets.
    """
    known = {path for spec in layers.values() for path in spec.shapes}
    known |= {other.path for other in layers.others}
    # A mask may end above the parameters.
    unknown = [
        path
        for path in leaves.paths
        if path not in known and not any(name.startswith(f"{path}/") for name in known)
    ]
    if unknown:
        warnings.warn(
            f"`params` have arrays that find_layers did not see: {unknown[:20]}. They are no "
            "Kronecker layers for this optimizer. If the model was changed since, call "
            "find_layers again, and use its result for the optimizer and for value_and_grad.",
            stacklevel=2,
        )


def whole_layers(layers: Layers, leaves: Leaves, *, warn: bool = False) -> list[LayerSpec]:
    """The layers of which no parameter is masked out.

    ``optax.masked``, ``partition`` and ``selective_transform`` leave empty nodes in place of what
    they keep from a transformation. A layer that is gone in part has no gradient matrix: it is
    none here.

    Args:
      layers: From ``find_layers``.
      leaves: Parameters or gradients.
      warn: Whether to warn of layers that are there in part.

    Returns:
      The layers of which all parameters are there, or missing by mistake.
    """
    whole = []
    for spec in layers.values():
        masked = [path for path in spec.shapes if leaves.is_masked(path)]
        if not masked:
            whole.append(spec)
        elif warn and len(masked) < len(spec.shapes):
            warnings.warn(
                f"Of layer {spec.path!r} this optimizer gets only a part: {masked} are masked out. "
                "So the layer has no factors, and what is left of it is treated as parameters "
                "outside of `layers` are. To keep its preconditioner while a part is frozen, put "
                "optax.freeze(mask) behind the optimizer in an optax.chain.",
                stacklevel=2,
            )
    return whole
