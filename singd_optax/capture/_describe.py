"""From what a program does with its parameters to the layers that they make."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import jax

from singd_optax._types import PyTree
from singd_optax.capture._analysis import LossAnalysis
from singd_optax.capture._dependence import Dependence
from singd_optax.capture._kernel_use import KernelUse, is_transposed
from singd_optax.capture._origins import Origin
from singd_optax.capture._params import split_path
from singd_optax.capture._resolved_calls import ParameterSlice, ResolvedCall, layout_in
from singd_optax.layers import Layers, LayerSpec, Layout, OtherParameter, Stacking
from singd_optax.layers._spec import EMBED, parse_options

#: The types of parameters, by path.
Types = Mapping[str, jax.ShapeDtypeStruct]

#: The dtypes that kernels of layers have.
DTYPES = ("float32", "bfloat16", "float16", "float64")

#: Why a kernel is in no layer though it is measured in some calls.
RAW = (
    "also used outside of the calls that are measured (a product with the array itself, as h @ "
    "embedding.T, or a sum with activations), so that its statistics would be those of a part of "
    "the loss. Mark that product with singd_optax.tag, or call the layer (attend) there"
)


class ResolvedUse(NamedTuple):
    """One call's use of a kernel.

    Attributes:
      resolved: The call.
      kernel: The kernel there.
      bias: The bias there, or None.
      use: How it is used.
      layout: Which axes of the parameter, without its stacked ones, are what.
    """

    resolved: ResolvedCall
    kernel: ParameterSlice
    bias: ParameterSlice | None
    use: KernelUse
    layout: Layout


def uses_by_kernel(analysis: LossAnalysis) -> dict[str, list[ResolvedUse]]:
    """The calls that are measured, by the path of the kernel that they use."""
    found: dict[str, list[ResolvedUse]] = defaultdict(list)
    for resolved in analysis.calls:
        use = resolved.recorded.use
        if not resolved.is_counted or resolved.problem is not None or isinstance(use, str):
            continue
        pairs = dict.fromkeys(zip(resolved.kernels, resolved.biases, strict=True))
        for kernel, bias in pairs:
            layout = layout_in(kernel, use.layout)
            using = ResolvedUse(resolved, kernel, bias, use, layout)
            found[analysis.paths[kernel.parameter]].append(using)
    return dict(found)


def describe(
    analysis: LossAnalysis, types: Types, options: dict[str, PyTree], reasons: Mapping[str, str]
) -> tuple[list[LayerSpec], list[OtherParameter], dict[str, str]]:
    """The layers, why all other parameters are in none, and which of these were meant to be one.

    ``types`` are in the order of the tree; ``reasons`` why parameters can be in none, known before.
    """
    why = dict(reasons)
    specs: dict[str, LayerSpec] = {}
    refused: dict[str, str] = {}
    for path, uses in uses_by_kernel(analysis).items():
        spec = _spec(path, uses, analysis, types, options) if path not in why else why[path]
        if isinstance(spec, str):
            why[path] = spec
            refused.setdefault(path, spec)
        else:
            specs[path] = spec
    for path, problem, is_kernel in _problems(analysis):
        if path in specs and is_kernel:
            del specs[path]
            why[path] = problem
        elif path not in specs:
            why.setdefault(path, problem)
        if is_kernel and path not in reasons:
            refused.setdefault(path, problem)
    taken = {path for spec in specs.values() for path in spec.shapes}
    ordered = [_named(specs[path], specs.values()) for path in types if path in specs]
    alone = {split_path(path)[0]: path for path in refused}
    others = [
        OtherParameter(path, array.shape, why.get(path) or _reason(path, analysis, specs, alone))
        for path, array in types.items()
        if path not in taken
    ]
    return ordered, others, refused


def layers_of(specs: list[LayerSpec], others: list[OtherParameter]) -> Layers:
    """The layers.

    Raises:
      ValueError: There is none.
    """
    if specs:
        return Layers(tuple(specs), tuple(others))
    lines = "\n".join(f"  {path} {shape}: {reason}" for path, shape, reason in others)
    raise ValueError(
        "`params` hold no Kronecker layer that `loss_fn` uses. Parameters and why:\n"
        f"{lines}\nProducts in code that is no Flax module are marked by hand: write "
        "y = singd_optax.tag(x @ w, x, w) where the loss function has y = x @ w; modules of others "
        "are made known with singd_optax.register_layer. Or use optax.adamw alone for this model; "
        "or pass the loss function and the params of the model that you train."
    )


def _spec(
    path: str,
    uses: list[ResolvedUse],
    analysis: LossAnalysis,
    types: Types,
    options: dict[str, PyTree],
) -> LayerSpec | str:
    """The layer of one kernel, or the reason why it is none."""
    callers = ", ".join(sorted({one.resolved.recorded.call.caller for one in uses}))
    array = types[path]
    own = next((one for one in uses if one.use.kind == EMBED), uses[0])
    if array.dtype.name not in DTYPES:
        return f"{callers}: its kernel is {array.dtype.name}, none of {', '.join(DTYPES)}"
    if 0 in array.shape:
        return f"{callers}: an axis of its kernel has no elements"
    if analysis.output.products >> own.kernel.parameter & 1:
        return f"{callers}: its kernel is {RAW}"
    if len({one.kernel.stacked for one in uses}) > 1:
        return f"{callers}: used with different axes taken off by vmap or scan"
    tied = any(is_transposed(one.layout, own.layout) for one in uses)
    if any(one.layout != own.layout and not is_transposed(one.layout, own.layout) for one in uses):
        return f"{callers}: its kernel is used as different matrices"
    biases = {None if one.bias is None else analysis.paths[one.bias.parameter] for one in uses}
    if len(biases) > 1 or (tied and biases != {None}):
        return f"{callers}: used with and without its bias, or as a transpose with a bias"
    bias_path = biases.pop()
    bias = None if bias_path is None else types[bias_path]
    if own.bias is not None and analysis.output.products >> own.bias.parameter & 1:
        return f"{callers}: its bias is {RAW}"
    stacking = Stacking.at(
        own.kernel.stacked,
        len(array.shape),
        None if own.bias is None else own.bias.stacked,
        0 if bias is None else len(bias.shape),
    )
    if stacking is None:
        return f"{callers}: its kernel and its bias are stacked along different axes"
    is_tag = own.resolved.recorded.call.is_tag
    dtype = array.dtype.name
    return LayerSpec(
        path=path if is_tag else split_path(path)[0],
        kind=own.use.kind,
        kernel_path=path,
        kernel_shape=array.shape,
        bias_path=bias_path,
        bias_shape=None if bias is None else bias.shape,
        dtype=dtype,
        stacking=stacking,
        layout=own.layout,
        tied=tied,
        is_mapped=any(one.kernel.is_mapped or one.use.changes_kernel for one in uses),
        rider="params" if any(one.resolved.needs_carriers for one in uses) else None,
        **parse_options(dtype, **options),
    )


def _named(spec: LayerSpec, specs: Iterable[LayerSpec]) -> LayerSpec:
    """The layer under a name of its own: its kernel's, where one module holds several."""
    same = [other for other in specs if other.path == spec.path]
    return spec if len(same) == 1 else spec.renamed(spec.kernel_path)


