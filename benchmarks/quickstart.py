"""Train a transformer on the CPython standard library's source: SINGD beside AdamW and Muon.

    python benchmarks/quickstart.py             # about three minutes on two CPU cores
    python benchmarks/quickstart.py --optimizers adamw muon singd kfac shampoo  # any of them
    python benchmarks/quickstart.py --search    # the search behind LEARNING_RATES

All optimizers see the same initial parameters and the same batches. They train in turns, a few
steps each, so that a change of the machine's speed hits all.
"""

import argparse
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from _bytes import tree_bytes
from _gpt import GPT
from _text import VOCABULARY, batches, standard_library_source
from tqdm import tqdm

import singd_optax

mpl.use("Agg")
import matplotlib.pyplot as plt

#: The best of GRID for each, by validation loss after 400 steps (``--search``).
LEARNING_RATES = {"adamw": 4e-3, "singd": 8e-3}
#: Not searched in full. The relatives of SINGD share its recipe, and so its rate; the others have
#: the best of the second half of GRID (``--search --grid ...``).
LEARNING_RATES |= {
    "singd_diagonal": 8e-3,
    "ingd": 8e-3,
    "ikfac": 8e-3,
    "kfac": 8e-3,
    "inverse_free_shampoo": 1.6e-2,
    "shampoo": 8e-3,
    "caspr": 8e-3,
    "muon": 1.6e-2,
}
#: Of this package, optimizers that need no layers.
WITHOUT_LAYERS = ("shampoo", "caspr", "inverse_free_shampoo")
WITHOUT_LAYERS += ("soap", "kl_shampoo", "kl_soap", "inverse_free_kl_shampoo")
WITHOUT_LAYERS += ("psgd_kron", "normuon", "splus")
LEARNING_RATES |= {name: 1.6e-2 for name in WITHOUT_LAYERS[3:]}
GRID = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
BATCH, CONTEXT, WEIGHT_DECAY = 16, 64, 1e-2
TURN = 20  # steps between validations


class Run(NamedTuple):
    """A compiled optimizer: state -> state, and what it has cost and reached."""

    name: str
    step: Callable[..., Any]
    state: list[Any]
    validation: list[float]
    seconds: list[float]
    state_bytes: int


