"""From calls that were seen to the layers that they make."""

from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp

from singd_optax.capture._params import split_path
from singd_optax.capture._sighting import Sighting
from singd_optax.capture._use import Use, is_transposed
from singd_optax.layers import EMBED, LayerSpec, Stacking, join_path, parse_options

#: The arrays that are in one mapping, by name.
Group = dict[str, jax.ShapeDtypeStruct]


def representative(group: Group) -> jax.ShapeDtypeStruct:
    """The kernel, or else an array of the highest rank: any transform slices the probe like it."""
    return group.get("kernel") or max(group.values(), key=lambda leaf: leaf.ndim)


def describe(
    path: str, group: Group, calls: list[Sighting], options: dict[str, Any]
) -> tuple[list[LayerSpec], dict[str, str]]:
    """The layers that a group of parameters makes, and why its other arrays are in none."""
    tagged = {call.array for call in calls if call.tagged}
    by_kernel: dict[str, list[Sighting]] = defaultdict(list)
    reason = next((call.use for call in calls if isinstance(call.use, str)), None)
    for call in calls:
        if isinstance(call.use, Use) and (call.tagged or call.use.kernel not in tagged):
            by_kernel[call.use.kernel].append(call)
    if reason is not None:
        # A module that does more with its parameters than layers do: only tags are trusted.
        by_kernel = defaultdict(list, {k: v for k, v in by_kernel.items() if k in tagged})
    specs: list[LayerSpec] = []
    reasons: dict[str, str] = {}
    for kernel, uses in by_kernel.items():
        spec = _spec(path, group, kernel, uses, options)
        if isinstance(spec, str):
            reasons[kernel] = spec
        else:
            specs.append(spec)
    if reason is None:
        if specs and all(call.tagged for call in calls):
            reason = "not named in any tag"
        elif specs:
            reason = f"{calls[0].caller}: beside a kernel, but not its bias"
        else:
            unused = "not used by any layer that the loss function calls"
            reason = next(iter(reasons.values()), unused)
    taken = {split_path(name)[1] for spec in specs for name in spec.shapes}
    return specs, {n: reasons.get(n, reason) for n in group if n not in taken}


def _spec(
    path: str, group: Group, kernel: str, calls: list[Sighting], options: dict[str, Any]
) -> LayerSpec | str:
    """The layer of one kernel, or the reason why it is none."""
    callers = ", ".join(sorted({call.caller for call in calls}))
    if kernel not in group:
        return f"{callers}: has no {kernel}"
    array = group[kernel]
    stackings = {
        infer_stacking(
            group[call.array].shape if call.array else representative(group).shape,
            call.removed,
            call.seen_shape if call.seen_shape or not call.tagged else array.shape,
        )
        for call in calls
    }
    stacking = stackings.pop()
    if stackings or stacking is None:
        return f"{callers}: used with different or unknown axes taken off by vmap or scan"
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return f"{callers}: its kernel is {array.dtype.name}, not real floating"
    uses = [call.use for call in calls if isinstance(call.use, Use)]
    own = next((use for use in uses if use.kind == EMBED), uses[0])
    tied = any(is_transposed(use.layout, own.layout) for use in uses)
    if any(use.layout != own.layout and not is_transposed(use.layout, own.layout) for use in uses):
        return f"{callers}: its kernel is used as different matrices"
    biases = {use.bias for use in uses}
    if len(biases) > 1 or (tied and biases != {None}):
        return f"{callers}: used with and without its bias, or as a transpose with a bias"
    if len(own.layout.inputs + own.layout.outputs + own.layout.batch) != (
        len(stacking.split(array.shape)[1])
    ):
        return f"{callers}: its kernel has axes that its product does not name"
    bias = None if own.bias is None else group[own.bias]
    kernel_path = join_path(path, kernel)
    dtype = array.dtype.name
    return LayerSpec(
        path=kernel_path if calls[0].tagged else path,
        kind=own.kind,
        kernel_path=kernel_path,
        kernel_shape=array.shape,
        bias_path=None if own.bias is None else join_path(path, own.bias),
        bias_shape=None if bias is None else bias.shape,
        dtype=dtype,
        stacking=stacking,
        layout=own.layout,
        tied=tied,
        **parse_options(dtype, **options),
    )


def infer_stacking(
    full: tuple[int, ...], removed: tuple[int, ...], seen: tuple[int, ...]
) -> Stacking | None:
    """The axes between a parameter's full shape and the shape that a layer saw.

    Args:
      full: The shape in the params tree.
      removed: What lifted Flax transforms announced.
      seen: The shape inside the call.

    Returns:
      The stacking, or None if it cannot be told. Axes that plain ``jax.vmap`` or ``jax.lax.scan``
      took off announce nothing: they are taken to be leading, and outside of Flax's.
    """
    silent = len(full) - len(removed) - len(seen)
    if silent < 0:
        return None
    stacking = Stacking((0,) * silent + removed)
    return stacking if stacking.split(full)[1] == seen else None
