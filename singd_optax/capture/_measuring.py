"""What is needed to measure the layers of a loss function in one trace of it."""

import math
import warnings
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.capture._analysis import Traceable, analyse_loss
from singd_optax.capture._carrier_places import places_of_carriers
from singd_optax.capture._carriers import TapCarrier
from singd_optax.capture._describe import uses_by_kernel
from singd_optax.capture._fisher import Fisher, Sampling, common_loss_average, sampled_statistics
from singd_optax.capture._kernel_use import is_transposed
from singd_optax.capture._lanes import in_lanes_of
from singd_optax.capture._mistakes import check_accumulation, check_not_deleted
from singd_optax.capture._recording import RecordingSession
from singd_optax.capture._replay import Replay
from singd_optax.capture._session import PredictionListener, listening, predicting
from singd_optax.capture._tap import Tap
from singd_optax.capture._tapping import TapDecision, TappingSession
from singd_optax.layers import Layers, LayerSpec, RuleState, measured_states
from singd_optax.layers._by_path import ByPath
from singd_optax.layers._check_state import check_stacks
from singd_optax.layers._states import any_due
from singd_optax.measures import Statistics, carried_fields
from singd_optax.placement import gathered
from singd_optax.structures import Precision


class Measuring:
    """The layers that a state has factors of, their slots, and what each call is told.

    Attributes:
      specs: The layers, by path.
      slots: Zeros for each, whose "gradients" are the statistics.
    """

    def __init__(
        self,
        layers: Layers,
        opt_state: PyTree,
        precision: Precision,
        program: Traceable,
        check: Callable[[dict[str, LayerSpec]], None],
        fisher: Fisher = "empirical",
        seed: int = 0,
        loss_scale: PyTree = None,
        always: bool = False,
    ):
        """Trace the loss without derivatives, to know its calls.

        Args:
          layers: The layers that ``find_layers`` found.
          opt_state: The optimizer's state, with factors.
          precision: The precision of the products that form statistics.
          program: The loss function.
          check: Called with the layers, before anything is traced.
          fisher: Whose output gradients statistics are made of.
          seed: The seed of the labels that are drawn.
          loss_scale: The number by which output gradients are multiplied; None for 1.
          always: Whether to measure without asking whether a refresh is due.
        """
        self._always = always
        check_not_deleted(opt_state, "opt_state")
        check_accumulation(opt_state)
        self._states = states_by_layer(layers, opt_state)
        self._precision = precision
        self.specs = {path: layers[path] for path in self._states}
        check(self.specs)
        self._check_fisher(fisher)
        self._program = program
        self._fisher = fisher
        self.sampling = self._sampling(seed)._replace(loss_scale=loss_scale)
        self._analysis = analyse_loss(program, RecordingSession())
        lanes = in_lanes_of([self._analysis.constants, program.leaves, program.arrays])
        self.slots = {
            path: jax.tree.map(lanes, Statistics.zeros(spec, self._states[path].rule_tag.measures))
            for path, spec in self.specs.items()
        }
        self._by_kernel = {spec.kernel_path: spec for spec in self.specs.values()}

    def run(
        self,
        slots: Mapping[str, Statistics],
        loss: Callable[[dict[str, PyTree]], PyTree],
        session: Callable[..., TappingSession] = TappingSession,
        numbers: Mapping[str, jax.Array] | None = None,
    ) -> PyTree:
        """What the loss function returns, its calls tapped.

        Args:
          slots: The slots, differentiated.
          loss: Calls the loss function, with what is to travel in its params, by path.
          session: What does something at each call, made as ``TappingSession`` is.
          numbers: What taps carry in place of the number of this refresh, for other sessions.
        """
        taps = {path: self._tap(path, slots[path]) for path in slots}
        if numbers is not None:
            taps = {path: tap.numbered(numbers[path]) for path, tap in taps.items()}
        carriers = {
            spec.kernel_path: TapCarrier.of(taps[path])
            for path, spec in self.specs.items()
            if spec.rider is not None
        }
        inside = {p for p, spec in self._by_kernel.items() if spec.rider == "module"}
        places, _ = places_of_carriers(self._analysis, inside)
        at_roots = places.mapped(lambda here: {at: carriers[path] for at, path in here.items()})
        with listening(session(self._decisions(), taps, at_roots)):
            return loss({path: r for path, r in carriers.items() if path not in inside})

    @property
    def is_named_inside(self) -> bool:
        """Whether a prediction was named where its outputs cannot be had."""
        return self._fisher != "empirical" and any(
            one.is_inside for one in self._analysis.predictions
        )

    def sampled(self) -> dict[str, Statistics]:
        """Statistics for ``"mc"`` and ``"ggn"`` from passes of their own, and from no others."""

        def statistics_of(listener: PredictionListener) -> dict[str, Statistics]:
            def loss(slots: dict[str, Statistics]) -> jax.Array:
                with predicting(listener):
                    (value,) = self.run(slots, self._plain)
                return 0 * value  # what goes back is the listener's alone

            return jax.grad(loss)(self.slots)

        columns = [one.columns for one in self._analysis.predictions]
        return sampled_statistics(statistics_of, columns, self.slots, self._fisher, self.sampling)

    def _plain(self, carriers: dict[str, PyTree]) -> list[jax.Array]:
        return self._program.trace(self._program.leaves, carriers, self._program.arrays)

    def _sampling(self, seed: int) -> Sampling:
        """What is drawn, for which layers, and whether now."""
        count = next(
            (state.rule_count for state in self._states.values()), jnp.zeros([], jnp.int32)
        )
        is_empirical = self._fisher == "empirical"
        return Sampling(
            due=self._always or any_due(self._states.values()),
            key=jax.random.fold_in(jax.random.key(seed), count),
            loss_average=None if is_empirical else common_loss_average(self.specs.values()),
        )

    def evaluations(self) -> dict[str, int]:
        """How often, at least, the layers are called in one pass, stacks once for each layer."""
        counts = dict.fromkeys(self.specs, 0)
        for kernel, uses in uses_by_kernel(self._analysis).items():
            if kernel in self._by_kernel:
                spec = self._by_kernel[kernel]
                for one in uses:
                    sizes = (spec.kernel_shape[axis] for axis in one.kernel.stacked)
                    pairs = zip(sizes, one.kernel.indices, strict=True)
                    times = math.prod(size for size, index in pairs if index is None)
                    counts[spec.path] += times * one.resolved.kernels.count(one.kernel)
        return counts

    def curvature(self, statistics: dict[str, Statistics]) -> dict[str, Statistics]:
        """The statistics, which say of which step they are."""
        return {
            path: measured._replace(measured_at=self._states[path].rule_count)
            for path, measured in statistics.items()
        }

    def _check_fisher(self, fisher: Fisher) -> None:
        """Raise where a rule wants means of gradients that have none."""
        for path, state in self._states.items():
            odd = [one for one in state.rule_tag.measures if one.degrees[1] % 2]
            if odd and fisher != "empirical":
                raise ValueError(
                    f"The rule {state.rule_tag.name} of layer {path!r} rests on the mean of output "
                    f"gradients, and those of fisher={fisher!r} have mean zero: labels are drawn "
                    "from the model's own predictions. Use fisher='empirical', or an optimizer "
                    "of second moments (singd, kfac, ekfac)."
                )

    def _tap(self, path: str, slot: Statistics) -> Tap:
        spec, state = self.specs[path], self._states[path]
        number = state.rule_count + 1
        if not self._always:
            number = jnp.where(state.refresh_due > 0, number, 0)
        refresh = jnp.broadcast_to(number, spec.scan_shape)
        measures = state.rule_tag.measures
        stack, place = ByPath.each(state.rule_states).place(path)
        carried = gathered(carried_fields(spec, measures, stack))
        index = None if place is None else state.places[path]
        return Tap(
            slot, carried, refresh, spec, measures, self._precision, index, always=self._always
        )

    def _decisions(self) -> Replay[TapDecision | None]:
        """What each call is told; a warning where a layer has none."""
        analysis = self._analysis
        uses = uses_by_kernel(analysis)
        decided: dict[int, TapDecision] = {}
        for kernel, spec in self._by_kernel.items():
            for one in uses.get(kernel, ()):
                _check_stacking(spec, one.kernel.stacked)
                transposed = is_transposed(one.layout, spec.layout)
                several = one.resolved.needs_carriers
                indices = () if several else tuple(i for i in one.kernel.indices if i is not None)
                layer = None if several else spec.path
                decided[id(one.resolved)] = TapDecision(layer, indices, transposed)
        unreached = [spec.path for kernel, spec in self._by_kernel.items() if kernel not in uses]
        if unreached:
            _warn_of_unreached(unreached)
        replay: Replay[TapDecision | None] = Replay()
        for resolved in analysis.calls:
            replay.add(resolved.recorded.call.signature, decided.get(id(resolved)))
        return replay