def model_and_loss() -> tuple[GPT, Callable[..., jax.Array]]:
    model = GPT(vocabulary=VOCABULARY, context=CONTEXT)

    def loss_fn(params: Any, tokens: jax.Array) -> jax.Array:
        logits = model.apply({"params": params}, tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    return model, loss_fn


def make_run(name: str, learning_rate: float, steps: int, params: Any, tokens: jax.Array) -> Run:
    """Build the optimizer and compile its step, so that compilation is not timed."""
    _, loss_fn = model_and_loss()
    schedule = optax.warmup_cosine_decay_schedule(0, learning_rate, max(steps // 20, 1), steps)
    options = {"weight_decay": WEIGHT_DECAY}
    alone = {
        "adamw": optax.adamw,
        "muon": functools.partial(optax.contrib.muon, consistent_rms=0.2),
        **{name: getattr(singd_optax, name) for name in WITHOUT_LAYERS},
    }
    if name in alone:
        tx = optax.with_extra_args_support(alone[name](schedule, **options))

        def step(params: Any, opt_state: Any, tokens: jax.Array) -> tuple[Any, Any, jax.Array]:
            value, grads = jax.value_and_grad(loss_fn)(params, tokens)
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, value

    else:
        alias, _, structures = name.partition("_")
        layers = singd_optax.find_layers(
            loss_fn,
            params,
            tokens,
            structures=structures or "auto",
            loss_average="batch+sequence",
        )
        tx = getattr(singd_optax, alias)(schedule, layers, **options)
        grad_fn = singd_optax.value_and_grad(loss_fn, layers)

        def step(params: Any, opt_state: Any, tokens: jax.Array) -> tuple[Any, Any, jax.Array]:
            value, grads, curvature = grad_fn(params, tokens, opt_state=opt_state)
            updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
            return optax.apply_updates(params, updates), opt_state, value

    opt_state = tx.init(params)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, opt_state, tokens).compile()
    state_bytes = tree_bytes(opt_state)
    copied = jax.tree.map(jnp.copy, params)
    return Run(name, compiled, [copied, opt_state], [], [0.0], state_bytes)


def train(runs: list[Run], steps: int, seed: int, show_progress: bool) -> None:
    """Train all runs in turns on the same batches, validating after every turn."""
    _, loss_fn = model_and_loss()
    training, held_out = standard_library_source()
    data = batches(training, BATCH, CONTEXT, steps, seed)
    validation = jnp.asarray(batches(held_out, 128, CONTEXT, 1, 0)[0])
    evaluate = jax.jit(loss_fn)
    for run in runs:
        run.validation.append(float(evaluate(run.state[0], validation)))
    bars = [
        tqdm(total=steps, desc=run.name, position=i, disable=not show_progress, leave=True)
        for i, run in enumerate(runs)
    ]
    for start in range(0, steps, TURN):
        turn = [jnp.asarray(batch) for batch in data[start : start + TURN]]
        for run, bar in zip(runs, bars, strict=True):
            params, opt_state = run.state
            begin = time.perf_counter()
            for tokens in turn:
                params, opt_state, _ = run.step(params, opt_state, tokens)
            jax.block_until_ready(params)
            run.seconds.append(run.seconds[-1] + time.perf_counter() - begin)
            run.state[:] = params, opt_state
            run.validation.append(float(evaluate(params, validation)))
            bar.update(len(turn))
            bar.set_postfix(validation=f"{run.validation[-1]:.3f}")
    for bar in bars:
        bar.close()


def initial_params(seed: int) -> tuple[Any, jax.Array]:
    model, _ = model_and_loss()
    tokens = jnp.zeros((BATCH, CONTEXT + 1), jnp.int32)
    return model.init(jax.random.key(seed), tokens[:, :-1])["params"], tokens


def reached(run: Run, target: float) -> tuple[int, float] | None:
    """Steps and seconds until the validation loss was first at or below a target."""
    for i, loss in enumerate(run.validation):
        if loss <= target:
            return i * TURN, run.seconds[i]
    return None


def report(runs: list[Run], steps: int, learning_rates: dict[str, float]) -> str:
    target = runs[0].validation[-1]
    header = [
        "optimizer",
        "learning rate",
        f"validation loss, {steps} steps",
        f"steps to {runs[0].name}'s last loss",
        "seconds to it",
        "seconds in all",
        "ms a step (median)",
        "optimizer state",
    ]
    rows = [header]
    for run in runs:
        hit = reached(run, target)
        turns = np.diff(run.seconds) / TURN * 1e3
        rows.append(
            [
                run.name,
                f"{learning_rates[run.name]:g}",
                f"{run.validation[-1]:.3f}",
                "not reached" if hit is None else str(hit[0]),
                "-" if hit is None else f"{hit[1]:.1f}",
                f"{run.seconds[-1]:.1f}",
                f"{statistics.median(turns):.1f}",
                f"{run.state_bytes / 1e6:.2f} MB",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def plot(runs: list[Run], file: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for run in runs:
        axes[0].plot(np.arange(len(run.validation)) * TURN, run.validation, label=run.name)
        axes[1].plot(run.seconds, run.validation, label=run.name)
    axes[0].set(xlabel="steps", ylabel="validation loss (nats per character)")
    axes[1].set(xlabel="seconds")
    axes[0].set_ylim(top=min(3.5, max(run.validation[0] for run in runs)))
    axes[0].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.suptitle("Transformer language model on the CPython standard library's source")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def search(names: list[str], grid: list[float], steps: int, seed: int) -> None:
    """The same grid for every optimizer."""
    params, tokens = initial_params(seed)
    for name in names:
        results = {}
        for learning_rate in tqdm(grid, desc=name):
            run = make_run(name, learning_rate, steps, params, tokens)
            train([run], steps, seed, show_progress=False)
            results[learning_rate] = run.validation[-1]
        print(name, {f"{k:g}": round(v, 3) for k, v in results.items()})
        print(f"  best: {min(results, key=results.__getitem__):g}", flush=True)


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--optimizers",
        nargs="+",
        choices=list(LEARNING_RATES),
        default=["adamw", "muon", "singd"],
    )
    parser.add_argument("--grid", nargs="+", type=float, default=GRID, help="for --search")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--search", action="store_true", help="search learning rates, then stop")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results", help="a folder"
    )
    options = parser.parse_args(given)
    if options.search:
        search(options.optimizers, options.grid, options.steps, options.seed)
        return
    params, tokens = initial_params(options.seed)
    runs = [
        make_run(name, LEARNING_RATES[name], options.steps, params, tokens)
        for name in options.optimizers
    ]
    train(runs, options.steps, options.seed, show_progress=True)
    table = report(runs, options.steps, LEARNING_RATES)
    print("\n" + table)
    options.output.mkdir(parents=True, exist_ok=True)
    plot(runs, options.output / "quickstart.png")
    record = {
        "steps": options.steps,
        "seed": options.seed,
        "jax": jax.__version__,
        "machine": platform.machine(),
        "runs": {run.name: {"validation": run.validation, "seconds": run.seconds} for run in runs},
    }
    (options.output / "quickstart.json").write_text(json.dumps(record, indent=1))
    print(f"\nPlot: {options.output / 'quickstart.png'}")


if __name__ == "__main__":
    main()
