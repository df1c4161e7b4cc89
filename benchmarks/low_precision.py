"""How little damping each method bears in bfloat16: the paper's claim about KFAC, redone.

    python benchmarks/low_precision.py

The last training loss of the deep autoencoder, with parameters, computation and factors in float32
and in bfloat16, over relative dampings. "KFAC, bfloat16 moments" inverts moments that were rounded
to bfloat16, as an optimizer that keeps everything in this precision does. Rounded moments may be
indefinite; their inverse is then not finite, the package skips the refresh and keeps the last
factors, and the table counts such refreshes (of 105 in 300 steps) for each layer.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from _optimizers import OPTIMIZERS, compiled
from _tasks import TASKS
from tqdm import tqdm

METHODS = ("kfac", "kfac_bfloat16_moments", "ikfac", "singd")
DAMPINGS = (3e-1, 3e-2, 1e-3, 1e-5)
SETTING = {"learning_rate": np.float32(8.7e-3), "weight_decay": np.float32(5e-3)}


def finals(task: Any, name: str, dtype: str, steps: int) -> list[tuple[float, float]]:
    """At each damping the last loss, and refreshes that were skipped as their factors were not
    finite, for each layer; with one compilation.
    """
    task, method = task.cast(dtype), OPTIMIZERS[name]
    ranges = {**method.ranges, "damping": (min(DAMPINGS), max(DAMPINGS))}
    OPTIMIZERS["damped"] = dataclasses.replace(method, ranges=ranges)
    run = compiled(task, "damped", steps, None if dtype == "float32" else dtype)
    found = []
    for damping in tqdm(DAMPINGS, desc=f"{name} {dtype}", leave=False):
        params = task.init(jax.random.key(0))
        state = run.init(params)
        setting = {**SETTING, "damping": np.float32(damping)}
        for batch in task.batches(steps, 0):
            params, state, _ = run.step(params, state, batch, setting)
        skipped = list(optax.tree.get(state, "skipped_refreshes").values())
        found.append((float(task.evaluate(params)), float(np.mean(skipped))))
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="autoencoder", choices=list(TASKS))
    parser.add_argument("--steps", type=int, default=300)
    default = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=default)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    task, found = TASKS[options.task](), {}
    for dtype in ("float32", "bfloat16"):
        print(f"\n| {dtype}, damping | " + " | ".join(f"{d:g}" for d in DAMPINGS) + " |")
        print("|---" * (1 + len(DAMPINGS)) + "|")
        for name in METHODS:
            found[f"{name} {dtype}"] = finals(task, name, dtype, options.steps)
            cells = [
                f"{loss:.2f}" + (f" ({skipped:.0f} skipped)" if skipped else "")
                for loss, skipped in found[f"{name} {dtype}"]
            ]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    report = {"task": options.task, "steps": options.steps, "dampings": DAMPINGS, "finals": found}
    (options.output / "low_precision.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
