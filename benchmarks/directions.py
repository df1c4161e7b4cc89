"""Which direction SINGD should take: natural, polar, or soft, with which damping.

    python benchmarks/directions.py lm                  # natural, polar, soft: a few minutes
    python benchmarks/directions.py vit --variants natural "soft 0.5@0.03" --seeds 0 1 2
    python benchmarks/directions.py lm --variants muon soap --rate 1.6e-2   # peers without layers
    python benchmarks/directions.py lm --variants ekfac --options '{"damping": 0.1}'
    python benchmarks/directions.py lm --variants natural --fisher mc   # labels of the model's own
    python benchmarks/directions.py gcn --carry-over    # at the setting that AdamW's search found
    python benchmarks/directions.py all --table         # from published/directions.jsonl alone

One run for each variant and seed at one learning rate; one line of JSON each, in a folder. "noise"
variants have the softness e of noise: in whitened coordinates the gradient of a batch of N has
entries of variance 1/N where there is no signal, the average of momentum b has (1 - b)/(1 + b) of
it, and so its singular values end at e0 = (√d_i + √d_o) √((1 - b)/((1 + b) N)).
"""

import argparse
import dataclasses
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import jax
from _harness import Runner, file_of, load, task_named
from _optimizers import OPTIMIZERS, Optimizer
from _tasks import TASKS
from _variants import rule_of

import singd_optax

#: The rate of the quickstart, and what AdamW's search found on the autoencoder.
RATES = {"lm": 8e-3, "autoencoder": 8.7e-3}
PUBLISHED = Path(__file__).parent / "published" / "directions.jsonl"
#: Steps of the quickstart.
STEPS = {"lm": 400}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=[*TASKS, "all"], help="all is for --table")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--variants", nargs="+", default=["natural", "polar", "soft 0.5"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rate", nargs="+", type=float, default=[])
    parser.add_argument("--structures", default="dense")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--examples", type=int, help="N, if not those of the loss")
    parser.add_argument("--options", type=json.loads, default={}, help="of the optimizer, as JSON")
    parser.add_argument("--rule", type=json.loads, default={}, help="of SINGD's rule, as JSON")
    parser.add_argument("--fisher", default="empirical", choices=["empirical", "mc", "ggn"])
    parser.add_argument("--carry-over", action="store_true", help="AdamW's setting, as published")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    if options.table:
        print(table(options.task))
        return
    if options.task == "all":
        parser.error("one task at a time is run")
    task = task_named(options.task, "small")
    task = task._replace(steps=options.steps or STEPS.get(options.task, task.steps))
    first = jax.tree.leaves(next(iter(task.batches(1, 0))))[0]
    positions = first.shape[1] - 1 if task.loss_average == "batch+sequence" else 1
    examples = options.examples or first.shape[0] * positions
    setting = {"learning_rate": RATES.get(options.task, 8e-3), "weight_decay": 1e-2}
    if options.carry_over:
        published = file_of(Path(__file__).parent / "published", "small", options.task)
        setting = load(published, "seed")["adamw"][0]["setting"]
    structures = options.structures
    structures = tuple(structures.split("+")) if "+" in structures else structures
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.variants:
        label = f"directions {name}"
        entry = _entry(name, examples, structures, options.options, options.rule)
        OPTIMIZERS[label] = dataclasses.replace(entry, fisher=options.fisher)
        runner = Runner(task, label)
        rates = options.rate or [setting["learning_rate"]]
        for rate, seed in itertools.product(rates, options.seeds):
            record = runner(setting | {"learning_rate": rate}, seed)
            row = {
                "task": options.task,
                "variant": name,
                "structures": options.structures,
                "steps": task.steps,
                "options": options.options | options.rule,
                "rate": rate,
                "weight_decay": setting["weight_decay"],
                "examples": examples,
                "seed": seed,
                "fisher": options.fisher,
                "final": record["final"],
                "accuracy": record["accuracy"],
                "seconds": record["seconds"][-1],
            }
            print(json.dumps(row), flush=True)
            with (options.output / "directions.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")


def table(task: str) -> str:
    """Median of the last loss over the seeds, of all that was run with dense factors."""
    runs: dict[tuple[Any, ...], dict[int, float]] = {}
    for line in PUBLISHED.read_text().splitlines():
        row = {"fisher": "empirical"} | json.loads(line)
        names = (
            "task",
            "rate",
            "weight_decay",
            "python",
            "variant",
            "examples",
            "steps",
            "options",
            "fisher",
        )
        if row["structures"] == "dense" and task in (row["task"], "all"):
            key = tuple(_hashable(row.get(name)) for name in names)
            runs.setdefault(key, {})[row["seed"]] = row["final"]
    text = [
        "| task | rate, decay | Python | direction@damping | N | steps | last loss | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, rate, decay, python, variant, examples, steps, options, fisher), own in sorted(
        runs.items(), key=lambda item: (*map(str, item[0][:4]), statistics.median(item[1].values()))
    ):
        loss = f"{statistics.median(own.values()):.4g}"
        settings = f"{rate:g}, {decay:g}"
        sampled = "" if fisher == "empirical" else f"fisher={fisher}"
        what = " ".join(filter(None, (variant, options, sampled)))
        cells = (name, settings, python, what, examples or "", steps or "", loss, len(own))
        text.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(text)


def _hashable(value: Any) -> Any:
    return (json.dumps(value) if value else None) if isinstance(value, dict) else value


def _entry(
    variant: str, examples: int, structures: Any, options: dict[str, Any], of_rule: dict[str, Any]
) -> Optimizer:
    if variant in OPTIMIZERS:
        entry = OPTIMIZERS[variant]
        return dataclasses.replace(
            entry,
            make=lambda rate, layers, **settings: entry.make(rate, layers, **options, **settings),
            structures=None if entry.structures is None else structures,
        )
    rule = rule_of(variant, examples, **of_rule)

    def make(rate: Any, layers: Any, **settings: Any) -> Any:
        return singd_optax.optimizer(rate, rule, layers, **options, **settings)

    return Optimizer(make, OPTIMIZERS["singd"].ranges, structures)


if __name__ == "__main__":
    main()
