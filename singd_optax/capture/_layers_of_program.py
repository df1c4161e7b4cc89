"""From a loss function to its layers, whatever framework its model is of."""

import math
import warnings
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import jax
from jax.typing import DTypeLike

from singd_optax.capture._analysis import Traceable, analyse_loss
from singd_optax.capture._carrier_places import place_carriers
from singd_optax.capture._describe import describe, layers_of
from singd_optax.capture._params import split_path
from singd_optax.capture._recording import RecordingSession
from singd_optax.layers import KFACApprox, Layers, LossAverage, OtherParameter
from singd_optax.layers._spec import CurvatureFraction, parse_options
from singd_optax.structures import Structure

#: A structure or the pair for (K, C), and likewise a dtype, as users state them.
StructurePair: TypeAlias = str | Structure | tuple[str | Structure, str | Structure]
FactorDtypes: TypeAlias = DTypeLike | tuple[DTypeLike | None, DTypeLike | None] | None


class LayerOptions(NamedTuple):
    """What ``find_layers`` is told beside the loss, see there."""

    structures: StructurePair
    kfac_approx: KFACApprox
    loss_average: LossAverage
    factor_dtype: FactorDtypes
    curvature_fraction: CurvatureFraction
    strict: bool


def layers_of_program(
    program: Traceable, reasons: Mapping[str, str], options: LayerOptions
) -> Layers:
    """The layers of a program; ``reasons`` say why some parameters can be in none."""
    given = options._asdict()
    strict = given.pop("strict")
    checked = parse_options("float32", **given)
    checked["factor_dtype"] = options.factor_dtype  # depends on the dtype of each kernel
    types = {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in program.leaves.items()}
    analysis = analyse_loss(program, RecordingSession())
    specs, others, problems = describe(analysis, types, checked, reasons)
    moving = [spec for spec in specs if spec.rider is not None]
    if moving:
        placed, refused = place_carriers(program, analysis, moving)
        if refused:
            known = {**reasons, **refused}
            specs, others, problems = describe(analysis, types, checked, known)
            problems |= refused
        specs = [placed.get(spec.kernel_path, spec) for spec in specs]
    layers = layers_of(specs, others)
    if strict:
        _check_nothing_left(others)
    _warn_of_gaps(layers, problems)
    return layers


def _check_nothing_left(others: list[OtherParameter]) -> None:
    left = [other for other in others if len(other.shape) >= 2]
    if not left:
        return
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
