"""How to cut a factor into blocks: products, times and losses of three rules.

    python benchmarks/blocks.py             # about five minutes on two cores
    python benchmarks/blocks.py --steps 0   # products and times alone

"full first" leaves a smaller last block, as the authors' package does; "balanced" is the package's
rule; "at most" is the fewest blocks of at most the size, none of them a row more. Losses are those
of the quickstart's transformer, whose inputs are 97 or 385 wide with a bias, with blocks of 32.

Last losses of two seeds after 200 steps: full first 2.2122 2.2034, balanced 2.2100 2.2048, at most
2.2248 2.2103. Dim 1025 by 256: 22 products and 8.3 ms full first, 12 products and 6.0 ms balanced.
"""

import argparse
import statistics
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _tasks import language_model
from tqdm import tqdm

import singd_optax
from singd_optax.structures import BlockDiagonal, StructuredMatrix, _block_diagonal
from singd_optax.structures._block_sizes import Groups, balanced_blocks, full_blocks_first


def at_most(dim: int, block_size: int) -> Groups:
    """The fewest blocks of at most this size; sizes differ by at most one."""
    count = -(-dim // block_size)
    size, larger = divmod(dim, count)
    return [group for group in ((larger, size + 1), (count - larger, size)) if group[0]]


RULES = {"full first": full_blocks_first, "balanced": balanced_blocks, "at most": at_most}
CASES = ((1024, 256), (1025, 256), (769, 256), (2049, 256), (4097, 256), (97, 32), (385, 32))
ROWS, COLUMNS = 1024, 256


def work(K: StructuredMatrix, rows: jax.Array, gradient: jax.Array) -> Any:
    """What a refresh and a step do with a factor."""
    bound = K.spectral_norm_bound()
    return K @ K.gram(rows) * (1 / bound), K @ K.transpose_matmul(gradient)


def products_and_times(repeats: int) -> None:
    """Of each rule at each dim, in turns."""
    print(f"{ROWS} rows, gradients of {COLUMNS} columns; shortest of {repeats} runs")
    for dim, block_size in CASES:
        structure, random = BlockDiagonal(block_size), np.random.default_rng(0)
        arrays = [jnp.asarray(random.normal(size=s), "f4") for s in ((ROWS, dim), (dim, COLUMNS))]
        compiled, seconds = {}, {name: [] for name in RULES}
        for name, rule in RULES.items():
            with mock.patch.object(_block_diagonal, "balanced_blocks", rule):
                arguments = (structure.eye(dim), *arrays)
                products = str(jax.make_jaxpr(work)(*arguments)).count("dot_general[")
                compiled[name] = (jax.jit(work).lower(*arguments).compile(), arguments, products)
        for _ in range(repeats):
            for name, (program, arguments, _products) in compiled.items():
                begin = time.perf_counter()
                jax.block_until_ready(program(*arguments))
                seconds[name].append(time.perf_counter() - begin)
        for name, (_, arguments, products) in compiled.items():
            print(
                f"  {dim:5} by {block_size:3} {name:11}{RULES[name](dim, block_size)!s:26}"
                f"{products:3} products{1e3 * min(seconds[name]):9.3f} ms"
                f"{arguments[0].nbytes / 1e3:9.1f} kB"
            )


def losses(rule: Any, steps: int, seeds: int) -> list[float]:
    """The last held-out loss of each seed."""
    task = language_model()
    with mock.patch.object(_block_diagonal, "balanced_blocks", rule):
        layers = singd_optax.find_layers(
            task.loss_fn,
            task.init(jax.random.key(0)),
            next(iter(task.batches(1, 0))),
            structures="block_diagonal:32",
            loss_average=task.loss_average,
        )
        schedule = optax.warmup_cosine_decay_schedule(0, 8e-3, max(steps // 20, 1), steps)
        tx = singd_optax.singd(schedule, layers, weight_decay=1e-2)
        grad_fn = singd_optax.value_and_grad(task.loss_fn, layers)

        @jax.jit
        def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any]:
            _, grads, curvature = grad_fn(params, batch, opt_state=state)
            updates, state = tx.update(grads, state, params, curvature=curvature)
            return optax.apply_updates(params, updates), state

        found = []
        for seed in range(1, seeds + 1):
            params = task.init(jax.random.key(seed))
            state = tx.init(params)
            for batch in tqdm(task.batches(steps, seed), total=steps, leave=False):
                params, state = step(params, state, batch)
            found.append(float(task.evaluate(params)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    products_and_times(options.repeats)
    if options.steps:
        print(f"transformer, blocks of 32, {options.steps} steps, {options.seeds} seeds")
        for name, rule in RULES.items():
            found = losses(rule, options.steps, options.seeds)
            shown = " ".join(f"{loss:.4f}" for loss in found)
            print(f"  {name:11}{statistics.median(found):.4f}   {shown}")


if __name__ == "__main__":
    main()
