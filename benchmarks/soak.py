"""Twenty-two things that go wrong in training, for optimizers with layers and mini-block Fisher.

Is all finite?

    python benchmarks/soak.py                          # twenty minutes on one core
    python benchmarks/soak.py --optimizers kfac mkor   # some of them
    python benchmarks/soak.py --table                  # of the runs that are in the file

A small network on digits, 40 steps, a refresh on each. All scenarios of an optimizer are one
program, under ``jax.vmap``. Losses that are not finite are left out by ``optax.apply_if_finite``,
as in the documentation. What is in the file of results is not run again.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _data import digits
from _optimizers import OPTIMIZERS
from _results import cached, read
from tqdm import tqdm

import singd_optax
from singd_optax.layers import rule_states
from singd_optax.optimizers import KFAC
from singd_optax.testing._compile import _known_options
from singd_optax.transforms import hybrid, levenberg_marquardt

STEPS, BATCH, RATE = 40, 32, 4e-3
PLACE = Path(__file__).parent / "published"
DTYPES = ("float32", "bfloat16")
#: Those that need no layers.
ALONE = ("mini_block_fisher",)


class Net(nn.Module):
    """Two hidden layers, of which the second can be switched off, and a convolution."""

    @nn.compact
    def __call__(self, x: jax.Array, alive: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="conv")(x))
        x = nn.relu(nn.Dense(16, name="first")(x.reshape(len(x), -1)))
        branch = nn.relu(nn.Dense(16, name="second")(x * alive))
        return nn.Dense(10, name="head")(x + alive * branch)


def _hybrid(rate: Any, layers: Any, **options: Any) -> Any:
    return hybrid(singd_optax.mkor(rate, layers, **options), optax.adamw(rate), window=10)


def _levenberg_marquardt(rate: Any, layers: Any, **options: Any) -> Any:
    del rate
    return levenberg_marquardt(KFAC(damping_mode="absolute"), layers, **options)


#: Name -> (rate, layers) -> transformation.
MAKERS: dict[str, Callable[..., Any]] = {
    name: one.make
    for name, one in OPTIMIZERS.items()
    if (one.structures == "dense" and one.factor_dtype is None and "bfloat16" not in name)
    or name in ALONE
} | {"mkor_hybrid": _hybrid, "levenberg_marquardt": _levenberg_marquardt}


def scenarios() -> dict[str, dict[str, Any]]:
    """Name -> what differs from a plain run, as numbers for each step."""
    at = np.arange(STEPS)
    late, once = at >= STEPS // 2, at == STEPS // 2
    rng = np.random.default_rng(0)
    return {
        "plain": {},
        "a loss times 1e4": {"loss": np.where(once, 1e4, 1)},
        "every tenth loss times 1e4": {"loss": np.where(at % 10 == 9, 1e4, 1)},
        "a loss times 1e12": {"loss": np.where(once, 1e12, 1)},
        "all losses times 1e-8": {"loss": np.full(STEPS, 1e-8)},
        "all losses times 1e8": {"loss": np.full(STEPS, 1e8)},
        "a loss that is NaN": {"loss": np.where(once, np.nan, 1)},
        "a loss that is infinite": {"loss": np.where(once, np.inf, 1)},
        "a loss of 0": {"loss": np.where(once, 0, 1)},
        "losses of 0 from half on": {"loss": np.where(late, 0, 1)},
        "inputs times 1e3": {"inputs": np.full(STEPS, 1e3)},
        "inputs times 1e-4": {"inputs": np.full(STEPS, 1e-4)},
        "inputs of one batch times 1e4": {"inputs": np.where(once, 1e4, 1)},
        "a batch of zeros": {"inputs": np.where(once, 0, 1)},
        "inputs plus 100": {"shift": np.full(STEPS, 100.0)},
        "one example, again and again": {"index": np.zeros((STEPS, BATCH), np.int32)},
        "one example a batch": {
            "index": np.repeat(rng.integers(0, 1500, (STEPS, 1), np.int32), BATCH, 1)
        },
        "a layer that dies": {"alive": np.where(late, 0, 1)},
        "a layer that was never alive": {"alive": np.zeros(STEPS)},
        "learning rate times 30": {"rate": np.full(STEPS, 30.0)},
        "learning rate times 1000": {"rate": np.full(STEPS, 1e3)},
        "labels at random": {"labels": np.ones(STEPS, np.int32)},
    }


def run(name: str, dtype: str) -> dict[str, Any]:
    """Losses and what is not finite, by scenario."""
    split = digits()
    images, labels = jnp.asarray(split.x), jnp.asarray(split.y)
    wrong = jnp.asarray(np.random.default_rng(1).permutation(split.y))
    model = Net()
    params = model.init(jax.random.key(0), images[:1], 1.0)

    def loss_fn(params: Any, x: Any, y: Any, alive: Any, scale: Any) -> jax.Array:
        logits = model.apply(params, x, alive)
        return scale * optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    batch = images[:BATCH], labels[:BATCH], 1.0, 1.0
    layers = singd_optax.find_layers(
        loss_fn, params, *batch, structures="dense", factor_dtype=dtype
    )
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    order = np.random.default_rng(0).integers(0, 1500, (STEPS, BATCH), np.int32)
    plain = {
        "loss": np.ones(STEPS),
        "inputs": np.ones(STEPS),
        "shift": np.zeros(STEPS),
        "alive": np.ones(STEPS),
        "rate": np.ones(STEPS),
        "labels": np.zeros(STEPS, np.int32),
        "index": order,
    }
    rows = [plain | own for own in scenarios().values()]
    stacked = {
        key: np.stack([np.asarray(row[key], value.dtype) for row in rows])
        for key, value in plain.items()
    }
    data = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.result_type(x, jnp.float32))
        if x.dtype.kind == "f"
        else jnp.asarray(x),
        stacked,
    )

    def train(one: dict[str, jax.Array]) -> Any:
        rates = one.pop("rate")
        schedule = lambda count: RATE * rates[jnp.minimum(count, STEPS - 1)]
        own = {"factor_dtype": dtype} if name in ALONE else {}
        tx = MAKERS[name](schedule, layers, refresh_every=1, **own)
        tx = optax.apply_if_finite(optax.with_extra_args_support(tx), STEPS)

        def step(carry: Any, now: dict[str, jax.Array]) -> tuple[Any, jax.Array]:
            params, opt_state = carry
            x = images[now["index"]] * now["inputs"] + now["shift"]
            y = jnp.where(now["labels"] > 0, wrong[now["index"]], labels[now["index"]])
            arguments = params, x, y, now["alive"], now["loss"]
            if name in ALONE:
                (value, grads), curvature = jax.value_and_grad(loss_fn)(*arguments), None
            else:
                value, grads, curvature = grad_fn(*arguments, opt_state=opt_state)
            updates, opt_state = tx.update(
                grads, opt_state, params, curvature=curvature, value=value
            )
            return (optax.apply_updates(params, updates), opt_state), value

        (trained, opt_state), values = jax.lax.scan(step, (params, tx.init(params)), one)
        finite = [
            jnp.isfinite(leaf).all()
            for leaf in jax.tree.leaves((trained, opt_state.inner_state))
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        skipped = sum(
            n.sum() for own in rule_states(opt_state) for n in own.skipped_refreshes.values()
        )
        largest = jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(trained)]).max()
        after = loss_fn(trained, images[:512], labels[:512], 1.0, 1.0)
        return values[0], after, jnp.stack(finite).all(), skipped, largest

    # To compile is most of the work.
    found = jax.jit(jax.vmap(train), compiler_options=dict(_known_options()))(data)
    keys = ("first", "last", "finite", "skipped", "largest_weight")
    return {
        scenario: {
            key: float(f"{x[i]:.4g}") if x.dtype.kind == "f" else x[i].item()
            for key, x in zip(keys, map(np.asarray, found), strict=True)
        }
        for i, scenario in enumerate(scenarios())
    }


def table(file: Path) -> str:
    """What is in the file, a row for each optimizer; losses are of 512 images at the end."""
    lines = [
        f"{'':28}{'not finite':>12}{'plain loss':>12}{'skipped':>9}{'worst loss, and where':>23}"
    ]
    for name, record in read(file).items():
        runs = {key: own for key, own in record.items() if key != "name"}
        bad = [key for key, own in runs.items() if not own["finite"]]
        sane = {key: own["last"] for key, own in runs.items() if "rate" not in key}
        worst = max(sane, key=lambda key: sane[key] if np.isfinite(sane[key]) else np.inf)
        skipped = sum(own["skipped"] for own in runs.values())
        lines.append(
            f"{name:28}{len(bad):>12}{runs['plain']['last']:>12.4f}{skipped:>9}"
            f"{sane[worst]:>12.3g}  {worst}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizers", nargs="*", default=sorted(MAKERS), choices=sorted(MAKERS))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--output", type=Path, default=PLACE)
    options = parser.parse_args()
    file = options.output / "soak.jsonl"
    if not options.table:
        for dtype in DTYPES:
            for name in tqdm(options.optimizers, desc=dtype):
                cached(file, f"{name} {dtype}", lambda n=name, d=dtype: run(n, d))
    print(table(file))


if __name__ == "__main__":
    main()
