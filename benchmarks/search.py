"""Random search with an equal budget for every optimizer, then the best setting over fresh seeds.

    python benchmarks/search.py --task autoencoder            # a few minutes on one core
    python benchmarks/search.py --task lm --steps 1000        # about an hour
    python benchmarks/search.py --task lm --carry-over        # and at the rate of AdamW

Every run writes one JSON file under ``--output``; what is there already is not run again. The
ranges are in ``RANGES``; draws are the same for every optimizer that shares a range. With
``--carry-over``, SINGD is run at the learning rate that AdamW's own search found.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
import optax
from _tasks import TASKS, Task
from tqdm import tqdm

import singd_optax

mpl.use("Agg")
import matplotlib.pyplot as plt

#: Log-uniform ranges that the draws come from.
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "adamw": {"learning_rate": (1e-3, 3e-2), "weight_decay": (1e-3, 3e-1)},
    "muon": {"learning_rate": (2e-3, 6e-2), "weight_decay": (1e-3, 3e-1)},
    "singd": {"learning_rate": (1e-3, 3e-2), "weight_decay": (1e-3, 3e-1)},
}
#: Variants of SINGD: structures of the layers.
STRUCTURES = {
    "singd": "dense",
    "singd_auto": "auto",
    "singd_block": "block_diagonal:32",
    "singd_hierarchical": "hierarchical:16,16",
    "singd_diagonal": "diagonal",
    "singd_dense_diagonal": ("dense", "diagonal"),
}


def draws(optimizer: str, trials: int) -> list[dict[str, float]]:
    """The settings of a search, the same in every call."""
    ranges = RANGES["singd" if optimizer in STRUCTURES else optimizer]
    rng = np.random.default_rng(0)
    return [
        {
            name: float(f"{math.exp(rng.uniform(*map(math.log, r))):.3g}")
            for name, r in ranges.items()
        }
        for _ in range(trials)
    ]


def make_step(
    task: Task, optimizer: str, setting: dict[str, float], steps: int, params: Any, batch: Any
) -> tuple[Any, Callable[..., Any]]:
    """The optimizer's state, and a jitted step."""
    options = dict(setting)
    rate = options.pop("learning_rate")
    schedule = optax.warmup_cosine_decay_schedule(0, rate, max(steps // 20, 1), steps)
    grad_fn: Callable[..., Any]
    if optimizer in STRUCTURES:
        layers = singd_optax.find_layers(
            task.loss_fn,
            params,
            batch,
            structures=STRUCTURES[optimizer],
            loss_average=task.loss_average,
        )
        tx = singd_optax.singd(schedule, layers, **options)
        grad_fn = singd_optax.value_and_grad(task.loss_fn, layers)
    else:
        factory = optax.adamw if optimizer == "adamw" else optax.contrib.muon
        shape = {"consistent_rms": 0.2} if optimizer == "muon" else {}
        tx = optax.with_extra_args_support(factory(schedule, **options, **shape))

        def grad_fn(params: Any, batch: Any, opt_state: Any) -> Any:
            return *jax.value_and_grad(task.loss_fn)(params, batch), {}

    def step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, grads, curvature = grad_fn(params, batch, opt_state=opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
        return optax.apply_updates(params, updates), opt_state, value

    return tx.init(params), jax.jit(step, donate_argnums=(0, 1))


def run(task: Task, optimizer: str, setting: dict[str, float], steps: int, seed: int) -> Any:
    """Train once; the curve has twenty points."""
    params = task.init(jax.random.key(seed))
    first = next(iter(task.batches(1, seed)))
    opt_state, step = make_step(task, optimizer, setting, steps, params, first)
    every = max(steps // 20, 1)
    curve, seconds, spent = [float(task.evaluate(params))], [0.0], 0.0
    for i, batch in enumerate(task.batches(steps, seed)):
        begin = time.perf_counter()
        params, opt_state, _ = jax.block_until_ready(step(params, opt_state, batch))
        if i:  # the first one compiles
            spent += time.perf_counter() - begin
        if (i + 1) % every == 0:
            curve.append(float(task.evaluate(params)))
            seconds.append(spent)
    return {
        "task": task.name,
        "measure": task.measure,
        "optimizer": optimizer,
        "setting": setting,
        "steps": steps,
        "seed": seed,
        "final": curve[-1] if math.isfinite(curve[-1]) else None,
        "curve": curve,
        "seconds": seconds,
        "jax": jax.__version__,
    }


def cached(folder: Path, name: str, make: Callable[[], Any]) -> Any:
    """The JSON of a run that was made before, or is made now."""
    file = folder / f"{name}.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(make()))
    return json.loads(file.read_text())


def best_of(records: list[Any]) -> dict[str, float]:
    """The setting with the lowest final loss; runs that diverged are out."""
    finite = [record for record in records if record["final"] is not None]
    return min(finite, key=lambda record: record["final"])["setting"]


def report(folder: Path, records: dict[str, list[Any]], searched: dict[str, list[Any]]) -> None:
    """The table, and the plots of curves and of sensitivity."""
    base = statistics.median(r["final"] for r in records["adamw"]) if "adamw" in records else None
    print(f"{'':28}{'median':>9}{'all seeds':>32}{'seconds':>9}{'share of steps to adamw':>26}")
    for name, runs in records.items():
        finals = sorted(r["final"] if r["final"] is not None else math.inf for r in runs)
        shares = []
        for record in runs:
            hits = [
                i for i, loss in enumerate(record["curve"]) if base is not None and loss <= base
            ]
            shares.append(hits[0] / (len(record["curve"]) - 1) if hits else math.inf)
        seconds = statistics.median(r["seconds"][-1] for r in runs)
        print(
            f"{name:28}{statistics.median(finals):>9.4f}"
            f"{' '.join(f'{f:.4f}' for f in finals):>32}{seconds:>9.1f}"
            f"{statistics.median(shares):>26.2f}   {runs[0]['setting']}"
        )
    figure, axes = plt.subplots(1, 3, figsize=(14, 4))
    for name, runs in records.items():
        curves = np.array([r["curve"] for r in runs])
        steps = np.linspace(0, runs[0]["steps"], curves.shape[1])
        seconds = np.median([r["seconds"] for r in runs], axis=0)
        for axis, x in ((axes[0], steps), (axes[1], seconds)):
            axis.plot(x, np.median(curves, axis=0), label=name)
            axis.fill_between(x, curves.min(0), curves.max(0), alpha=0.2)
    for name, runs in searched.items():
        points = sorted(
            (r["setting"]["learning_rate"], r["final"]) for r in runs if r["final"] is not None
        )
        axes[2].plot(*zip(*points, strict=True), "o-", label=name)
    lows = [min(r["curve"]) for runs in records.values() for r in runs]
    highs = [r["curve"][2] for runs in records.values() for r in runs]
    for axis, label in zip(axes, ("steps", "seconds", "learning rate"), strict=True):
        axis.set(xlabel=label, ylim=(min(lows) - 0.02 * max(highs), max(highs)))
        axis.grid(alpha=0.3)
    axes[2].set_xscale("log")
    axes[0].set_ylabel(next(iter(records.values()))[0]["measure"])
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(folder / "search.png", dpi=120)
    print(f"Plot: {folder / 'search.png'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=list(TASKS), default="autoencoder")
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "muon", "singd"])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=6, help="the budget of each optimizer")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--carry-over", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    task = TASKS[options.task]()
    folder = options.output / f"search_{options.task}_{options.steps}"
    searched: dict[str, list[Any]] = {}
    records: dict[str, list[Any]] = {}

    def train(name: str, optimizer: str, setting: dict[str, float], seed: int) -> Any:
        return cached(folder, name, lambda: run(task, optimizer, setting, options.steps, seed))

    def repeat(name: str, optimizer: str, setting: dict[str, float]) -> None:
        records[name] = [
            train(f"{name}_seed{seed}", optimizer, setting, seed)
            for seed in tqdm(range(1, options.seeds + 1), desc=f"{name}: seeds")
        ]

    for optimizer in options.optimizers:
        searched[optimizer] = [
            train(f"{optimizer}_trial{i}", optimizer, setting, 0)
            for i, setting in enumerate(
                tqdm(draws(optimizer, options.trials), desc=f"{optimizer}: search")
            )
        ]
        repeat(optimizer, optimizer, best_of(searched[optimizer]))
    if options.carry_over:
        repeat("singd at adamw's settings", "singd", best_of(searched["adamw"]))
    report(folder, records, searched)


if __name__ == "__main__":
    main()
