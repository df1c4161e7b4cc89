"""Factors in bfloat16: stochastic rounding beside plain rounding and float32, over three seeds.

    python benchmarks/rounding.py             # about five minutes on two cores

The quickstart's transformer, 400 steps; medians of the held-out loss. Plain rounding is no option
of the package: here it takes the place of the function with which factors are rounded.
"""

import argparse
import statistics
from typing import Any
from unittest import mock

import jax
import optax
from _tasks import Task, language_model
from tqdm import tqdm

import singd_optax
from singd_optax.structures import stochastic_round
from singd_optax.transforms import _refreshing


def plainly(array: jax.Array, dtype: Any, key: jax.Array) -> jax.Array:
    """Rounded to the nearest."""
    del key
    return array.astype(dtype)


def finals(task: Task, dtype: str, steps: int, seeds: int, rate: float) -> list[float]:
    """The last loss of each seed, with one compilation."""
    params = task.init(jax.random.key(1))
    layers = singd_optax.find_layers(
        task.loss_fn,
        params,
        next(iter(task.batches(1, 0))),
        loss_average=task.loss_average,
        factor_dtype=dtype,
    )
    schedule = optax.warmup_cosine_decay_schedule(0, rate, max(steps // 20, 1), steps)
    tx = singd_optax.singd(schedule, layers, weight_decay=1e-2)
    grad_fn = singd_optax.value_and_grad(task.loss_fn, layers)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any]:
        _, grads, curvature = grad_fn(params, batch, opt_state=state)
        updates, state = tx.update(grads, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state

    found = []
    for seed in tqdm(range(1, seeds + 1), desc=dtype, leave=False):
        params = task.init(jax.random.key(seed))
        state = tx.init(params)
        for batch in task.batches(steps, seed):
            params, state = step(params, state, batch)
        found.append(float(task.evaluate(params)))
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=8e-3)
    options = parser.parse_args()
    task = language_model()
    for label, dtype in (("float32", "float32"), ("stochastic", "bfloat16"), ("plain", "bfloat16")):
        rounding = plainly if label == "plain" else stochastic_round
        with mock.patch.object(_refreshing, "stochastic_round", rounding):
            own = finals(task, dtype, options.steps, options.seeds, options.rate)
        print(f"{label:12} {statistics.median(own):.4f}  {' '.join(f'{x:.4f}' for x in own)}")


if __name__ == "__main__":
    main()
