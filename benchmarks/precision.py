"""Does it matter how precise the products with a gradient are, in each step?

    python benchmarks/precision.py lm
    python benchmarks/precision.py vit --seeds 0 1 2

A CPU multiplies float32 numbers as they are, whatever the precision that is asked for. So the
operands are rounded to what a matrix unit is given: bfloat16 for one pass ("default" on TPUs), the
sum of two such numbers for three ("high"). One line of JSON for each run.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from _harness import Runner, task_named
from _optimizers import OPTIMIZERS, Optimizer
from _tasks import TASKS
from directions import RATES, STEPS

import singd_optax
from singd_optax.optimizers import SINGD


def rounded(array: jax.Array, parts: int) -> jax.Array:
    """The sum of so many numbers in bfloat16 that is next to each number; all of it for 0."""
    total = jnp.zeros_like(array)
    for _ in range(parts):
        total = total + (array - total).astype(jnp.bfloat16).astype(array.dtype)
    return total if parts else array


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundedSINGD(SINGD):
    """SINGD that rounds what is multiplied in each step.

    Attributes:
      parts: Numbers in bfloat16 for each operand; 0 for no rounding.
    """

    parts: int = 0

    def direction(self, view: Any, state: Any, vector: Any, gradient: Any, count: Any) -> Any:
        """K Kᵀ X C Cᵀ of rounded operands, with rounding between the products."""
        K, C = (
            product if product is not None else factor
            for product, factor in ((state.product_K, state.K), (state.product_C, state.C))
        )
        x = vector
        for factor, is_product in ((K, state.product_K), (C, state.product_C)):
            factor = jax.tree.map(lambda leaf: rounded(leaf, self.parts), factor)
            if is_product is None:
                x = factor.transpose_matmul(rounded(x, self.parts))
            x = jnp.swapaxes(factor.matmul(rounded(x, self.parts)), -1, -2)
        return x, state


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--parts", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    task = task_named(options.task, "small")
    task = task._replace(steps=options.steps or STEPS.get(options.task, task.steps))
    options.output.mkdir(parents=True, exist_ok=True)
    for parts in options.parts:

        def make(rate: Any, layers: Any, parts: int = parts, **settings: Any) -> Any:
            return singd_optax.optimizer(rate, RoundedSINGD(parts=parts), layers, **settings)

        label = f"singd {parts}"
        OPTIMIZERS[label] = Optimizer(make, OPTIMIZERS["singd"].ranges, "dense")
        runner = Runner(task, label)
        for seed in options.seeds:
            settings = {"learning_rate": RATES.get(options.task, 8e-3), "weight_decay": 1e-2}
            record = runner(settings, seed)
            row = {"task": options.task, "parts": parts, "seed": seed, "final": record["final"]}
            print(json.dumps(row), flush=True)
            with (options.output / "precision.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