def _problems(analysis: LossAnalysis) -> Iterator[tuple[str, str, bool]]:
    """Parameters in calls that are not measured, with the reason, and whether it is the kernel."""
    for resolved in analysis.calls:
        if resolved.problem is None:
            continue
        use = resolved.recorded.call.use
        for name, evaluations in resolved.operands.items():
            is_kernel = isinstance(use, KernelUse) and name == use.kernel
            if is_kernel or isinstance(use, str):
                for value in evaluations:
                    for path in parameters_in(value, analysis.paths):
                        yield path, resolved.problem, is_kernel


def parameters_in(value: Dependence, paths: tuple[str, ...]) -> list[str]:
    """The parameters that an array is made of."""
    origin = value.origin
    if isinstance(origin, Origin) and origin.parameter < len(paths) and not origin.is_stopped:
        return [paths[origin.parameter]]
    return [path for place, path in enumerate(paths) if value.all_parameters >> place & 1]


def _reason(
    path: str, analysis: LossAnalysis, specs: Mapping[str, LayerSpec], refused: Mapping[str, str]
) -> str:
    """Why a parameter is in no layer, where no call says more."""
    if not analysis.output.all_parameters >> analysis.paths.index(path) & 1 and not any(
        path in parameters_in(value, analysis.paths)
        for resolved in analysis.calls
        if resolved.is_counted
        for evaluations in resolved.operands.values()
        for value in evaluations
    ):
        return "not used: the loss does not depend on it"
    group = split_path(path)[0]
    if group in refused:
        return f"beside {refused[group]}, which is in no layer"
    beside = [spec for spec in specs.values() if split_path(spec.kernel_path)[0] == group]
    tags = [one for one in analysis.calls if one.recorded.call.is_tag]
    if tags and all(spec.kind == "tagged" for spec in specs.values()):
        return "not named in any tag"
    if beside:
        return f"beside the kernel of {beside[0].path!r}, but not its bias"
    return "used as it is, by no call of a layer that is measured"
