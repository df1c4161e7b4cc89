"""Find the Kronecker layers of a model from abstract evaluations of its loss."""

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.typing import DTypeLike

from singd_optax._validate import check_flag
from singd_optax.capture._describe import describe, layers_of
from singd_optax.capture._mistakes import check_loss_first, check_not_variables
from singd_optax.capture._params import split_path
from singd_optax.capture._placing import place_riders
from singd_optax.capture._program import ParamsProgram
from singd_optax.capture._recorder import Recorder, analyse
from singd_optax.layers import (
    KFACApprox,
    Layers,
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
      TypeError: ``params`` are a state or a module of Flax NNX.
      ValueError: The model has no Kronecker layer, an option is not legal, or ``params`` are all
        variables of the model; or ``strict``, and a parameter of rank >= 2 is left over.

    Warns:
      UserWarning: A kernel is multiplied in a way that cannot be measured, so that it is in no
        layer; or less than half of the parameters are in layers.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> find_layers(loss_fn, params, x, structures=("dense", "diagonal"))
      1 Kronecker layer with 100.0% of the parameters, 156 B of factors (AdamW's moments of ...
        layer   kind          kernel  K                  C                     sharing ...
        params  dense + bias  (5, 3)  6 Dense() float32  3 Diagonal() float32  expand, ...
    """
    check_loss_first(loss_fn, params)
    check_flag("strict", strict)
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
        placed, refused = place_riders(program, analysis, moving)
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


def _raise_left(left: list[OtherParameter]) -> None:
    reasons = "\n".join(f"  {path} {shape}: {reason}" for path, shape, reason in left)
    raise ValueError(
        f"strict=True: no Kronecker layer took these parameters of rank >= 2:\n{reasons}\n"
        "Mark their products with singd_optax.tag, or leave strict out, and the fallback "
        "updates them."
    )


def _warn_of_gaps(layers: Layers, refused: Mapping[str, str]) -> None:
    """Warn of kernels that are not measured, and where most parameters are outside of layers."""
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
        total = max(sum(groups.values()) / (1 - layers.coverage), 1)
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
