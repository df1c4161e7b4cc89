"""Tasks x optimizers x seeds: equal random search, then the best setting over fresh seeds.

One line of JSON for each run, in a file for each task; a run that is there is not made again.
"""

import datetime
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _results
import jax
import numpy as np
from _bytes import tree_bytes
from _optimizers import OPTIMIZERS, Compiled, compiled
from _public import PUBLIC
from _tasks import TASKS, Task
from tqdm import tqdm

POINTS = 20  # of a curve
PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")


def draws(optimizer: str, trials: int) -> list[dict[str, float]]:
    """The settings of a search, the same in every call, and for all of equal ranges."""
    rng = np.random.default_rng(0)
    ranges = OPTIMIZERS[optimizer].ranges
    return [
        {
            name: float(f"{math.exp(rng.uniform(*map(math.log, bounds))):.3g}")
            for name, bounds in ranges.items()
        }
        for _ in range(trials)
    ]


def environment() -> dict[str, Any]:
    """What a run depended on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "backend": jax.default_backend(),
        "cores": len(affinity(0)),
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip() or None,
        **{package: version(package) for package in PACKAGES},
    }


def task_named(name: str, size: str) -> Task:
    """The task, made."""
    return {**TASKS, **PUBLIC}[name](size)


class Runner:
    """Runs one optimizer on one task, with one compilation for all settings and seeds."""

    def __init__(self, task: Task, optimizer: str, dtype: str = "float32") -> None:
        self.task = task.cast(dtype)
        self.optimizer, self.dtype = optimizer, dtype
        self._compiled: Compiled | None = None

    def __call__(self, setting: dict[str, float], seed: int) -> dict[str, Any]:
        """Train once."""
        task = self.task
        if self._compiled is None:
            self._compiled = compiled(task, self.optimizer, task.steps, _factors(self.dtype))
        params = task.init(jax.random.key(seed))
        state = self._compiled.init(params)
        state_bytes = tree_bytes(state)
        settings = {key: np.float32(value) for key, value in setting.items()}
        every = max(task.steps // POINTS, 1)
        curve, seconds, spent = [float(task.evaluate(params))], [0.0], 0.0
        for i, batch in enumerate(task.batches(task.steps, seed)):
            begin = time.perf_counter()
            params, state, _ = jax.block_until_ready(
                self._compiled.step(params, state, batch, settings)
            )
            if i:  # the first one may compile
                spent += time.perf_counter() - begin
            if (i + 1) % every == 0:
                curve.append(float(task.evaluate(params)))
                seconds.append(spent)
                if not math.isfinite(curve[-1]):
                    break
        diverged = not math.isfinite(curve[-1])
        return {
            "task": task.name,
            "measure": task.measure,
            "optimizer": self.optimizer,
            "dtype": self.dtype,
            "setting": setting,
            "ranges": OPTIMIZERS[self.optimizer].ranges,
            "steps": task.steps,
            "seed": seed,
            "final": None if diverged else curve[-1],
            "accuracy": None if diverged or not task.accuracy else float(task.accuracy(params)),
            "curve": [round(x, 6) if math.isfinite(x) else None for x in curve],
            "seconds": [round(x, 3) for x in seconds],
            "state_bytes": state_bytes,
            "environment": environment(),
        }


def _factors(dtype: str) -> str | None:
    return None if dtype == "float32" else dtype


def best_of(records: Iterable[dict[str, Any]]) -> dict[str, float] | None:
    """The setting with the lowest final loss; None if all runs diverged."""
    finite = [record for record in records if record["final"] is not None]
    return min(finite, key=lambda record: record["final"])["setting"] if finite else None


def file_of(output: Path, size: str, task: str, dtype: str = "float32") -> Path:
    """Where the runs of a task are."""
    return output / size / f"{task if dtype == 'float32' else f'{task}_{dtype}'}.jsonl"


def run(
    task: str,
    optimizers: list[str],
    *,
    size: str,
    trials: int,
    seeds: int,
    output: Path,
    dtype: str = "float32",
    steps: int | None = None,
    carry_over: bool = False,
) -> None:
    """Search, then fresh seeds, for every optimizer; with ``carry_over``, SINGD at AdamW's too."""
    made = task_named(task, size)
    made = made if steps is None else made._replace(steps=steps)
    file = file_of(output, size, task, dtype)
    best: dict[str, dict[str, float] | None] = {}
    for name in optimizers:
        runner = Runner(made, name, dtype)
        bar = tqdm(total=trials + seeds, desc=f"{task} {dtype} {name}", leave=False)

        def one(label: str, setting: Any, seed: int, runner: Any = runner, bar: Any = bar) -> Any:
            record = _results.cached(file, label, lambda: runner(setting, seed))
            bar.update()
            bar.set_postfix(final=record["final"])
            return record

        searched = [
            one(f"{name}.trial{i}", setting, 0) for i, setting in enumerate(draws(name, trials))
        ]
        best[name] = best_of(searched)
        for label, setting in {
            name: best[name],
            **({f"{name}@adamw": best.get("adamw")} if carry_over and name == "singd" else {}),
        }.items():
            for seed in range(1, seeds + 1) if setting else ():
                one(f"{label}.seed{seed}", setting, seed)
        bar.close()


