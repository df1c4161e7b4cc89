"""Find the Kronecker layers of a model from one abstract evaluation of its loss."""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax.capture._describe import Group, describe, representative
from singd_optax.capture._linen import Probe, sightings
from singd_optax.capture._mistakes import check_not_variables
from singd_optax.capture._params import insert_entries, split_path
from singd_optax.capture._sighting import Sighting
from singd_optax.capture._tag import Found, tags
from singd_optax.capture._taint import reaches_output
from singd_optax.capture._use import Use
from singd_optax.layers import (
    KFACApprox,
    Layers,
    Leaves,
    LossAverage,
    OtherParameter,
    join_path,
    parse_options,
)
from singd_optax.structures import Structure

_tokens = itertools.count()


def find_layers(
    loss_fn: Callable[..., Any],
    params: Any,
    *args: Any,
    structures: str | Structure | tuple[str | Structure, str | Structure] = "auto",
    kfac_approx: KFACApprox = "expand",
    loss_average: LossAverage = "batch",
    factor_dtype: DTypeLike | tuple[DTypeLike | None, DTypeLike | None] | None = None,
    curvature_fraction: float = 1.0,
    strict: bool = False,
    **kwargs: Any,
) -> Layers:
    """The Kronecker layers of a model: which kernels they are, and how each is treated.

    The loss function is traced once with abstract values; nothing is computed, and ``params`` and
    ``args`` may be ``jax.ShapeDtypeStruct``s. Print the result: it names every parameter, those
    that are no Kronecker layer with the reason.

    Args:
      loss_fn: ``loss_fn(params, *args, **kwargs)``, which applies Flax Linen modules, or marks
        products with ``tag``. What it returns does not matter here.
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
      curvature_fraction: The share of positions that statistics are formed of, in (0, 1], others
        in each refresh: every k-th, k the largest divisor of their number up to the inverse. For
        convolutions and ``"reduce"``, of examples. Unbiased, and a refresh costs that much less.
      strict: Whether to raise if there is a parameter of rank >= 2 that no layer took.
      **kwargs: As for ``loss_fn``.

    Returns:
      The layers, static and hashable. Change some by ``layers.replace(pattern, ...)``.

    Raises:
      ValueError: The model has no Kronecker layer, an option is not legal, the loss function goes
        over all leaves of its params (see ``plain_params``), or ``params`` are all variables of
        the model; or ``strict``, and a parameter of rank >= 2 is left over.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> find_layers(loss_fn, params, x, structures=("dense", "diagonal"))
      1 Kronecker layer, 156 B of factors (AdamW's moments of the same parameters: 144 B)
        layer   kind          kernel  K                  C                     sharing ...
        params  dense + bias  (5, 3)  6 Dense() float32  3 Diagonal() float32  expand, ...
    """
    options = parse_options(
        "float32",
        structures=structures,
        kfac_approx=kfac_approx,
        loss_average=loss_average,
        factor_dtype=factor_dtype,
        curvature_fraction=curvature_fraction,
    )
    check_not_variables(params)
    options["factor_dtype"] = factor_dtype  # depends on the dtype of each kernel
    groups = parameter_groups(params)
    if not groups:
        raise ValueError(
            "`params` hold no Kronecker layer: there are no arrays in them, got a "
            f"{type(params).__name__}. Pass the params of a model, for example "
            "model.init(key, x)['params']."
        )
    calls = _trace(loss_fn, params, groups, args, kwargs)
    return layers_of(groups, calls, options, strict)


def layers_of(
    groups: dict[str, Group],
    calls: dict[int, list[Sighting]],
    options: dict[str, Any],
    strict: bool,
) -> Layers:
    """The layers that the calls show, and why all other parameters are in none.

    Args:
      groups: Parameters by the path of what holds them.
      calls: Sightings by the index of the group.
      options: Of the layers.
      strict: As for ``find_layers``.

    Raises:
      ValueError: As ``find_layers``.
    """
    specs, others = [], []
    for index, (path, group) in enumerate(groups.items()):
        found, reasons = describe(path, group, calls[index], options)
        specs += found
        others += [
            OtherParameter(join_path(path, name), group[name].shape, reason)
            for name, reason in reasons.items()
        ]
    if not specs:
        lines = "\n".join(f"  {path} {shape}: {reason}" for path, shape, reason in others)
        raise ValueError(
            "`params` hold no Kronecker layer that `loss_fn` uses. Parameters and why:\n"
            f"{lines}\nUse optax.adamw alone for this model, or pass the loss function and the "
            "params of the model that you train."
        )
    if strict:
        _check_all_taken(others)
    return Layers(tuple(specs), tuple(others))


def _check_all_taken(others: Sequence[OtherParameter]) -> None:
    left = [other for other in others if len(other.shape) >= 2]
    if left:
        reasons = "\n".join(f"  {path} {shape}: {reason}" for path, shape, reason in left)
        raise ValueError(
            f"strict=True: no Kronecker layer took these parameters of rank >= 2:\n{reasons}\n"
            "Mark their products with singd_optax.tag, or leave strict out, and the fallback "
            "updates them."
        )


def parameter_groups(params: Any) -> dict[str, Group]:
    """Path -> the arrays that have this path and one more key."""
    leaves = Leaves(params)
    groups: dict[str, Group] = {}
    for path in leaves:
        leaf = leaves[path]
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            group, name = split_path(path)
            groups.setdefault(group, {})[name] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
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
        path: jax.ShapeDtypeStruct(representative(group).shape, jnp.float32)
        for path, group in groups.items()
    }
    leaves, treedef = jax.tree.flatten((args, kwargs))
    is_array = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]
    arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]

    seen: list[Sighting] = []

    def traced(values: dict[str, Any], params: Any, arrays: list[Any]) -> Any:
        def probe(path: str, _: Any) -> Probe | None:
            return Probe(values[path], index_of[path], token) if path in values else None

        supply = iter(arrays)
        full = [
            next(supply) if array else leaf for leaf, array in zip(leaves, is_array, strict=True)
        ]
        args, kwargs = jax.tree.unflatten(treedef, full)
        with tags(params, see_tagged(seen, index_of, token)):
            output = loss_fn(insert_entries(params, probe), *args, **kwargs)
        return [leaf for leaf in jax.tree.leaves(output) if hasattr(leaf, "dtype")]

    with sightings(token, seen):
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


def see_tagged(seen: list[Sighting], index_of: dict[str, int], token: int) -> Any:
    """The listener for ``tag`` that notes what it sees."""

    def listener(
        found: Found, use: Use, kernel: Any, inputs: jax.Array, outputs: jax.Array
    ) -> jax.Array:
        use.weights(inputs, outputs, found.path)
        if isinstance(found.entry, Probe) and found.entry.token == token:
            probe = found.entry
            seen.append(Sighting(probe.index, probe.removed, kernel.shape, "tag", use, found.path))
        elif found.entry is None:
            group, name = split_path(found.path)
            bias = use.bias
            if bias is not None:
                bias_group, bias = split_path(bias)
                if bias_group != group:
                    raise ValueError(
                        f"tag: the bias {use.bias!r} is not beside its kernel {found.path!r}. Tag "
                        "the product alone, before the bias is added."
                    )
            shape = () if isinstance(kernel, str) else kernel.shape
            named = dataclasses.replace(use, kernel=name, bias=bias)
            seen.append(Sighting(index_of[group], (), shape, "tag", named, name))
        return outputs

    return listener
