"""How sure a network should be: its own probabilities, Laplace posteriors, and an ensemble.

    python benchmarks/uncertainty.py            # about two minutes on two CPU cores
    python benchmarks/uncertainty.py --small    # one seed, few steps

Two hundred of scikit-learn's digits, a network of two hidden layers that is trained until it is too
sure of itself. Prior precisions are chosen on 300 validation digits, or by the evidence, without
any: once after training, or in turns with it. Measured on all other digits: negative
log-likelihood, expected calibration error (15 bins); and the area under the ROC curve by which the
confidence tells digits from the same images with shuffled pixels.
"""

import argparse
import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

import singd_optax
from singd_optax.curvature import fit, laplace, predict, tune

TRAIN, VALIDATION, WIDTH, MEMBERS, ROUNDS = 200, 300, 50, 5, 4
DECAY = 1e-6
PRECISIONS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(WIDTH)(x))
        x = nn.tanh(nn.Dense(WIDTH)(x))
        return nn.Dense(10, name="head")(x)


def model(params, x):
    return MLP().apply(params, x)


def loss_fn(params, x, y):
    logits = singd_optax.tag_distribution(model(params, x), "categorical")
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def data(seed):
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    x = jnp.asarray(digits.data[order] / 16, jnp.float32)
    y = jnp.asarray(digits.target[order], jnp.int32)
    pixels = np.random.default_rng(seed + 1).permutation(x.shape[1])
    end = TRAIN + VALIDATION
    parts = x[:TRAIN], y[:TRAIN], x[TRAIN:end], y[TRAIN:end], x[end:], y[end:]
    return *parts, x[end:][:, pixels]


def trained(x, y, layers, steps, params, decay):
    """With a penalty of decay / 2 times the squares of all parameters."""

    def penalized(params, x, y):
        squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return loss_fn(params, x, y) + decay / 2 * squares

    tx = singd_optax.singd(optax.cosine_decay_schedule(1e-2, steps), layers)
    grad_fn = singd_optax.value_and_grad(penalized, layers)

    def step(carry, _):
        params, opt_state = carry
        _, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
        return (optax.apply_updates(params, updates), opt_state), None

    return jax.lax.scan(step, (params, tx.init(params)), None, length=steps)[0][0]


def metrics(on_test, y, on_strange):
    """Of probabilities (examples, classes)."""
    p, y, strange = np.asarray(on_test), np.asarray(y), np.asarray(on_strange)
    confidence, hit = p.max(1), p.argmax(1) == y
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [
        abs(hit[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    scores = np.concatenate([confidence, strange.max(1)])
    return {
        "accuracy": float(hit.mean()),
        "nll": float(-np.log(p[np.arange(len(y)), y] + 1e-12).mean()),
        "ece": float(sum(gaps)),
        "auroc": float(roc_auc_score(np.repeat([1, 0], [len(p), len(strange)]), scores)),
    }


def predictor(curvature, params, **options):
    """Probabilities of a prior precision and inputs."""

    @jax.jit
    def probabilities(precision, x):
        posterior = laplace(curvature, params, prior_precision=precision)
        return predict(posterior, model, x, **options)

    return probabilities


def run(seed, steps):
    """Name -> metrics."""
    x, y, x_valid, y_valid, x_test, y_test, strange = data(seed)
    init = lambda key: MLP().init(key, x)
    layers = singd_optax.find_layers(loss_fn, init(jax.random.key(0)), x, y)
    keys = jax.random.split(jax.random.key(seed), MEMBERS)
    train = jax.jit(jax.vmap(lambda params: trained(x, y, layers, steps, params, DECAY)))
    members = train(jax.vmap(init)(keys))
    params = jax.tree.map(lambda leaf: leaf[0], members)
    itself = jax.jit(lambda params, x: jax.nn.softmax(model(params, x)))
    rows = {}

    def enter(name, way, precision=None):
        rows[name] = metrics(way(x_test), y_test, way(strange)) | {"prior_precision": precision}

    def chosen(name, curvature, **options):
        """By the likelihood of validation examples."""
        probabilities = predictor(curvature, params, **options)
        nll = lambda tau: metrics(probabilities(tau, x_valid), y_valid, x_valid)["nll"]
        best = min(PRECISIONS, key=nll)
        enter(name, lambda x: probabilities(best, x), best)

    enter("the network itself", lambda x: itself(params, x))
    kfac, ekfac, diagonal = (
        fit(loss_fn, layers, params, [(x, y)], kind=kind, fisher="ggn")
        for kind in ("kfac", "ekfac", "diagonal")
    )
    chosen("Laplace, KFAC", kfac)
    chosen("Laplace, EKFAC", ekfac)
    chosen("Laplace, diagonal", diagonal)
    chosen("Laplace, last layer", ekfac.select("head"))
    chosen("Laplace, EKFAC, bridge", ekfac, link="bridge")
    chosen("Laplace, EKFAC, sampled", ekfac, method="sampled", key=jax.random.key(0))
    found = float(tune(laplace(ekfac, params)).prior_precision)
    at_hand = predictor(ekfac, params)
    enter("Laplace, EKFAC, evidence afterwards", lambda x: at_hand(found, x), found)

    # In turns: train with a prior, fit, and choose the prior by the evidence.
    again = jax.jit(lambda params, decay: trained(x, y, layers, steps, params, decay))
    precision, online = 1.0, init(keys[0])
    for _ in range(ROUNDS):
        online = again(online, precision / TRAIN)
        curvature = fit(loss_fn, layers, online, [(x, y)], kind="ekfac", fisher="ggn")
        posterior = tune(laplace(curvature, online, prior_precision=precision))
        precision = float(posterior.prior_precision)
    enter("the network, evidence while training", lambda x: itself(online, x), precision)
    last = predictor(curvature, online)
    enter("its Laplace, EKFAC", lambda x: last(precision, x), precision)
    mean = jax.jit(lambda x: jax.vmap(itself, (0, None))(members, x).mean(0))
    enter(f"ensemble of {MEMBERS}", mean)
    return rows


def table(runs):
    """Medians over seeds."""
    names = ("accuracy", "nll", "ece", "auroc", "prior_precision")
    lines = ["| | accuracy | NLL | ECE | AUROC | prior precision |", "|---|---|---|---|---|---|"]
    for way in runs[0]:
        cells = []
        for name in names:
            values = [run[way][name] for run in runs]
            cells.append("" if None in values else f"{np.median(values):.3g}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="one seed, few steps")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    seeds, steps = (1, 60) if options.small else (3, 200)
    runs = [run(seed, steps) for seed in tqdm(range(seeds), desc="seeds")]
    options.output.mkdir(parents=True, exist_ok=True)
    name = "uncertainty_small.json" if options.small else "uncertainty.json"
    (options.output / name).write_text(json.dumps({"steps": steps, "runs": runs}, indent=1))
    print(table(runs))


if __name__ == "__main__":
    main()