def _check_stacking(spec: LayerSpec, stacked: tuple[int, ...]) -> None:
    known = spec.stacking.positions(len(spec.kernel_shape))
    if sorted(known) != sorted(stacked):
        raise ValueError(
            f"The loss function takes the axes {stacked} off the kernel of layer {spec.path!r}, "
            f"and took {known} when layers were found. Call find_layers again for this loss."
        )


def _warn_of_unreached(paths: list[str]) -> None:
    warnings.warn(
        f"The loss does not depend on the layers {paths} through a call that is measured, so "
        "that their factors stay as they are, and each of their refreshes is counted as skipped. "
        "If the model was changed after find_layers, call it again. If the loss leaves them out "
        "on purpose, use layers.without(...) or freeze them.",
        stacklevel=4,
    )


def states_by_layer(layers: Layers, opt_state: PyTree) -> dict[str, RuleState]:
    """Path of a layer -> the state that holds its factors."""
    states = measured_states(opt_state)
    if not states:
        got = "no opt_state" if opt_state is None else f"a {type(opt_state).__name__}"
        raise ValueError(
            f"The gradient function needs the optimizer's state, which has the factors: got {got} "
            "without Kronecker factors. Call grad_fn(params, batch, opt_state=opt_state) with the "
            "state from tx.init(params), where tx is one of singd_optax's optimizers."
        )
    owners: dict[str, RuleState] = {}
    for state in states:
        for path in state.rule_states:
            if path in owners:
                raise ValueError(
                    f"Two transformations in `opt_state` hold factors for layer {path!r}, and only "
                    "one may. Give each of them its own layers, with layers.without(...)."
                )
            if path not in layers:
                raise ValueError(
                    f"`opt_state` has factors for layer {path!r}, which `layers` have not: they "
                    f"have {list(layers)}. Use the same layers for the optimizer and for "
                    "value_and_grad, and a state made by tx.init."
                )
            owners[path] = state
        check_stacks({path: layers[path] for path in state.rule_states}, state.rule_states)
    return {path: owners[path] for path in layers if path in owners}
