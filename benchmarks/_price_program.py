"""One step of each optimizer whose price is measured, and what its program is."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import _hlo
import jax
import optax
from _bytes import tree_bytes
from _tasks import Task

import singd_optax

#: Steps of a turn, and between refreshes of SINGD and SOAP.
TURN = 10
#: A program is compiled so often, unless this takes more than so many seconds of the CPU.
REPEATS, ENOUGH = 3, 10.0


class Contestant(NamedTuple):
    """How a step is made.

    Attributes:
      make: Of optimizers that need no layers.
      structures: Of SINGD.
      direction: Of SINGD.
      refresh: None for a step that decides by itself.
    """

    make: Callable[[], optax.GradientTransformation] | None = None
    structures: str | None = None
    direction: str = "natural"
    refresh: bool | None = None


CONTESTANTS: dict[str, Contestant] = {
    "adamw": Contestant(lambda: optax.adamw(1e-3)),
    "muon": Contestant(lambda: optax.contrib.muon(1e-3, consistent_rms=0.2)),
    "soap": Contestant(lambda: singd_optax.soap(1e-3, refresh_every=TURN)),
    "singd diagonal": Contestant(structures="diagonal"),
    "singd block_diagonal:32": Contestant(structures="block_diagonal:32"),
    "singd dense": Contestant(structures="dense"),
    "singd auto": Contestant(structures="auto"),
    "singd diagonal, polar": Contestant(structures="diagonal", direction="polar"),
    "singd block_diagonal:32, polar": Contestant(structures="block_diagonal:32", direction="polar"),
    "singd dense, polar": Contestant(structures="dense", direction="polar"),
    "singd dense, refresh=True": Contestant(structures="dense", refresh=True),
    "singd dense, refresh=False": Contestant(structures="dense", refresh=False),
}


class Step(NamedTuple):
    """A step that is not compiled.

    Attributes:
      init: params -> optimizer state.
      step: (params, state, batch) -> (params, state, loss).
    """

    init: Callable[..., Any]
    step: Callable[..., Any]


class Program(NamedTuple):
    """A compiled step, and its row of the record."""

    step: Callable[..., Any]
    init: Callable[..., Any]
    row: dict[str, Any]


def step_of(task: Task, name: str) -> Step:
    """The training step of a contestant on a task."""
    contestant = CONTESTANTS[name]
    static = {} if contestant.refresh is None else {"refresh": contestant.refresh}
    if contestant.make is not None:
        tx = optax.with_extra_args_support(contestant.make())
        plain = jax.value_and_grad(task.loss_fn)

        def gradients(params: Any, batch: Any, opt_state: Any) -> Any:
            del opt_state
            return *plain(params, batch), {}
    else:
        layers = singd_optax.find_layers(
            task.loss_fn,
            jax.eval_shape(task.init, jax.random.key(0)),
            next(iter(task.batches(1, 0))),
            structures=contestant.structures,
            loss_average=task.loss_average,
        )
        tx = singd_optax.singd(1e-3, layers, refresh_every=TURN, direction=contestant.direction)
        measured = singd_optax.value_and_grad(task.loss_fn, layers)

        def gradients(params: Any, batch: Any, opt_state: Any) -> Any:
            value, grads, curvature = measured(params, batch, opt_state=opt_state, **static)
            return value, grads, {"curvature": curvature, **static}

    def step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, grads, extra = gradients(params, batch, opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, **extra)
        return optax.apply_updates(params, updates), opt_state, value

    return Step(tx.init, step)


def program_of(task: Task, name: str, repeats: int = REPEATS) -> Program:
    """Compile a contestant's step, with donated parameters and state, from shapes alone."""
    made = step_of(task, name)
    params = jax.eval_shape(task.init, jax.random.key(0))
    batch = next(iter(task.batches(1, 0)))
    opt_state = jax.eval_shape(made.init, params)
    seconds: list[float] = []
    while not seconds or (len(seconds) < repeats and sum(seconds) < ENOUGH):
        jax.clear_caches()
        begin = time.process_time()
        lowered = jax.jit(made.step, donate_argnums=(0, 1)).lower(params, opt_state, batch)
        compiled = lowered.compile()
        seconds.append(time.process_time() - begin)
    counts = _hlo.opcodes(compiled.as_text() or "")
    taken = compiled.memory_analysis()
    outputs = taken.output_size_in_bytes - taken.alias_size_in_bytes
    row = {
        "compile_seconds": statistics.median(seconds),
        "stablehlo_lines": _hlo.operations(lowered.as_text()),
        "hlo_lines": counts.total(),
        "conditionals": counts["conditional"],
        "whiles": counts["while"],
        "arguments": taken.argument_size_in_bytes,
        "temporaries": taken.temp_size_in_bytes,
        "peak": taken.argument_size_in_bytes + taken.temp_size_in_bytes + outputs,
        "params": tree_bytes(params),
        "state": tree_bytes(opt_state),
    }
    return Program(compiled, made.init, row)
