"""How many positions statistics are worth: last losses and step times, of all and of some.

    python benchmarks/positions.py --task lm --batch 128 --steps 100 --variants all "auto 2048, 8"
    python benchmarks/positions.py --task autoencoder --batch 4096 --steps 200
    python benchmarks/positions.py --task cnn --batch 512 --steps 60 --seeds 3 --examples 64

All variants see the same parameters and batches. They train in turns of ten steps, so that a change
of the machine's speed hits all of them; the ratio is the median over the turns of the second half
(when one step in ten refreshes) of a turn's time to that of AdamW in the same round. "auto a, b"
leaves at least a rows, and b rows for each dim of a layer's larger factor.

Last losses (one for each seed) and times, on two cores that were shared with other programs, so
that times are rough. "auto 2048, 8" is what the package does:

    lm, 128 x 64 tokens    all 1.878 1.807    2048, 8: 1.877 1.818 in 0.95 of the time
    lm, 64 x 64, 150 steps all 1.766 1.736    1024, 4: 1.770 1.748    64, 0: 1.812 1.810
    autoencoder (to AdamW) all 14.06 14.05 at 1.45    1024, 4: 14.06 14.04 at 1.24
                           256, 1: 14.07 14.06 at 1.15    64, 0: 14.09 14.07 at 1.12
    cnn, in 1e-5 (AdamW 5e3)    all 3.7 4.0 5.8 at 2.08    2048, 8: 5.3 4.0 5.8 at 1.70
                           1024, 4: 5.8 4.3 6.0 at 1.70    64, 0: 9.9 16.1 7.7 at 1.39

So 64 rows are too few, and 1024 cost the transformer of 4096 about 0.01 and won it no time.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import optax
from _data import digits
from _networks import CNN
from _tasks import Task, autoencoder, classifier, language_model
from tqdm import tqdm

import singd_optax
from singd_optax.layers import _spec
from singd_optax.measures import _sampling

TURN = 10
#: Name -> curvature_fraction, and the rows and rows for each dim of "auto"; None for AdamW.
VARIANTS: dict[str, tuple[float | str, int, int] | None] = {
    "adamw": None,
    "all": (1.0, 0, 0),
    "auto 2048, 8": ("auto", 2048, 8),
    "auto 1024, 4": ("auto", 1024, 4),
    "auto 256, 1": ("auto", 256, 1),
    "auto 64, 0": ("auto", 64, 0),
}
#: Of AdamW and of SINGD: the best of the searches of ``quickstart.py`` and of the harness.
RATES = {"lm": (4e-3, 8e-3), "cnn": (1e-2, 1e-2), "autoencoder": (3e-3, 1e-2)}


def task_named(name: str, batch: int) -> Task:
    """With a batch large enough that some of it may do."""
    if name == "lm":
        return language_model(batch=batch)
    if name == "autoencoder":
        return autoencoder(batch=batch)
    return classifier("cnn", CNN(), digits(), batch=batch)


def stepper(task: Task, name: str, steps: int, examples: int) -> tuple[Any, Callable[..., Any]]:
    """The initializer of a state, and the jitted step, compiled."""
    variant = VARIANTS[name]
    params = task.init(jax.random.key(0))
    batch = next(iter(task.batches(1, 0)))
    rate = RATES[task.name][variant is not None]
    schedule = optax.warmup_cosine_decay_schedule(0, rate, max(steps // 20, 1), steps)
    with ExitStack() as patched:
        if variant is None:
            tx = optax.with_extra_args_support(optax.adamw(schedule, weight_decay=1e-2))

            def grad_fn(params: Any, batch: Any, opt_state: Any) -> Any:
                return *jax.value_and_grad(task.loss_fn)(params, batch), {}
        else:
            fraction, rows, per_dim = variant
            patched.enter_context(mock.patch.object(_spec, "LEAST_ROWS", rows))
            patched.enter_context(mock.patch.object(_spec, "ROWS_PER_DIM", per_dim))
            patched.enter_context(mock.patch.object(_sampling, "LEAST_EXAMPLES", examples))
            layers = singd_optax.find_layers(
                task.loss_fn,
                params,
                batch,
                loss_average=task.loss_average,
                curvature_fraction=fraction,
            )
            tx = singd_optax.singd(schedule, layers, weight_decay=1e-2)
            grad_fn = singd_optax.value_and_grad(task.loss_fn, layers)

        def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any]:
            _, grads, curvature = grad_fn(params, batch, opt_state=state)
            updates, state = tx.update(grads, state, params, curvature=curvature)
            return optax.apply_updates(params, updates), state

        init = jax.jit(tx.init)
        state = init(params)
        return init, jax.jit(step, donate_argnums=(0, 1)).lower(params, state, batch).compile()


def train(
    task: Task, runs: dict[str, Any], steps: int, seed: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The last losses of all variants on one draw, and the seconds of each turn."""
    states = {}
    for name, (init, _) in runs.items():
        params = task.init(jax.random.key(seed))
        states[name] = (params, init(params))
    data = list(task.batches(steps, seed))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for start in tqdm(range(0, steps, TURN), desc=f"seed {seed}", leave=False):
        for name, (_, step) in runs.items():
            begin = time.perf_counter()
            for batch in data[start : start + TURN]:
                states[name] = step(*states[name], batch)
            jax.block_until_ready(states[name])
            if start >= steps // 2:
                seconds[name].append(time.perf_counter() - begin)
    return {name: float(task.evaluate(params)) for name, (params, _) in states.items()}, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=list(RATES), default="lm")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--examples", type=int, default=_sampling.LEAST_EXAMPLES)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    task = task_named(options.task, options.batch)
    runs = {
        name: stepper(task, name, options.steps, options.examples)
        for name in tqdm(options.variants, desc="compile")
    }
    losses: dict[str, list[float]] = {name: [] for name in runs}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for seed in range(1, options.seeds + 1):
        last, spent = train(task, runs, options.steps, seed)
        for name in runs:
            losses[name].append(last[name])
            seconds[name] += spent[name]
    record = {}
    print(f"{options.task}, batch {options.batch}, {options.steps} steps")
    for name in runs:
        ratios = [a / b for a, b in zip(seconds[name], seconds[options.variants[0]], strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        record[name] = {"losses": losses[name], "ratio": ratio, "quartiles": [low, high]}
        shown = " ".join(f"{loss:.4g}" for loss in losses[name])
        print(f"{name:16}{ratio:7.3f} ({low:.3f} to {high:.3f})   {shown}")
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / f"positions_{options.task}_{options.batch}.json"
    file.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
