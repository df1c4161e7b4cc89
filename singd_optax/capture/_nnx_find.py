"""Find the Kronecker layers of an NNX model."""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from singd_optax.capture._describe import representative
from singd_optax.capture._find import layers_of, parameter_groups, see_tagged
from singd_optax.capture._nnx_axes import (
    LossReadsAllLeavesError,
    Seen,
    Shape,
    Shapes,
    stacked_axes,
)
from singd_optax.capture._nnx_kinds import read
from singd_optax.capture._nnx_riders import riders_of, riding, variables_by_path, without_riders
from singd_optax.capture._params import split_path
from singd_optax.capture._sighting import Sighting
from singd_optax.capture._tag import tags
from singd_optax.capture._taint import reaches_output
from singd_optax.capture._use import Use
from singd_optax.layers import KFACApprox, Layers, LossAverage, Stacking, join_path, parse_options
from singd_optax.structures import Structure

_tokens = itertools.count()
#: Calls that were seen, by the token of the search that is under way.
_searches: dict[int, list["Call"]] = {}


@flax.struct.dataclass
class Mark:
    """Rides on a parameter while layers are found, and tells at each call which one it is.

    The token makes each search new to every jit cache. The shape of ``value`` tells which axes
    transforms took off.
    """

    value: Any
    path: str = flax.struct.field(pytree_node=False)
    token: int = flax.struct.field(pytree_node=False)


class Call(NamedTuple):
    """One call of a module that has parameters of its own.

    Attributes:
      caller: The module's class.
      use: How it used its kernel, or why it is no Kronecker layer.
      seen: The parameters as the call saw them, by their names in the module.
    """

    caller: str
    use: Use | str
    seen: dict[str, Seen]


def find_layers(
    loss_fn: Callable[..., Any],
    model: nnx.Module,
    *args: Any,
    structures: str | Structure | tuple[str | Structure, str | Structure] = "auto",
    kfac_approx: KFACApprox = "expand",
    loss_average: LossAverage = "batch",
    factor_dtype: DTypeLike | tuple[DTypeLike | None, DTypeLike | None] | None = None,
    curvature_fraction: float = 1.0,
    strict: bool = False,
    wrt: Any = nnx.Param,
    **kwargs: Any,
) -> Layers:
    """The Kronecker layers of an NNX model: ``singd_optax.find_layers`` for NNX.

    The loss function is traced with abstract values, on a copy of the model; nothing is computed,
    and the model is not changed. Print the result: it names every parameter, those that are no
    Kronecker layer with the reason.

    Args:
      loss_fn: ``loss_fn(model, *args, **kwargs)``. What it returns does not matter here.
      model: An NNX module; abstract (``nnx.eval_shape``) or not.
      *args: As for ``loss_fn``; shapes matter only where the model depends on them.
      structures: As for ``singd_optax.find_layers``.
      kfac_approx: As for ``singd_optax.find_layers``.
      loss_average: As for ``singd_optax.find_layers``.
      factor_dtype: As for ``singd_optax.find_layers``.
      curvature_fraction: As for ``singd_optax.find_layers``.
      strict: As for ``singd_optax.find_layers``.
      wrt: Which variables are parameters, as for ``nnx.Optimizer``.
      **kwargs: As for ``loss_fn``.

    Returns:
      The layers; their paths are those of ``nnx.state(model, wrt)``.

    Raises:
      TypeError: ``model`` is no NNX module.
      ValueError: As ``singd_optax.find_layers``.

    Example:
      >>> from flax import nnx
      >>> import jax.numpy as jnp, singd_optax
      >>> model = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
      >>> loss_fn = lambda model, x: jnp.mean(model(x) ** 2)
      >>> singd_optax.nnx.find_layers(loss_fn, model, jnp.ones((8, 5)), structures="dense")
      1 Kronecker layer...
        layer   kind          kernel  K                  C                  sharing ...
        (root)  dense + bias  (5, 3)  6 Dense() float32  3 Dense() float32  expand, ...
    """
    check_model(model)
    options = parse_options(
        "float32",
        structures=structures,
        kfac_approx=kfac_approx,
        loss_average=loss_average,
        factor_dtype=factor_dtype,
        curvature_fraction=curvature_fraction,
    )
    options["factor_dtype"] = factor_dtype  # depends on the dtype of each kernel
    groups = parameter_groups(nnx.as_pure(nnx.state(model, wrt, graph=True)))
    if not groups:
        raise ValueError(
            f"The model, a {type(model).__name__}, has no parameters that `wrt` selects: {wrt}."
        )
    shapes = {
        join_path(path, name): leaf.shape
        for path, group in groups.items()
        for name, leaf in group.items()
    }
    special = _special(variables_by_path(model), shapes)
    plain = {path: shape for path, shape in shapes.items() if path not in special}
    index_of = {path: index for index, path in enumerate(groups)}
    calls: list[Call] = []
    tagged: list[Sighting] = []

    def trace(markers: Shapes) -> dict[str, list[Seen]]:
        tags_seen: list[Sighting] = []
        calls[:] = _trace(loss_fn, model, args, kwargs, markers, shapes, index_of, tags_seen)
        tagged[:] = tags_seen
        seen = defaultdict(list)
        for call in calls:
            for one in call.seen.values():
                seen[one.path].append(one)
        return seen

    axes = stacked_axes(trace, plain)
    by_group: dict[int, list[Sighting]] = defaultdict(list)
    for call in calls:
        for sighting in _sightings(call, groups, index_of, axes):
            by_group[sighting.index].append(sighting)
    for sighting in tagged:
        by_group[sighting.index].append(sighting)
    for path, reason in special.items():
        index = index_of[split_path(path)[0]]
        by_group[index].append(Sighting(index, (), (), "nnx.Variable", reason))
    return layers_of(groups, by_group, options, strict)


