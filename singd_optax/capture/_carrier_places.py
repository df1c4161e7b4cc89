"""Where what measures a stacked layer can travel, so that it arrives at each of its calls."""

from collections.abc import Mapping, Sequence

import jax

from singd_optax._types import PyTree
from singd_optax.capture._analysis import ByPath, LossAnalysis, Traceable, analyse_loss
from singd_optax.capture._recording import RecordingSession, TrialCarrier
from singd_optax.capture._replay import Replay
from singd_optax.capture._resolved_calls import ParameterSlice, locate
from singd_optax.layers import LayerSpec

_SLICED = "a loop, a vmap or one jitted function goes over its slices, and what measures it "
_REMEDY = ". Do that inside of the Flax module, or with singd_optax.plain_params(params)"


def places_of_carriers(
    analysis: LossAnalysis, kernels: set[str]
) -> tuple[Replay[dict[str, str]], set[str]]:
    """Where modules are given whole parameters, of these kernels, that are sliced further inside.

    Returns:
      For each root, place there -> path of the kernel; and the kernels that have such a place.
    """
    places: Replay[dict[str, str]] = Replay()
    covered: set[str] = set()
    for root, evaluations in analysis.roots:
        here: dict[str, str] = {}
        for number, place in enumerate(root.places):
            found = {locate(one, number) for one in evaluations}
            path = _whole_kernel(analysis, found)
            if path in kernels:
                here[place] = path
        places.add(root.signature, here)
        covered |= set(here.values())
    return places, covered


def _whole_kernel(analysis: LossAnalysis, found: set[ParameterSlice | str]) -> str | None:
    """Which parameter an array is in all evaluations, if it is all of it."""
    one = found.pop() if len(found) == 1 else None
    if (
        not isinstance(one, ParameterSlice)
        or one.stacked
        or one.axes != tuple(range(len(one.axes)))
    ):
        return None
    return analysis.paths[one.parameter] if one.parameter < len(analysis.paths) else None


def place_carriers(
    program: Traceable, analysis: LossAnalysis, specs: list[LayerSpec]
) -> tuple[dict[str, LayerSpec], dict[str, str]]:
    """Layers that something can travel beside, and why others are none; by the kernel's path.

    It is tried: what travels must reach every call, sliced as the kernel is and not changed.
    """
    kernels = {spec.kernel_path: spec for spec in specs}
    refused: dict[str, str] = {}
    while kernels:
        places, inside = places_of_carriers(analysis, set(kernels))
        try:
            second = _with_trials(program, kernels, places, inside)
        except Exception as error:  # what the loss raises without carriers was raised before
            blamed = set(kernels) - inside or set(kernels)
            text = " ".join(str(error).split())[:200]
            why = (
                f"{_SLICED}cannot travel beside it, since the loss pairs its params with another "
                f"tree or changes them ({type(error).__name__}: {text}){_REMEDY}"
            )
        else:
            blamed = set(kernels) - _arrived(second, kernels)
            why = (
                f"{_SLICED}does not arrive at each of its calls as it was, since the loss changes "
                f"its params as a whole{_REMEDY}"
            )
        refused |= dict.fromkeys(blamed, why)
        kernels = {path: spec for path, spec in kernels.items() if path not in blamed}
        if not blamed:
            break
    _, inside = places_of_carriers(analysis, set(kernels))
    return {
        path: spec.riding("module" if path in inside else "params")
        for path, spec in kernels.items()
    }, refused


def _with_trials(
    program: Traceable,
    kernels: Mapping[str, LayerSpec],
    places: Replay[dict[str, str]],
    inside: set[str],
) -> LossAnalysis:
    """What the loss does where something travels beside its kernels."""
    session = RecordingSession()

    def trace(leaves: ByPath, trials: ByPath, arrays: Sequence[PyTree]) -> list[jax.Array]:
        boxed = {path: TrialCarrier(value, path) for path, value in trials.items()}
        session.carriers = places.mapped(
            lambda here: {place: boxed[path] for place, path in here.items()}
        )
        outside = {path: box for path, box in boxed.items() if path not in inside}
        return program.trace(leaves, outside, arrays)

    types = {
        path: jax.ShapeDtypeStruct(spec.kernel_shape, spec.statistics_dtype)
        for path, spec in kernels.items()
    }
    return analyse_loss(program, session, trace, types)


def _arrived(analysis: LossAnalysis, kernels: Mapping[str, LayerSpec]) -> set[str]:
    """The kernels beside which what travels arrives at each call, sliced as they are, unchanged."""
    counted = analysis.output.all_parameters >> len(analysis.paths)
    # A penalty over all leaves would count what travels, too.
    arrived = {path: False for place, path in enumerate(analysis.paths) if counted >> place & 1}
    for resolved in analysis.calls:
        for place, kernel in enumerate(resolved.kernels):
            path = analysis.paths[kernel.parameter]
            if path not in kernels:
                continue
            trial = resolved.trials[place] if resolved.trials else None
            fits = not isinstance(trial, str | None) and trial == kernel._replace(
                parameter=kernel.parameter + len(analysis.paths), is_mapped=False, is_cast=False
            )
            arrived[path] = arrived.get(path, True) and (fits or not resolved.needs_carriers)
    return {path for path, fits in arrived.items() if fits}
