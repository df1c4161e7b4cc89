"""The gradients that a check compares: the loss's own, those with echoes, those without calls."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from singd_optax._types import PyTree
from singd_optax.capture._measuring import Measuring
from singd_optax.layers import Layers, LayerSpec, RuleState
from singd_optax.layers._roles import ColumnFactor, RowFactor
from singd_optax.layers._rule_tag import RuleTag
from singd_optax.measures import Moments, Statistics
from singd_optax.placement import OneDevice
from singd_optax.testing._compile import quick_jit
from singd_optax.testing._echo import Echo, Silence
from singd_optax.testing._heard import Heard


class Passes(NamedTuple):
    """What was computed, on the host.

    Attributes:
      parameters: All parameters, by path.
      statistics: The statistics, by layer.
      gradients: The gradients of the loss, as matrices by layer, as the gradient function gives
        them.
      echoed: Gradients with Σ a gᵀ of each call added.
      outside: Gradients of the loss as if no call depended on its kernel: those of penalties.
      heard: What the calls said.
      evaluations: How often each layer is called, at least.
    """

    parameters: dict[str, PyTree]
    statistics: dict[str, Statistics]
    gradients: dict[str, PyTree]
    echoed: dict[str, PyTree]
    outside: dict[str, PyTree]
    heard: Heard
    evaluations: dict[str, int]


class _Traced(NamedTuple):
    """A program of traced arrays."""

    trace: Callable[[PyTree, PyTree, Sequence[PyTree]], PyTree]
    leaves: Mapping[str, PyTree]
    arrays: Sequence[PyTree]


def plainly_measured(layers: Layers) -> Layers:
    """Layers that form statistics of all positions, on no mesh, in the dtype of statistics."""

    def plain(spec: LayerSpec) -> LayerSpec:
        dtype = spec.statistics_dtype.name
        return dataclasses.replace(
            spec, curvature_fraction=1.0, placement=OneDevice(), factor_dtype=(dtype, dtype)
        )

    return dataclasses.replace(layers, specs=tuple(map(plain, layers.specs)))


def run_passes(program: PyTree, layers: Layers) -> Passes:
    """Differentiate a loss in all three ways.

    Args:
      program: The loss function with its arguments.
      layers: From ``plainly_measured``.
    """
    leaves, arrays = dict(program.leaves), list(program.arrays)
    heard = Heard()
    evaluations: dict[str, int] = {}
    try:
        results = _run(program, layers, leaves, arrays, heard, evaluations)
    except NotImplementedError:  # under derivatives, jax.checkpoint takes no callback with effects
        if not heard.nested:
            raise
    if heard.nested:  # echoes would change the derivatives that the loss takes
        heard = Heard(is_quiet=True)
        results = _run(program, layers, leaves, arrays, heard, evaluations)
    statistics, gradients, echoed, outside = results
    return Passes(leaves, statistics, gradients, echoed, outside, heard, evaluations)


def _run(
    program: PyTree,
    layers: Layers,
    leaves: PyTree,
    arrays: PyTree,
    heard: Heard,
    evaluations: dict[str, int],
) -> PyTree:
    def passes(leaves: PyTree, arrays: PyTree) -> PyTree:
        traced = _Traced(program.trace, leaves, arrays)
        measuring = Measuring(layers, _unit_factors(layers), "highest", traced, lambda specs: None)
        evaluations.update(measuring.evaluations())
        specs = measuring.specs
        trained = {path: leaves[path] for spec in specs.values() for path in spec.shapes}
        numbers = {path: _places(spec) for path, spec in specs.items()}

        def loss(trained: PyTree, slots: PyTree, **options: PyTree) -> PyTree:
            run = lambda riders: program.trace({**leaves, **trained}, riders, arrays)
            return _scalar(measuring.run(slots, run, **options))

        def gradient(**options: PyTree) -> PyTree:
            return jax.grad(lambda trained: loss(trained, measuring.slots, **options))(trained)

        gradients, statistics = jax.grad(loss, argnums=(0, 1))(trained, measuring.slots)
        echo = lambda *told: Echo(*told, heard=heard)
        all_three = (gradients, gradient(session=echo, numbers=numbers), gradient(session=Silence))
        matrices = [
            {path: spec.to_matrix(*map(tree.get, spec.shapes)) for path, spec in specs.items()}
            for tree in all_three
        ]
        return statistics, *matrices

    # What users compute at their backend's default precision is compared with exact sums.
    with jax.default_matmul_precision("highest"):
        compiled = quick_jit(passes) if jax.default_backend() == "cpu" else jax.jit(passes)
        return jax.device_get(compiled(leaves, arrays))


def _scalar(values: list[PyTree]) -> PyTree:
    shapes = [value.shape for value in values]
    if shapes != [()]:
        raise TypeError(
            "`loss_fn` must return one scalar, or (scalar, aux), got "
            f"{'nothing' if not shapes else f'arrays of shapes {shapes}'}. Take the mean of losses."
        )
    return values[0]


class _Units(NamedTuple):
    """Factors that are identities."""

    K: RowFactor
    C: ColumnFactor


def _unit_factors(layers: Layers) -> RuleState:
    """The state of an optimizer in which every factor is the identity, and a refresh is due."""

    def units(spec: LayerSpec) -> _Units:
        sides = zip(spec.structures, spec.dims, spec.factor_dtype, strict=True)
        return _Units(*(s.eye(dim, jnp.dtype(dtype), spec.stack_shape) for s, dim, dtype in sides))

    return RuleState(
        rule_count=jnp.zeros((), jnp.int32),
        refresh_due=jnp.ones((), jnp.int32),
        rule_states={path: units(spec) for path, spec in layers.items()},
        rule_momentum=None,
        size_states={},
        skipped_refreshes={},
        skipped_in_a_row={},
        places={},
        rule_tag=RuleTag("", (Moments(whitened_by=("K", "C")),)),
    )


def _places(spec: LayerSpec) -> jax.Array:
    """The place of each layer in its stack."""
    count = int(np.prod(spec.scan_shape, dtype=np.int64))
    return jnp.arange(count, dtype=jnp.int32).reshape(spec.scan_shape)
