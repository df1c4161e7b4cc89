"""Find the Kronecker layers of a model from abstract evaluations of its loss."""

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax.capture._calls import Located, locate
from singd_optax.capture._describe import describe, layers_of
from singd_optax.capture._mistakes import check_not_variables
from singd_optax.capture._params import split_path
from singd_optax.capture._program import ParamsProgram
from singd_optax.capture._recorder import Analysis, Probe, Recorder, analyse
from singd_optax.capture._sequences import Sequences
from singd_optax.layers import (
    KFACApprox,
    Layers,
    LayerSpec,
    LossAverage,
    OtherParameter,
    parse_options,
)
from singd_optax.structures import Structure


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
      1 Kronecker layer with 100.0% of the parameters, 156 B of factors (AdamW's moments of the same parameters: 144 B)
        layer   kind          kernel  K                  C                     sharing ...
        params  dense + bias  (5, 3)  6 Dense() float32  3 Diagonal() float32  expand, ...
    """
    check_not_variables(params)
    program = ParamsProgram(loss_fn, params, args, kwargs)
    if not program.leaves:
        raise ValueError(
            "`params` hold no Kronecker layer: there are no arrays in them, got a "
            f"{type(params).__name__}. Pass the params of a model, for example "
            "model.init(key, x)['params']."
        )
    return found(
        program,
        {},
        strict,
        structures=structures,
        kfac_approx=kfac_approx,
        loss_average=loss_average,
        factor_dtype=factor_dtype,
        curvature_fraction=curvature_fraction,
    )


def found(program: Any, reasons: Mapping[str, str], strict: bool, **options: Any) -> Layers:
    """The layers of a program, whatever it is a program of.

    Args:
      program: What is traced: its ``leaves`` are parameters by path.
      reasons: Why some parameters can be in no layer.
      strict: As for ``find_layers``.
      **options: Of the layers.

    Raises:
      ValueError: As ``find_layers``.
    """
    checked = parse_options("float32", **options)
    checked["factor_dtype"] = options["factor_dtype"]  # depends on the dtype of each kernel
    types = {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in program.leaves.items()}
    analysis = analyse(program.trace, program.leaves, {}, program.arrays, Recorder())
    specs, others, problems = describe(analysis, types, checked, reasons)
    moving = [spec for spec in specs if spec.rider is not None]
    if moving:
        placed, refused = _place_riders(program, analysis, moving)
        if refused:
            known = {**reasons, **refused}
            specs, others, problems = describe(analysis, types, checked, known)
            problems |= refused
        specs = [placed.get(spec.kernel_path, spec) for spec in specs]
    layers = layers_of(specs, others)
    left = [other for other in others if len(other.shape) >= 2]
    if strict and left:
        _raise_left(left)
    _warn_of_gaps(layers, problems)
    return layers


def places_of_riders(
    analysis: Analysis, kernels: set[str]
) -> tuple[Sequences[dict[str, str]], set[str]]:
    """Where modules are given whole parameters that are sliced further inside.

    Args:
      analysis: What the loss does.
      kernels: The paths of kernels that something has to ride beside.

    Returns:
      For each root, place there -> path of the kernel; and the kernels that have such a place.
    """
    places: Sequences[dict[str, str]] = Sequences()
    covered: set[str] = set()
    for root, marked in analysis.roots:
        here: dict[str, str] = {}
        for number, place in enumerate(root.places):
            path = _whole_kernel(analysis, [(m.operands[number], m.mapped[number]) for m in marked])
            if path in kernels:
                here[place] = path
        places.add(root.signature, here)
        covered |= set(here.values())
    return places, covered


def _whole_kernel(analysis: Analysis, evaluations: list[tuple[Any, int]]) -> str | None:
    """Which parameter an array is in all evaluations, if it is all of it."""
    found = {locate(known, mapped) for known, mapped in evaluations}
    one = found.pop() if len(found) == 1 else None
    if not isinstance(one, Located) or one.stacked or one.axes != tuple(range(len(one.axes))):
        return None
    return analysis.paths[one.parameter] if one.parameter < len(analysis.paths) else None


def _place_riders(
    program: Any, analysis: Analysis, specs: list[LayerSpec]
) -> tuple[dict[str, LayerSpec], dict[str, str]]:
    """Layers that something can ride beside, and why others are none; by the kernel's path.

    It is tried: probes must reach every call, sliced as the kernel is and not changed.
    """
    kernels = {spec.kernel_path: spec for spec in specs}
    refused: dict[str, str] = {}
    while kernels:
        places, inside = places_of_riders(analysis, set(kernels))
        probes = {p: jax.ShapeDtypeStruct(s.kernel_shape, jnp.float32) for p, s in kernels.items()}

        def trace(
            leaves: Any, probes: Any, arrays: Any, places: Any = places, inside: Any = inside
        ) -> Any:
            boxed = {path: Probe(value, path) for path, value in probes.items()}
            recorder.riders = places.mapped(
                lambda here: {at: boxed[path] for at, path in here.items()}
            )
            outside = {path: box for path, box in boxed.items() if path not in inside}
            return program.trace(leaves, outside, arrays)

        recorder = Recorder()
        try:
            second = analyse(trace, program.leaves, probes, program.arrays, recorder)
        except Exception as error:  # what the loss raises without riders was raised before
            blamed = set(kernels) - inside or set(kernels)
            text = " ".join(str(error).split())[:200]
            why = (
                "a loop, a vmap or one jitted function goes over its slices, and what measures it "
                "cannot travel beside it, since the loss pairs its params with another tree or "
                f"changes them ({type(error).__name__}: {text}). Do that inside the Flax module, or "
                "with singd_optax.plain_params(params)"
            )
        else:
            blamed = set(kernels) - _arrived(second, kernels)
            why = (
                "a loop, a vmap or one jitted function goes over its slices, and what measures it "
                "does not arrive at each of its calls as it was, since the loss changes its params "
                "as a whole. Do that inside the Flax module, or with singd_optax.plain_params(params)"
            )
            if not blamed:
                return {
                    path: spec.riding("module" if path in inside else "params")
                    for path, spec in kernels.items()
                }, refused
        refused |= dict.fromkeys(blamed, why)
        kernels = {path: spec for path, spec in kernels.items() if path not in blamed}
    return {}, refused


def _arrived(analysis: Analysis, kernels: Mapping[str, LayerSpec]) -> set[str]:
    """The kernels whose probes are, at each of their calls, sliced as they are and unchanged."""
    output = analysis.output
    counted = (output.parameters | output.penalties | output.products) >> len(analysis.paths)
    # A penalty over all leaves would count what rides, too.
    arrived = {
        path: False for place, path in enumerate(analysis.paths) if counted >> place & 1
    }
    for resolved in analysis.calls:
        for place, kernel in enumerate(resolved.kernels):
            path = analysis.paths[kernel.parameter]
            if path not in kernels:
                continue
            probe = resolved.probes[place] if resolved.probes else None
            fits = not isinstance(probe, str | None) and probe == kernel._replace(
                parameter=kernel.parameter + len(analysis.paths), is_mapped=False
            )
            arrived[path] = arrived.get(path, True) and (fits or not resolved.needs_riders)
    return {path for path, fits in arrived.items() if fits}


def _raise_left(left: list[OtherParameter]) -> None:
    reasons = "\n".join(f"  {path} {shape}: {reason}" for path, shape, reason in left)
    raise ValueError(
        f"strict=True: no Kronecker layer took these parameters of rank >= 2:\n{reasons}\n"
        "Mark their products with singd_optax.tag, or leave strict out, and the fallback "
        "updates them."
    )


def _warn_of_gaps(layers: Layers, refused: Mapping[str, str]) -> None:
    """Warn of kernels that are multiplied but not measured, or where most parameters are outside."""
    if refused:
        lines = "\n".join(f"  {path}: {reason}" for path, reason in refused.items())
        warnings.warn(
            "The loss function multiplies with these kernels in a way that cannot be measured, so "
            f"that they are no Kronecker layers, and the fallback updates them:\n{lines}",
            stacklevel=4,
        )
    if layers.coverage < 0.5:
        groups: dict[tuple[str, str], int] = defaultdict(int)
        for path, shape, reason in layers.others:
            groups[split_path(path)[0] or "(root)", reason] += math.prod(shape)
        total = sum(groups.values()) / (1 - layers.coverage)
        largest = sorted(groups.items(), key=lambda item: -item[1])[:5]
        lines = "\n".join(
            f"  {size / total:.0%} {group}: {reason}" for (group, reason), size in largest
        )
        warnings.warn(
            f"Only {layers.coverage:.0%} of the parameters are in Kronecker layers; the fallback "
            f"updates all others. The largest parts of these:\n{lines}\nPrint the layers for all. "
            "Products in code of one's own are marked with singd_optax.tag, and modules of others "
            "made known with singd_optax.register_layer.",
            stacklevel=4,
        )