def _special(variables: Mapping[str, nnx.Variable], shapes: Shapes) -> dict[str, str]:
    """Parameters that nothing can ride on, and why."""
    reasons = {}
    for path in shapes:
        if path not in variables:
            reasons[path] = "one of several arrays in one variable"
        elif variables[path].ref or variables[path].hijax:
            reasons[path] = "in a variable that is mutable in place (ref or hijax)"
    return reasons


def check_model(model: Any) -> None:
    """Raise unless this is an NNX object.

    Raises:
      TypeError: It is something else.
    """
    if not isinstance(model, nnx.Pytree):
        raise TypeError(
            f"`model` must be an nnx.Module, got a {type(model).__name__}. For params of Flax "
            "Linen, or in plain dicts, use singd_optax.find_layers and singd_optax.value_and_grad."
        )


def _trace(
    loss_fn: Callable[..., Any],
    model: nnx.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    markers: Shapes,
    shapes: Shapes,
    index_of: dict[str, int],
    tagged: list[Sighting],
) -> list[Call]:
    """The calls of the modules whose parameters carry markers of these shapes."""
    token = next(_tokens)
    leaves, treedef = jax.tree.flatten((args, kwargs), is_leaf=_is_graph)
    is_graph = [_is_graph(leaf) for leaf in leaves]
    nodes = [model, *(leaf for leaf, graph in zip(leaves, is_graph, strict=True) if graph)]
    graphdef, state = nnx.split(nodes, graph=True)
    others = [leaf for leaf, graph in zip(leaves, is_graph, strict=True) if not graph]
    flat, structure = jax.tree.flatten((state, others))
    is_array = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in flat]

    def traced(values: dict[str, Any], arrays: list[Any]) -> Any:
        supply = iter(arrays)
        full = [next(supply) if array else x for x, array in zip(flat, is_array, strict=True)]
        state, others = jax.tree.unflatten(structure, full)
        rebuilt, *graphs = nnx.merge(graphdef, state)
        parts = (iter(others), iter(graphs))
        args, kwargs = jax.tree.unflatten(treedef, [next(parts[graph]) for graph in is_graph])
        variables = variables_by_path(rebuilt)
        params = {path: variables[path].get_raw_value() for path in shapes if path in variables}
        marks = {path: Mark(value, path, token) for path, value in values.items()}
        with tags(params, see_tagged(tagged, index_of, token)), riding(rebuilt, marks, _see):
            output = without_riders(loss_fn(rebuilt, *args, **kwargs))
            return [leaf for leaf in jax.tree.leaves(output) if hasattr(leaf, "dtype")]

    values = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in markers.items()}
    arrays = [leaf for leaf, array in zip(flat, is_array, strict=True) if array]
    seen = _searches[token] = []
    try:
        jaxpr = jax.make_jaxpr(traced)(values, arrays)
    finally:
        del _searches[token]
    if reaches_output(jaxpr, [i < len(values) for i in range(len(jaxpr.jaxpr.invars))]):
        raise LossReadsAllLeavesError(
            "`loss_fn` goes over all leaves of the model's parameters, as an L2 penalty or a norm "
            "does. While layers are found and measured, parameters carry more "
            "than their arrays, which would be counted too. Inside loss_fn, use "
            "singd_optax.nnx.plain_params(nnx.state(model, nnx.Param)) there (or the optimizer's "
            "weight_decay)."
        )
    return seen