def load(file: Path, phase: str) -> dict[str, list[dict[str, Any]]]:
    """Label -> records of a file, of one phase: "trial" or "seed"."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, record in _results.read(file).items():
        label, _, which = name.partition(".")
        if which.startswith(phase):
            found.setdefault(label, []).append(record)
    return found


def time_steps(
    task: str, optimizers: list[str], *, size: str, rounds: int, output: Path, turn: int = 10
) -> None:
    """Milliseconds a step, in turns of ten steps; the first 60 steps are not timed."""
    made = task_named(task, size)
    runs = {}
    for name in tqdm(optimizers, desc=f"{task}: compile", leave=False):
        built = compiled(made, name, made.steps)
        params = made.init(jax.random.key(0))
        setting = {k: np.float32(math.sqrt(a * b)) for k, (a, b) in OPTIMIZERS[name].ranges.items()}
        runs[name] = [built, params, built.init(params), setting]
    data = list(made.batches(turn, 0))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in tqdm(range(rounds + 6), desc=f"{task}: rounds", leave=False):
        for name, entry in runs.items():
            built, params, state, setting = entry
            begin = time.perf_counter()
            for batch in data:
                params, state, _ = built.step(params, state, batch, setting)
            jax.block_until_ready((params, state))
            if round_ >= 6:
                seconds[name].append((time.perf_counter() - begin) / turn)
            entry[1:3] = params, state
    base = seconds["adamw"]
    record: dict[str, Any] = {"environment": environment(), "steps": {}}
    for name, own in seconds.items():
        low, middle, high = statistics.quantiles(
            [a / b for a, b in zip(own, base, strict=True)], n=4
        )
        record["steps"][name] = {
            "milliseconds": 1e3 * statistics.median(own),
            "ratio": middle,
            "quartiles": [low, high],
        }
    _results.append(file_of(output, size, task), "times", record)


def measure_memory(
    task: str, optimizers: list[str], *, size: str, output: Path, dtype: str = "float32"
) -> None:
    """Bytes that the compiled step takes: its arguments, and what it needs beside them.

    Optimizers that were measured before stay in the record.
    """
    made = task_named(task, size).cast(dtype)
    params = jax.eval_shape(made.init, jax.random.key(0))
    batch = next(iter(made.batches(1, 0)))
    record: dict[str, Any] = {"environment": environment(), "optimizers": {}}
    for name in tqdm(optimizers, desc=f"{task} {dtype}: memory", leave=False):
        built = compiled(made, name, made.steps, _factors(dtype))
        setting = dict.fromkeys(OPTIMIZERS[name].ranges, np.float32(1e-3))
        state = jax.eval_shape(built.init, params)
        analysis = built.step.lower(params, state, batch, setting).compile().memory_analysis()
        record["optimizers"][name] = {
            "params": tree_bytes(params),
            "state": tree_bytes(state),
            "arguments": analysis.argument_size_in_bytes,
            "temporaries": analysis.temp_size_in_bytes,
        }
    file = file_of(output, size, task, dtype)
    known = _results.read(file).get("memory", {"optimizers": {}})
    record["optimizers"] = known["optimizers"] | record["optimizers"]
    _results.append(file, "memory", record)
