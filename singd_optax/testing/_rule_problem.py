"""A small problem without a model: rows of two layers, and what a rule makes of them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from singd_optax._types import PyTree
from singd_optax.layers import Layers, LayerSpec, RuleState, Stacking
from singd_optax.layers._product import Product
from singd_optax.measures import Statistics, carried_fields, layer_statistics
from singd_optax.rules import Rule
from singd_optax.structures import parse_structures
from singd_optax.testing._compile import quick_jit
from singd_optax.transforms import scale_by_rule

_BATCH = 16
#: Inputs (without the bias) and outputs; the second layer is a stack of two.
_SINGLE, _STACK = (5, 3), (2, 4, 6)


class Step(NamedTuple):
    """What a rule can see of one layer in one step, in float64.

    Attributes:
      gradient: The gradient of a mean over the batch, (*stack, rows, columns); the bias is the last
        row.
      inputs: The inputs a, (*stack, batch, rows); 1 is last where there is a bias.
      output_gradients: The gradients g of the mean with respect to the outputs, (*stack, batch,
        columns): gradient = aᵀ g, U = aᵀ a / N and G = N gᵀ g, with N the batch size.
    """

    gradient: np.ndarray
    inputs: np.ndarray
    output_gradients: np.ndarray


def steps_of(seed: int, count: int) -> dict[str, list[Step]]:
    """Steps for the layers "single" (with a bias) and "stack"."""
    rng = np.random.default_rng(seed)

    def step(shape: Sequence[int], bias: bool) -> Step:
        *stack, rows, columns = shape
        a = rng.normal(size=(*stack, _BATCH, rows)) * np.linspace(0.5, 2, rows)
        a = np.concatenate([a, np.ones((*stack, _BATCH, 1))], -1) if bias else a
        g = rng.normal(size=(*stack, _BATCH, columns)) * np.linspace(0.5, 1, columns) / _BATCH
        return Step(np.swapaxes(a, -1, -2) @ g, a, g)

    return {
        "single": [step(_SINGLE, True) for _ in range(count)],
        "stack": [step(_STACK, False) for _ in range(count)],
    }


class Setup(NamedTuple):
    """How a rule is run.

    Attributes:
      structures: The structures of the factors.
      dtype: The dtype of parameters and gradients.
      factor_dtype: The dtype of the factors.
      stack: The shape of the stacked kernel.
    """

    structures: str | tuple[str, str] = "dense"
    dtype: str = "float64"
    factor_dtype: str = "float64"
    stack: tuple[int, int, int] = _STACK


def layers_of(setup: Setup) -> Layers:
    """The two layers."""
    specs = []
    for path, shape, bias in (("single", _SINGLE, True), ("stack", setup.stack, False)):
        spec = LayerSpec(
            path=path,
            kind="dense",
            kernel_path=f"{path}/kernel",
            kernel_shape=shape,
            bias_path=f"{path}/bias" if bias else None,
            bias_shape=shape[1:] if bias else None,
            dtype=setup.dtype,
            structures=parse_structures(setup.structures),
            factor_dtype=(setup.factor_dtype,) * 2,
            stacking=Stacking((0,) if len(shape) == 3 else ()),
        )
        specs.append(spec)
    return Layers(tuple(specs))


def params_of(setup: Setup) -> PyTree:
    """Parameters of zeros; "single" has a bias."""
    zeros = functools.partial(np.zeros, dtype=setup.dtype)
    single = {"kernel": zeros(_SINGLE), "bias": zeros(_SINGLE[1:])}
    return {"single": single, "stack": {"kernel": zeros(setup.stack)}}


def gradients_of(steps: Mapping[str, Step], dtype: str) -> PyTree:
    """The gradients of one step as a tree."""
    single, stack = (np.asarray(steps[name].gradient, dtype) for name in ("single", "stack"))
    return {"single": {"kernel": single[:-1], "bias": single[-1]}, "stack": {"kernel": stack}}


def statistics_of(
    rule: Rule, layers: Layers, state: RuleState, steps: Mapping[str, Step]
) -> dict[str, Statistics] | None:
    """The statistics of one step, whitened by what the state has."""
    if not rule.measures:
        return None
    found = {}
    for path, spec in layers.items():
        own = state.rule_states[path]
        riding = carried_fields(spec, rule.measures, own)

        def form(a: jax.Array, g: jax.Array, riding: PyTree, spec: LayerSpec = spec) -> Statistics:
            return layer_statistics(
                spec, rule.measures, Product(), a, g, None, riding, rule.precision
            )

        for _ in spec.stack_shape:
            form = jax.vmap(form)
        a = steps[path].inputs[..., : spec.fan_in - (spec.bias_shape is not None)]
        own_form: Callable[..., Statistics] = form
        rows = (jnp.asarray(x, spec.dtype) for x in (a, steps[path].output_gradients))
        found[path] = own_form(*rows, riding)._replace(measured_at=state.rule_count)
    return found


def step_of(rule: Rule, layers: Layers, **options: object) -> tuple[Callable[..., PyTree], PyTree]:
    """A function (gradients, state, steps) -> (updates, state), and ``init``."""
    tx = scale_by_rule(rule, layers, **options)  # type: ignore[arg-type]

    def step(gradients: PyTree, state: RuleState, steps: Mapping[str, Step]) -> PyTree:
        curvature = statistics_of(rule, layers, state, steps)
        return tx.update(gradients, state, curvature=curvature)

    return step, tx.init


def copied(state: RuleState) -> RuleState:
    """The state in buffers of its own, to be donated."""
    return jax.tree.map(lambda leaf: jax.device_put(np.array(leaf)), state)


class RuleRuns:
    """Runs of one rule, each setup of which is compiled once."""

    def __init__(self, rule: Rule, **options: object) -> None:
        self.rule, self._options = rule, options
        self._compiled: dict[Setup, tuple[Callable[..., PyTree], PyTree]] = {}

    def compiled(self, setup: Setup) -> tuple[Callable[..., PyTree], PyTree]:
        """What ``step_of`` gives, the step compiled, which donates the state, and the first one."""
        if setup not in self._compiled:
            step, init = step_of(self.rule, layers_of(setup), **self._options)
            initial = quick_jit(init)(params_of(setup))
            self._compiled[setup] = quick_jit(step, donate_argnums=1), initial
        step, initial = self._compiled[setup]
        return step, copied(initial)

    def directions(
        self, setup: Setup, steps: Mapping[str, Sequence[Step]]
    ) -> tuple[dict[str, list[np.ndarray]], RuleState]:
        """The directions of all steps as matrices, by layer, and the last state."""
        step, state = self.compiled(setup)
        found: dict[str, list[np.ndarray]] = {"single": [], "stack": []}
        for index in range(len(steps["single"])):
            now = {path: several[index] for path, several in steps.items()}
            updates, state = step(gradients_of(now, setup.dtype), state, now)
            single = updates["single"]
            rows = [np.asarray(single["kernel"], float), np.asarray(single["bias"], float)[None]]
            found["single"].append(np.concatenate(rows))
            found["stack"].append(np.asarray(updates["stack"]["kernel"], float))
        return found, state


def directions_of(
    rule: Rule, setup: Setup, steps: Mapping[str, Sequence[Step]], **options: object
) -> tuple[dict[str, list[np.ndarray]], RuleState]:
    """``RuleRuns.directions``, compiled anew."""
    return RuleRuns(rule, **options).directions(setup, steps)
