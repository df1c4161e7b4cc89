"""A grid of settings, sensible and not: does any of them give a NaN, and how large do factors get?

    python benchmarks/stability.py            # a quarter of an hour on one core
    python benchmarks/stability.py --small    # a minute: two structures, one task

Rules x structures x dtypes of the factors x damping modes x tasks; for each, all of
factor_learning_rate x damping x learning rate at once, under ``jax.vmap``. At step 40 the loss of
one batch, and so its gradients, are multiplied by 1e4 (a spike). What is in the file of results is
not run again.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _data import digits
from _networks import Autoencoder
from tqdm import tqdm

import singd_optax

FACTOR_LEARNING_RATES = (0.05, 0.2, 0.5, 1.0)
DAMPING = {"relative": (1e-4, 1e-2, 1e-1), "absolute": (1e-7, 1e-5, 1e-3)}
LEARNING_RATES = (0.3, 1.0, 3.0)  # times the task's own
STRUCTURES = (
    "dense",
    "diagonal",
    "block_diagonal:8",
    "hierarchical:5,5",
    "trilbottomrightdiag",
    "triltoeplitz",
)
STEPS, SPIKE = 80, 40


def tasks() -> dict[str, tuple[nn.Module, float, Callable[..., jax.Array]]]:
    """Two small nets, the learning rate that suits each, and the loss of their outputs."""
    classifier = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(10)])

    def cross_entropy(logits: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def reconstruction(logits: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(logits, x).sum(-1).mean()

    return {
        "classifier": (classifier, 4e-3, cross_entropy),
        "autoencoder": (Autoencoder(widths=(32, 8, 32)), 8e-3, reconstruction),
    }


def run(
    task: str, rule: str, structures: str, dtype: str, mode: str, momentum: float = 0.0
) -> dict[str, Any]:
    """All settings of one combination: losses, and the spectral norms of factors."""
    model, base_rate, measure = tasks()[task]
    images, labels = digits()[:2]
    x, y = jnp.asarray(images.reshape(len(images), -1)), jnp.asarray(labels)
    order = np.random.default_rng(0).integers(0, len(x), (STEPS, 64))
    scales = jnp.ones(STEPS).at[SPIKE].set(1e4)
    params = model.init(jax.random.key(0), x[:1])

    def loss_fn(params: Any, x: jax.Array, y: jax.Array, scale: Any) -> jax.Array:
        return scale * measure(model.apply(params, x), x, y)

    layers = singd_optax.find_layers(
        loss_fn, params, x[:64], y[:64], 1.0, structures=structures, factor_dtype=dtype
    )
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    def train(factor_rate: jax.Array, damping: jax.Array, rate: jax.Array) -> Any:
        options = {"factor_momentum": momentum} if rule == "singd" else {}
        tx = getattr(singd_optax, rule)(
            rate * base_rate,
            layers,
            damping=damping,
            damping_mode=mode,
            factor_learning_rate=factor_rate,
            refresh_every=2,
            **options,
        )

        def step(carry: Any, data: Any) -> tuple[Any, jax.Array]:
            params, opt_state = carry
            index, scale = data
            value, grads, curvature = grad_fn(
                params, x[index], y[index], scale, opt_state=opt_state
            )
            updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
            return (optax.apply_updates(params, updates), opt_state), value / scale

        carry = (params, tx.init(params))
        (trained, opt_state), values = jax.lax.scan(step, carry, (jnp.asarray(order), scales))
        sizes = [
            jnp.linalg.norm(factor.astype(jnp.float32).to_dense(), 2)
            for pair in singd_optax.factors(opt_state).values()
            for factor in pair
        ]
        skipped = sum(n.sum() for n in optax.tree.get(opt_state, "skipped_refreshes").values())
        return values[0], loss_fn(trained, x, y, 1.0), jnp.stack(sizes), skipped

    grid = np.array(
        list(itertools.product(FACTOR_LEARNING_RATES, DAMPING[mode], LEARNING_RATES)), np.float32
    )
    first, last, sizes, skipped = jax.jit(jax.vmap(train))(*grid.T)
    return {
        "settings": len(grid),
        "not_finite": int((~np.isfinite(last)).sum() + (~np.isfinite(sizes)).any(axis=1).sum()),
        "skipped_refreshes": int(np.sum(skipped)),
        "worse_than_start": int((last > first).sum()),
        "first": float(first[0]),
        "last": [float(np.min(last)), float(np.median(last)), float(np.max(last))],
        "factors": [float(np.min(sizes)), float(np.max(sizes))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    combinations = list(
        itertools.product(
            ("classifier",) if options.small else tasks(),
            ("singd", "ikfac"),
            ("dense", "diagonal") if options.small else STRUCTURES,
            ("float32", "bfloat16"),
            DAMPING,
        )
    )
    file = options.output / "stability.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for combination in tqdm(combinations):
        name = " ".join(combination)
        if name not in results:
            results[name] = run(*combination)
            options.output.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(results, indent=1))
    print(
        f"\n{'':56}{'NaN':>5}{'skipped':>9}{'worse':>7}{'loss: first, best, median, worst':>36}"
        f"{'norms of factors':>22}"
    )
    for name, row in results.items():
        losses = " ".join(f"{value:.3g}" for value in (row["first"], *row["last"]))
        low, high = row["factors"]
        print(
            f"{name:56}{row['not_finite']:>5}{row['skipped_refreshes']:>9}"
            f"{row['worse_than_start']:>7}{losses:>36}{f'{low:.2g} .. {high:.2g}':>22}"
        )
    runs = sum(row["settings"] for row in results.values())
    bad = sum(row["not_finite"] for row in results.values())
    print(f"{runs} runs, {bad} with a number that is not finite")


if __name__ == "__main__":
    main()
