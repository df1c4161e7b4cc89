"""What users get wrong, seen before anything is traced."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax

from singd_optax.layers import AccumulatedState, rule_states

#: Collections that Flax modules make beside "params", and that no gradient belongs to.
_COLLECTIONS = ("batch_stats", "cache", "intermediates")


def check_not_variables(params: Any) -> None:
    """Raise if these are all variables of a model, and not its parameters.

    Args:
      params: What the user passed.

    Raises:
      TypeError: They are an NNX state or module.
      ValueError: There is another collection beside "params".
    """
    if type(params).__module__.startswith("flax.nnx"):
        raise TypeError(
            f"`params` are a {type(params).__name__} of Flax NNX. For NNX models, write "
            "layers = singd_optax.nnx.find_layers(loss_fn, model, batch), with a loss_fn(model, "
            "batch) that calls the model itself, and singd_optax.nnx.value_and_grad."
        )
    if not isinstance(params, Mapping) or "params" not in params:
        return
    others = [name for name in _COLLECTIONS if name in params]
    if others:
        raise ValueError(
            "`params` are the whole dict of variables that model.init returned, with the "
            f"collections {['params', *others]}: {others} would be trained as parameters. Pass "
            "variables['params'], and the others as arguments of their own: "
            "loss_fn(params, batch_stats, batch) with model.apply({'params': params, "
            "'batch_stats': batch_stats}, ...)."
        )


def check_loss(loss_fn: Any) -> None:
    """Raise unless this is a function.

    Args:
      loss_fn: What the user passed.

    Raises:
      TypeError: It is something else.
    """
    if not callable(loss_fn):
        raise TypeError(
            "`loss_fn` must be a function, loss_fn(params, batch) -> loss, got a "
            f"{type(loss_fn).__name__}."
        )


def check_loss_first(loss_fn: Any, params: Any, what: str = "params") -> None:
    """Raise unless the loss function comes first, and then the parameters.

    Args:
      loss_fn: What the user passed first.
      params: What came second.
      what: What it should be.

    Raises:
      TypeError: They are something else, or exchanged.
    """
    is_function = inspect.isroutine(params) or isinstance(params, functools.partial)
    if is_function and not inspect.isroutine(loss_fn):
        raise TypeError(
            f"find_layers(loss_fn, {what}, batch) takes the loss function first: `loss_fn` is a "
            f"{type(loss_fn).__name__} and `{what}` a {type(params).__name__}. Exchange them."
        )
    check_loss(loss_fn)


def check_named_state(args: tuple[Any, ...], opt_state: Any, spelling: str) -> None:
    """Raise if the optimizer's state came by place, where the loss function's arguments are.

    Args:
      args: What the user passed by place.
      opt_state: What came by name.
      spelling: How it is passed.

    Raises:
      TypeError: One of the arguments is an optimizer's state.
    """
    if opt_state is None and any(_holds_state(arg) for arg in args):
        raise TypeError(
            f"Pass the optimizer's state by name, grad_fn(params, batch, {spelling}): arguments "
            "by place are those of the loss function."
        )


def _holds_state(arg: Any) -> bool:
    return bool(rule_states(getattr(arg, "opt_state", arg)))


def check_not_deleted(tree: Any, what: str) -> None:
    """Raise if arrays were donated to an earlier call and so are no more.

    Args:
      tree: Parameters, or an optimizer state.
      what: What they are, for the message.

    Raises:
      ValueError: An array was deleted.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
        if concrete and leaf.is_deleted():
            raise ValueError(
                f"`{what}` were donated to an earlier call: the array at "
                f"{jax.tree_util.keystr(path)} is deleted. Go on with the params and opt_state "
                "that the step returned, or jit it without donate_argnums."
            )


def check_accumulation(opt_state: Any) -> None:
    """Raise if ``optax.MultiSteps`` would lose statistics.

    Args:
      opt_state: The optimizer's state.

    Raises:
      ValueError: There are factors inside of a ``MultiStepsState``.
    """
    is_leaf = lambda node: isinstance(node, AccumulatedState) or _is_multi_steps(node)
    for node in jax.tree.leaves(opt_state, is_leaf=is_leaf):
        if _is_multi_steps(node) and rule_states(node):
            raise ValueError(
                "optax.MultiSteps accumulates gradients, but hands on the statistics of the last "
                "micro-batch only. Use singd_optax.training.MultiSteps(tx, every_k_schedule, "
                "layers), which accumulates both, or pass the whole batch to "
                "singd_optax.training.microbatch(grad_fn, layers, microbatch_size)."
            )


def _is_multi_steps(node: Any) -> bool:
    # By its fields: this part of the package does not know optax.
    return {"mini_step", "acc_grads", "inner_opt_state"} <= set(getattr(node, "_fields", ()))
