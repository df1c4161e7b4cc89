"""How sure a network should be: its own probabilities, Laplace posteriors, and an ensemble.

    python benchmarks/uncertainty.py            # about three minutes on two CPU cores
    python benchmarks/uncertainty.py --small    # one seed, few steps
    python benchmarks/uncertainty.py --output benchmarks/published    # the table of these runs

Two hundred of scikit-learn's digits, a network of two hidden layers that is trained until it is too
sure of itself. Prior precisions are chosen on 300 validation digits, or by the evidence, without
any: once after training, or in turns with it, by the blocks of EKFAC or by the exact Gauss-Newton
matrix. Measured on all other digits: negative log-likelihood, expected calibration error (15 bins);
and the area under the ROC curve by which the confidence tells digits from the same images with
shuffled pixels. Runs go to a file, and those that are there are not made again.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _results import cached, rounded
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

import singd_optax
from singd_optax.curvature import add_prior, fit, from_diagonal, laplace, predict, tune

TRAIN, VALIDATION, WIDTH, MEMBERS, ROUNDS = 200, 300, 50, 5, 4
WEAK = 1e-6 * TRAIN  # hardly a prior
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


def trained(x, y, layers, steps, params, precision):
    """With a prior of this precision, one number or one for each layer."""
    prior = add_prior(layers, terms=TRAIN)
    tx = optax.chain(prior, singd_optax.singd(optax.cosine_decay_schedule(1e-2, steps), layers))
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    def step(carry, _):
        params, opt_state = carry
        _, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
        return (optax.apply_updates(params, updates), opt_state), None

    prior_state, *others = tx.init(params)
    state = (prior_state._replace(prior_precision=precision), *others)
    return jax.lax.scan(step, (params, state), None, length=steps)[0][0]


def exact_precision(params, x):
    """The prior precision by the evidence of the exact Gauss-Newton matrix, from its spectrum."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    jacobian = jax.jacobian(lambda w: model(unravel(w), x))(flat)
    p = jax.nn.softmax(model(params, x))
    root = (jnp.eye(10) - p[:, :, None]) * jnp.sqrt(p)[:, None, :]
    rows = jnp.einsum("nck,ncp->nkp", root, jacobian).reshape(-1, flat.size)
    gram = jnp.matmul(rows, rows.T, precision="highest")
    values = jnp.zeros_like(flat).at[: len(rows)].set(jnp.maximum(jnp.linalg.eigvalsh(gram), 0))
    # The evidence depends on the spectrum and on |w| alone.
    turned = {"w": jnp.full_like(flat, jnp.linalg.norm(flat) / np.sqrt(flat.size))}
    return tune(laplace(from_diagonal({"w": values}), turned)).prior_precision


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
    train = jax.jit(jax.vmap(lambda params: trained(x, y, layers, steps, params, WEAK)))
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
    at_hand = predictor(ekfac, params)
    exact = jax.jit(lambda params: exact_precision(params, x))
    for name, found in (
        ("evidence afterwards", tune(laplace(ekfac, params)).prior_precision),
        ("exact evidence afterwards", exact(params)),
    ):
        enter(f"Laplace, EKFAC, {name}", lambda x, at=found: at_hand(at, x), float(found))

    # In turns: train with a prior, fit, and choose the prior by the evidence.
    again = jax.jit(lambda params, prior: trained(x, y, layers, steps, params, prior))
    for name, is_exact, start in (
        ("evidence in turns", False, 1.0),
        ("evidence in turns, of each layer", False, dict.fromkeys(layers, 1.0)),
        ("exact evidence in turns", True, 1.0),
    ):
        prior, online = jax.tree.map(jnp.asarray, start), init(keys[0])
        for _ in range(ROUNDS):
            online = again(online, prior)
            curvature = fit(loss_fn, layers, online, [(x, y)], kind="ekfac", fisher="ggn")
            posterior = tune(laplace(curvature, online, prior_precision=prior))
            prior = exact(online) if is_exact else posterior.prior_precision
        number = None if isinstance(prior, dict) else float(prior)
        enter(f"the network, {name}", lambda x, online=online: itself(online, x), number)
        last = predictor(curvature, online)
        enter(f"its Laplace, EKFAC, {name}", lambda x, p=prior, l=last: l(p, x), number)
    mean = jax.jit(lambda x: jax.vmap(itself, (0, None))(members, x).mean(0))
    enter(f"ensemble of {MEMBERS}", mean)
    return rows


def table(runs):
    """Medians over seeds."""
    names = ("accuracy", "nll", "ece", "auroc", "prior_precision")
    lines = ["| | accuracy | NLL | ECE | AUROC | prior precision |", "|---|---|---|---|---|---|"]
    for way in [key for key, value in runs[0].items() if isinstance(value, dict)]:
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
    file = options.output / ("uncertainty_small.jsonl" if options.small else "uncertainty.jsonl")
    runs = [
        cached(file, f"seed {seed}", lambda seed=seed: rounded(run(seed, steps)))
        for seed in tqdm(range(seeds), desc="seeds")
    ]
    print(table(runs))


if __name__ == "__main__":
    main()
