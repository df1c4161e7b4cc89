"""This package beside the authors' PyTorch package: same net, same data, same steps.

    python3 -m venv peer && peer/bin/pip install torch singd
    python benchmarks/peer.py --python peer/bin/python

The algorithm as published trains a deep autoencoder of the digits in float32. Prints how far
losses are apart and what a step costs in each, and saves both curves. Optional: the tests compare
recorded trajectories of that package in float64, without it.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from _data import digits
from _tasks import autoencoder

import singd_optax
from singd_optax.optimizers import SINGD

HYPER = {
    "lr": 3e-3,
    "momentum": 0.9,
    "weight_decay": 1e-2,
    "damping": 1e-2,
    "lr_cov": 1e-2,
    "alpha1": 0.5,
    "T": 5,
}
STRUCTURES = ("dense", "diagonal")


def ours(task: Any, params: Any, batches: list[Any], hyper: dict[str, Any]) -> dict[str, Any]:
    """The loss before each step, and seconds a step, of the algorithm as published."""
    layers = singd_optax.find_layers(
        task.loss_fn, params, batches[0], structures=tuple(hyper["structures"])
    )
    tx = optax.chain(
        singd_optax.scale_by_rule(
            SINGD.paper(
                damping=hyper["damping"],
                factor_learning_rate=hyper["lr_cov"],
                factor_momentum=hyper["alpha1"],
            ),
            layers,
            refresh_every=hyper["T"],
        ),
        optax.add_decayed_weights(hyper["weight_decay"]),
        optax.trace(hyper["momentum"]),
        optax.scale_by_learning_rate(hyper["lr"]),
    )
    grad_fn = singd_optax.value_and_grad(task.loss_fn, layers)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        loss, grads, curvature = grad_fn(params, batch, opt_state=state)
        updates, state = tx.update(grads, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state, loss

    state, losses, seconds = tx.init(params), [], []
    for batch in batches:
        begin = time.perf_counter()
        params, state, loss = jax.block_until_ready(step(params, state, batch))
        seconds.append(time.perf_counter() - begin)
        losses.append(float(loss))
    return {"losses": losses, "seconds": seconds}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="one with torch and singd")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=HYPER["lr"])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    task = autoencoder()
    params = task.init(jax.random.key(0))
    images = np.asarray(digits().x).reshape(-1, 64)
    chosen = np.random.default_rng(1).integers(0, len(images), (options.steps, 512))
    batches = [jax.numpy.asarray(images[i]) for i in chosen]
    hyper = {**HYPER, "lr": options.rate}
    runs = {name: {**hyper, "structures": (name, name)} for name in STRUCTURES}
    arrays = {"images": images, "batches": chosen, "runs": json.dumps(runs)}
    for i in range(len(params)):
        layer = params[f"Dense_{i}"]
        arrays |= {f"kernel{i}": layer["kernel"], f"bias{i}": layer["bias"]}
    with tempfile.TemporaryDirectory() as folder:
        problem, result = Path(folder) / "problem.npz", Path(folder) / "result.json"
        np.savez(problem, **arrays)
        script = Path(__file__).with_name("_peer_torch.py")
        subprocess.run([options.python, script, problem, result], check=True)
        theirs = json.loads(result.read_text())
    report = {"hyper": hyper, "versions": {**theirs["versions"], "jax": jax.__version__}}
    print("structures | last loss, theirs | ours | largest difference | ms a step, theirs | ours")
    figure, axes = plt.subplots(1, len(runs), figsize=(10, 3.6), sharey=True)
    for axis, (name, setting) in zip(axes, runs.items(), strict=True):
        own, their = ours(task, params, batches, setting), theirs[name]
        a, b = np.array(their["losses"]), np.array(own["losses"])
        apart = float(np.max(np.abs(a - b) / np.abs(a)))
        milliseconds = [1e3 * statistics.fmean(run["seconds"][2:]) for run in (their, own)]
        report[name] = {
            "theirs": their["losses"],
            "ours": own["losses"],
            "largest_relative_difference": apart,
            "mean_ms": milliseconds,
        }
        print(
            f"{name:10} | {a[-1]:.4f} | {b[-1]:.4f} | {apart:.1e} "
            f"| {milliseconds[0]:.1f} | {milliseconds[1]:.1f}"
        )
        axis.plot(a, lw=4, alpha=0.4, label="singd (PyTorch)")
        axis.plot(b, lw=1, label="singd_optax")
        axis.set(title=name, xlabel="step", yscale="log")
        axis.legend()
    axes[0].set_ylabel("loss (nats an image)")
    (options.output / "peer.json").write_text(json.dumps(report, indent=1))
    figure.savefig(options.output / "peer.png", dpi=120, bbox_inches="tight")
    print(options.output / "peer.png")


if __name__ == "__main__":
    main()
