"""Find the Kronecker layers of a model from one abstract evaluation of its loss."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax.capture._linen import Probe, Sighting, box_value, sightings
from singd_optax.capture._mistakes import check_not_variables
from singd_optax.capture._params import insert_entries
from singd_optax.capture._taint import reaches_output
from singd_optax.layers import (
    KFACApprox,
    Layers,
    LayerSpec,
    LossAverage,
    OtherParameter,
    Stacking,
    join_path,
    parse_options,
)
from singd_optax.structures import Structure

_tokens = itertools.count()

Group = dict[str, jax.ShapeDtypeStruct]


def find_layers(
    loss_fn: Callable[..., Any],
    params: Any,
    *args: Any,
    structures: str | Structure | tuple[str | Structure, str | Structure] = "auto",
    kfac_approx: KFACApprox = "expand",
    loss_average: LossAverage = "batch",
    factor_dtype: DTypeLike | tuple[DTypeLike | None, DTypeLike | None] | None = None,
    **kwargs: Any,
) -> Layers:
    """The Kronecker layers of a model: which kernels they are, and how each is treated.

    The loss function is traced once with abstract values; nothing is computed, and ``params`` and
    ``args`` may be ``jax.ShapeDtypeStruct``s. Print the result: it names every parameter, those
    that are no Kronecker layer with the reason.

    Args:
      loss_fn: ``loss_fn(params, *args, **kwargs)``, which applies Flax Linen modules. What it
        returns does not matter here.
      params: Dicts, FrozenDicts or other containers of arrays, boxed (``nn.Partitioned``) or not.
      *args: As for ``loss_fn``; shapes matter only where the model depends on them.
      structures: Structures of K and C of every layer, see ``parse_structure``; ``"auto"`` is
        dense up to a dim of 1024, and block-diagonal above (see ``structures.Auto``).
      kfac_approx: ``"expand"`` or ``"reduce"``: how shared positions (tokens, pixels) are
        collapsed (arXiv 2311.00636). ``"reduce"`` costs less, and suits models that pool before
        the loss.
      loss_average: Over what the loss is a mean: ``"batch"``, ``"batch+sequence"`` (over tokens
        too), or None for a sum.
      factor_dtype: In which dtype K and C are kept: ``float32``, ``bfloat16``, ``float64`` or None
        (float32, or float64 for float64 kernels); or a pair.
      **kwargs: As for ``loss_fn``.

    Returns:
      The layers, static and hashable. Change some by ``layers.replace(pattern, ...)``.

    Raises:
      ValueError: The model has no Kronecker layer, an option is not legal, the loss function goes
        over all leaves of its params (see ``plain_params``), or ``params`` are all variables of
        the model.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> find_layers(loss_fn, params, x, structures=("dense", "diagonal"))
      1 Kronecker layers, 156 B of factors
        layer   kind          kernel  K                  C                     sharing ...
        params  dense + bias  (5, 3)  6 Dense() float32  3 Diagonal() float32  expand, ...
    """
    options = parse_options(
        "float32",
        structures=structures,
        kfac_approx=kfac_approx,
        loss_average=loss_average,
        factor_dtype=factor_dtype,
    )
    check_not_variables(params)
    options["factor_dtype"] = factor_dtype  # depends on the dtype of each kernel
    groups = _parameter_groups(params)
    if not groups:
        raise ValueError(
            "`params` hold no Kronecker layer: there is no dict with arrays in it, got "
            f"{type(params).__name__}. Pass the params of a Flax model, for example "
            "model.init(key, x)['params']."
        )
    calls = _trace(loss_fn, params, groups, args, kwargs)
    specs, others = [], []
    for index, (path, group) in enumerate(groups.items()):
        spec, reason = _describe(path, group, calls[index], options)
        if spec is not None:
            specs.append(spec)
        used = () if spec is None else (spec.kernel, spec.bias)
        others += [
            OtherParameter(join_path(path, name), leaf.shape, reason)
            for name, leaf in group.items()
            if name not in used
        ]
    if not specs:
        reasons = "\n".join(f"  {path} {shape}: {reason}" for path, shape, reason in others)
        raise ValueError(
            "`params` hold no Kronecker layer that `loss_fn` uses. Parameters and why:\n"
            f"{reasons}\nUse optax.adamw alone for this model, or pass the loss function and the "
            "params of the model that you train."
        )
    return Layers(tuple(specs), tuple(others))


def _parameter_groups(params: Any) -> dict[str, Group]:
    """Path -> the arrays that are direct entries of the mapping there."""
    groups: dict[str, Group] = {}

    def collect(path: str, content: Mapping[str, Any]) -> None:
        leaves = {str(key): box_value(value) for key, value in content.items()}
        arrays = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in leaves.items()
            if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        }
        if arrays:
            groups[path] = arrays

    insert_entries(params, collect)
    return groups


def _trace(
    loss_fn: Callable[..., Any],
    params: Any,
    groups: dict[str, Group],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[int, list[Sighting]]:
    """Sightings by the index of the parameter group."""
    token = next(_tokens)
    index_of = {path: index for index, path in enumerate(groups)}
    values = {
        path: jax.ShapeDtypeStruct(_representative(group).shape, jnp.float32)
        for path, group in groups.items()
    }
    leaves, treedef = jax.tree.flatten((args, kwargs))
    is_array = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]
    arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]

    def traced(values: dict[str, Any], params: Any, arrays: list[Any]) -> Any:
        def probe(path: str, _: Any) -> Probe | None:
            return Probe(values[path], index_of[path], token) if path in values else None

        supply = iter(arrays)
        full = [
            next(supply) if array else leaf for leaf, array in zip(leaves, is_array, strict=True)
        ]
        args, kwargs = jax.tree.unflatten(treedef, full)
        output = loss_fn(insert_entries(params, probe), *args, **kwargs)
        return [leaf for leaf in jax.tree.leaves(output) if hasattr(leaf, "dtype")]

    with sightings(token) as seen:
        jaxpr = jax.make_jaxpr(traced)(values, params, arrays)
    if reaches_output(jaxpr, [i < len(values) for i in range(len(jaxpr.jaxpr.invars))]):
        raise ValueError(
            "`loss_fn` goes over all leaves of its params, as an L2 penalty or a norm does, or "
            "returns them. While layers are found and measured, there is one more entry beside "
            "each kernel, which would be counted too. Inside loss_fn, use "
            "singd_optax.plain_params(params) there (or the optimizer's weight_decay), and pass "
            "params as they are to model.apply."
        )
    calls: dict[int, list[Sighting]] = defaultdict(list)
    for sighting in seen:
        calls[sighting.index].append(sighting)
    return calls


def _representative(group: Group) -> jax.ShapeDtypeStruct:
    """The kernel, or else an array of the highest rank: any transform slices the probe like it."""
    return group.get("kernel") or max(group.values(), key=lambda leaf: leaf.ndim)


def _describe(
    path: str, group: Group, calls: list[Sighting], options: dict[str, Any]
) -> tuple[LayerSpec | None, str]:
    """The layer that a group of parameters is, or the reason why it is none."""
    if not calls:
        return None, "not used by any Flax module that the loss function calls"
    for call in calls:
        if call.kind is None:
            return None, call.reason
    full = _representative(group).shape
    stackings = {infer_stacking(full, call.removed, call.value_shape) for call in calls}
    names = ", ".join(sorted({call.module for call in calls}))
    if len(stackings) > 1 or None in stackings:
        return None, f"{names}: used with different or unknown axes taken off by vmap or scan"
    stacking, kind = stackings.pop(), calls[0].kind
    if stacking is None or kind is None or "kernel" not in group:
        return None, f"{names}: has no kernel"
    if not jnp.issubdtype(group["kernel"].dtype, jnp.floating):
        return None, f"{names}: its kernel is {group['kernel'].dtype.name}, not real floating"
    bias = group.get("bias")
    dtype = group["kernel"].dtype.name
    spec = LayerSpec(
        path=path,
        kind=kind,
        kernel_shape=full,
        bias_shape=None if bias is None else bias.shape,
        dtype=dtype,
        stacking=stacking,
        **parse_options(dtype, **options),
    )
    return spec, f"{names}: beside a kernel, but not its bias"


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
