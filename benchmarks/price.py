"""What a step costs beside AdamW's: time, compilation, state, on one model in one run.

    python benchmarks/price.py                        # the quickstart's transformer
    python benchmarks/price.py --batch 64             # more tokens a step
    python benchmarks/price.py --task cnn

All optimizers take turns of ten steps (so that each turn of T = 10 has one refresh) on the same
machine, over and over; the ratio is the median over the rounds of a turn's time to AdamW's turn
in the same round.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from _bytes import tree_bytes
from _tasks import TASKS, Task, language_model
from tqdm import tqdm

import singd_optax

TURN = 10
#: Name -> structures, refresh interval, options of find_layers.
VARIANTS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "diagonal, T=1": ("diagonal", 1, {}),
    "block_diagonal:32, T=10": ("block_diagonal:32", 10, {}),
    "auto, T=10": ("auto", 10, {}),
    "dense, T=10": ("dense", 10, {}),
    "dense, T=10, 1/8": ("dense", 10, {"curvature_fraction": 0.125}),
    "block_diagonal:32, T=10, 1/8": ("block_diagonal:32", 10, {"curvature_fraction": 0.125}),
    "diagonal, T=1, 1/8": ("diagonal", 1, {"curvature_fraction": 0.125}),
    "dense, no refresh": ("dense", 10**6, {}),
}


class Contestant(NamedTuple):
    """A compiled step and what it took to make it."""

    step: Callable[..., Any]
    state: list[Any]
    compile_seconds: float
    state_bytes: int


def contestant(task: Task, variant: tuple[Any, int, dict[str, Any]] | None) -> Contestant:
    """Build and compile one step; ``None`` is AdamW."""
    params = task.init(jax.random.key(0))
    batch = next(iter(task.batches(1, 0)))
    if variant is None:
        tx = optax.with_extra_args_support(optax.adamw(1e-3))

        def grad_fn(params: Any, batch: Any, opt_state: Any) -> Any:
            return *jax.value_and_grad(task.loss_fn)(params, batch), {}
    else:
        structures, every, options = variant
        layers = singd_optax.find_layers(
            task.loss_fn,
            params,
            batch,
            structures=structures,
            loss_average=task.loss_average,
            **options,
        )
        tx = singd_optax.singd(1e-3, layers, refresh_every=every)
        grad_fn = singd_optax.value_and_grad(task.loss_fn, layers)

    def step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, grads, curvature = grad_fn(params, batch, opt_state=opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
        return optax.apply_updates(params, updates), opt_state, value

    opt_state = jax.jit(tx.init)(params)
    state_bytes = tree_bytes(opt_state)
    begin = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, opt_state, batch).compile()
    seconds = time.perf_counter() - begin
    return Contestant(compiled, [params, opt_state], seconds, state_bytes)


def turn(run: Contestant, data: list[Any]) -> float:
    """The seconds of one turn."""
    params, opt_state = run.state
    begin = time.perf_counter()
    for batch in data:
        params, opt_state, _ = run.step(params, opt_state, batch)
    jax.block_until_ready((params, opt_state))
    run.state[:] = params, opt_state
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=list(TASKS), default="lm")
    parser.add_argument("--batch", type=int, help="of the language model")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    task = TASKS[options.task]() if options.batch is None else language_model(batch=options.batch)
    runs = {"adamw": contestant(task, None)}
    for name in tqdm(options.variants, desc="compile"):
        runs[name] = contestant(task, VARIANTS[name])
    data = list(task.batches(TURN, 0))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in tqdm(range(options.rounds + 1), desc="rounds"):
        for name, run in runs.items():
            spent = turn(run, data)
            if round_:  # the first one warms up
                seconds[name].append(spent)
    header = f"{'':28}{'ms a step':>10}{'ratio':>8}{'quartiles':>16}{'compile':>10}{'state':>8}"
    print(f"\n{header}\n{'':28}{'(median)':>10}{'(times those of adamw)':>32}{'':>10}")
    record = {}
    base = runs["adamw"]
    for name, run in runs.items():
        ratios = [a / b for a, b in zip(seconds[name], seconds["adamw"], strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        row = {
            "milliseconds": statistics.median(seconds[name]) / TURN * 1e3,
            "ratio": ratio,
            "quartiles": [low, high],
            "compile_ratio": run.compile_seconds / base.compile_seconds,
            "state_ratio": run.state_bytes / base.state_bytes,
        }
        record[name] = row
        print(
            f"{name:28}{row['milliseconds']:>10.2f}{ratio:>8.3f}{f'{low:.3f}..{high:.3f}':>16}"
            f"{row['compile_ratio']:>10.2f}{row['state_ratio']:>8.2f}"
        )
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"price_{options.task}.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
