"""How long the longest steps take: refreshes all at once, and staggered.

    python benchmarks/spread.py                             # a few minutes
    python benchmarks/spread.py --optimizers soap shampoo --blocks 24 --width 128 --steps 200

Of the transformer with blocks that are not scanned: seconds of the CPU to compile, and milliseconds
of the mean step, the median, one in twenty and the longest, after the first round of refreshes; by
the clock, and by what the CPU did, which others on the machine hardly change.
"""

import argparse
import os
import time

# LAPACK's own threads and XLA's would wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np
import optax
from _price_program import TURN
from _tasks import language_model

import singd_optax


def measure(task, tx, steps):
    """Seconds to compile, and of each step after the first ones."""
    loss_and_grad = jax.value_and_grad(task.loss_fn)

    def step(params, state, batch):
        loss, grads = loss_and_grad(params, batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = jax.jit(task.init)(jax.random.key(0))
    state = jax.jit(tx.init)(params)
    data = jax.block_until_ready(list(task.batches(TURN, 0)))
    begin = time.process_time()
    run = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, data[0]).compile()
    compiled = time.process_time() - begin
    seconds = []
    for index in range(steps + TURN):
        begin = time.perf_counter(), time.process_time()
        params, state, loss = jax.block_until_ready(run(params, state, data[index % TURN]))
        seconds.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    assert np.isfinite(loss)
    return compiled, np.array(seconds[TURN:]).T


def row(name, compiled, seconds):
    """Of the table."""
    cells = []
    for own in seconds:
        numbers = own.mean(), *np.quantile(own, (0.5, 0.95, 1))
        cells.append(", ".join(f"{1e3 * number:.1f}" for number in numbers))
    return f"| {name} | {compiled:.1f} | {' | '.join(cells)} |"


def main(given=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizers", nargs="+", default=["soap", "kl_shampoo", "shampoo"])
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args(given)
    jax.config.update("jax_enable_compilation_cache", False)
    task = language_model(blocks=options.blocks, width=options.width, batch=options.batch)
    numbers = "mean, p50, p95, max"
    print(
        f"| optimizer | compile, s | ms: {numbers} | ms of the CPU: {numbers} |\n|---|---|---|---|"
    )
    print(row("adamw", *measure(task, optax.adamw(1e-3), options.steps)), flush=True)
    for name in options.optimizers:
        for stagger in (False, True):
            tx = getattr(singd_optax, name)(1e-3, refresh_every=TURN, stagger=stagger)
            label = f"{name}, staggered" if stagger else name
            print(row(label, *measure(task, tx, options.steps)), flush=True)


if __name__ == "__main__":
    main()
