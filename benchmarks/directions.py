"""Which direction SINGD should take: natural, polar, or soft, with which damping.

    python benchmarks/directions.py lm                  # natural, polar, soft: a few minutes
    python benchmarks/directions.py vit --variants natural "soft 0.5@0.03" --seeds 0 1 2

One run for each variant and seed at one learning rate; one line of JSON each, in a folder. "noise"
variants have the softness e of noise: in whitened coordinates the gradient of a batch of N has
entries of variance 1/N where there is no signal, the average of momentum b has (1 - b)/(1 + b) of
it, and so its singular values end at e0 = (√d_i + √d_o) √((1 - b)/((1 + b) N)).
"""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from _harness import Runner, task_named
from _optimizers import OPTIMIZERS, Optimizer
from _tasks import TASKS

import singd_optax
from singd_optax.optimizers import SINGD
from singd_optax.rules import Polar

MOMENTUM = 0.85
#: The rate of the quickstart, and what AdamW's search found on the autoencoder.
RATES = {"lm": 8e-3, "autoencoder": 8.7e-3}
#: Steps of the quickstart.
STEPS = {"lm": 400}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisePolar(Polar):
    """Polar, with the softness of noise.

    Attributes:
      examples: N.
      multiple: Of e0.
    """

    examples: int = 1
    multiple: float = 1.0

    def softness_of(self, view: Any, whitened: jax.Array, count: jax.Array) -> jax.Array:
        """That e is the multiple of e0, for heavy-ball momentum, 1/(1 - b) times the average."""
        rows, columns = view.dims
        e0 = math.sqrt(rows) + math.sqrt(columns)
        e0 *= math.sqrt(1 / ((1 + MOMENTUM) * (1 - MOMENTUM) * self.examples))
        mean = jnp.sqrt((whitened**2).sum((-2, -1), keepdims=True) / min(view.dims))
        return jnp.minimum(self.multiple * e0 / jnp.where(mean > 0, mean, 1), 1e3)


def rule_of(variant: str, examples: int) -> Any:
    """What a variant says: "kind [number][@damping]", the damping that of ``SINGD()`` if not said.

    Kinds: muon, natural, polar, polar_express, quintic, soft (softness s), noise (multiple of e0).
    """
    first, _, damping = variant.partition("@")
    kind, _, number = first.partition(" ")
    if kind == "muon":
        return None
    rule = SINGD(damping=float(damping)) if damping else SINGD()
    if kind == "natural":
        return rule
    if kind == "soft":
        return Polar(rule, softness=float(number))
    if kind == "noise":
        return NoisePolar(rule, examples=examples, multiple=float(number))
    return Polar(rule, iteration="muon" if kind == "polar" else kind)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--variants", nargs="+", default=["natural", "polar", "soft 0.5"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rate", type=float, default=None)
    parser.add_argument("--structures", default="dense")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    task = task_named(options.task, "small")
    task = task._replace(steps=options.steps or STEPS.get(options.task, task.steps))
    first = jax.tree.leaves(next(iter(task.batches(1, 0))))[0]
    positions = first.shape[1] - 1 if task.loss_average == "batch+sequence" else 1
    examples = first.shape[0] * positions
    rate = options.rate or RATES.get(options.task, 8e-3)
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.variants:
        label = f"directions {name}"
        OPTIMIZERS[label] = _entry(rule_of(name, examples), options.structures)
        runner = Runner(task, label)
        for seed in options.seeds:
            record = runner({"learning_rate": rate, "weight_decay": 1e-2}, seed)
            row = {
                "task": options.task,
                "variant": name,
                "structures": options.structures,
                "rate": rate,
                "seed": seed,
                "final": record["final"],
                "accuracy": record["accuracy"],
                "seconds": record["seconds"][-1],
            }
            print(json.dumps(row), flush=True)
            with (options.output / "directions.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")


def _entry(rule: Any, structures: Any) -> Optimizer:
    if rule is None:
        return OPTIMIZERS["muon"]

    def make(rate: Any, layers: Any, **settings: Any) -> Any:
        return singd_optax.optimizer(rate, rule, layers, **settings)

    return Optimizer(make, OPTIMIZERS["singd"].ranges, structures)


if __name__ == "__main__":
    main()