def _is_graph(node: Any) -> bool:
    return isinstance(node, nnx.Pytree | nnx.Variable)


def _see(
    module: Any,
    method: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Note how a call uses its parameters."""
    output = function(module, *args, **kwargs)
    riders = {name: rider for name, rider in riders_of(module).items() if isinstance(rider, Mark)}
    token = next((mark.token for mark in riders.values()), None)
    if token not in _searches or not (args or kwargs):
        return output
    inputs, others = split_arguments(args, kwargs)
    name = type(module).__name__
    use = read(module, method, function, inputs, others)
    if isinstance(use, Use):
        if not use.fits(jnp.asarray(inputs), output):
            use = f"{name}: its outputs are no product of its inputs with the kernel"
        else:
            use.weights(jnp.asarray(inputs), output, name)
    seen = {
        key: Seen(mark.path, getattr(module, key).shape, jnp.shape(mark.value))
        for key, mark in riders.items()
    }
    _searches[token].append(Call(name, use, seen))
    return output


def split_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The inputs, which come first by place or by name, and (other args, other kwargs)."""
    if args:
        return args[0], (args[1:], kwargs)
    named = dict(kwargs)
    name = next((n for n in ("inputs", "query") if n in named), next(iter(named)))
    return named.pop(name), ((), named)


def _sightings(
    call: Call,
    groups: dict[str, Any],
    index_of: dict[str, int],
    axes: dict[str, Shape | None],
) -> list[Sighting]:
    """What a call says of each group of parameters that it used."""
    caller, use, seen = call
    kernel_path = ""
    if isinstance(use, Use) and use.kernel in seen:
        kernel_path = seen[use.kernel].path
    if isinstance(use, Use):
        use = _renamed(call, use, axes)
    if isinstance(use, str):
        indices = {index_of[split_path(one.path)[0]] for one in seen.values()}
        return [Sighting(index, (), (), caller, use) for index in indices]
    group = split_path(kernel_path)[0]
    removed = axes[kernel_path] or ()
    own = Stacking(removed).split(representative(groups[group]).shape)[1]
    return [Sighting(index_of[group], removed, own, caller, use)]


def _renamed(call: Call, use: Use, axes: dict[str, Shape | None]) -> Use | str:
    """The use with parameters named by their paths: a shared one may have another name here."""
    kernel = call.seen.get(use.kernel)
    if kernel is None:
        return f"{call.caller}: its {use.kernel} is not among the parameters"
    group, name = split_path(kernel.path)
    if axes[kernel.path] is None:
        return f"{call.caller}: used with different or unknown axes taken off by vmap or scan"
    if use.bias is None:
        return dataclasses.replace(use, kernel=name)
    bias = call.seen.get(use.bias)
    if bias is None or split_path(bias.path)[0] != group:
        return f"{call.caller}: its bias is not beside its kernel in the model"
    if axes[bias.path] != axes[kernel.path]:
        return f"{call.caller}: its kernel and its bias are stacked along different axes"
    return dataclasses.replace(use, kernel=name, bias=split_path(bias.path)[1])
