"""What users get wrong, seen before anything is traced."""

import functools
import inspect
from collections.abc import Mapping

import jax

from singd_optax._types import PyTree
from singd_optax.layers import measured_states, rule_states
from singd_optax.layers._states import AccumulatedState

#: Collections that Flax modules make beside "params", and that no gradient belongs to.
_COLLECTIONS = ("batch_stats", "cache", "intermediates")


def check_not_variables(params: PyTree) -> None:
    """Raise if these are an NNX state or module, or all variables of a model."""
    if type(params).__module__.startswith("flax.nnx"):
        raise TypeError(
            f"`params` must be a tree of arrays, got a {type(params).__name__} of Flax NNX. For "
            "NNX models, write layers = singd_optax.nnx.find_layers(loss_fn, model, batch), with a "
            "loss_fn(model, batch) that calls the model itself, and singd_optax.nnx.value_and_grad."
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


def check_loss(loss_fn: object) -> None:
    """Raise unless this is a function."""
    if not callable(loss_fn):
        raise TypeError(
            "`loss_fn` must be a function, loss_fn(params, batch) -> loss, got a "
            f"{type(loss_fn).__name__}."
        )


def check_loss_first(loss_fn: object, params: PyTree, what: str = "params") -> None:
    """Raise unless the loss function comes first, and then the parameters (``what`` they are)."""
    is_function = inspect.isroutine(params) or isinstance(params, functools.partial)
    if is_function and not inspect.isroutine(loss_fn):
        raise TypeError(
            f"find_layers(loss_fn, {what}, batch) takes the loss function first: `loss_fn` is a "
            f"{type(loss_fn).__name__} and `{what}` a {type(params).__name__}. Exchange them."
        )
    check_loss(loss_fn)


def check_named_state(args: tuple[PyTree, ...], opt_state: PyTree, spelling: str) -> None:
    """Raise if the optimizer's state came by place, and not as ``spelling`` says."""
    if opt_state is None and any(_holds_state(arg) for arg in args):
        raise TypeError(
            f"Pass the optimizer's state by name, grad_fn(params, batch, {spelling}): it was "
            "passed by place, and such arguments are those of the loss function."
        )


def _holds_state(arg: object) -> bool:
    return bool(rule_states(getattr(arg, "opt_state", arg)))


def check_not_deleted(tree: PyTree, what: str) -> None:
    """Raise if arrays of a tree (``what`` it is) were donated to an earlier call."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
        if concrete and leaf.is_deleted():
            raise ValueError(
                f"`{what}` were donated to an earlier call: the array at "
                f"{jax.tree_util.keystr(path)} is deleted. Go on with the params and opt_state "
                "that the step returned, or jit it without donate_argnums."
            )


def check_accumulation(opt_state: PyTree) -> None:
    """Raise if there are factors inside of a ``MultiStepsState``, which would lose statistics."""
    is_leaf = lambda node: isinstance(node, AccumulatedState) or _is_multi_steps(node)
    for node in jax.tree.leaves(opt_state, is_leaf=is_leaf):
        if _is_multi_steps(node) and measured_states(node):
            raise ValueError(
                "optax.MultiSteps accumulates gradients, but hands on the statistics of the last "
                "micro-batch only. Use singd_optax.training.MultiSteps(tx, every_k_schedule, "
                "layers), which accumulates both, or pass the whole batch to "
                "singd_optax.training.microbatch(grad_fn, layers, microbatch_size)."
            )


def _is_multi_steps(node: object) -> bool:
    # By its fields: this part of the package does not know optax.
    return {"mini_step", "acc_grads", "inner_opt_state"} <= set(getattr(node, "_fields", ()))
