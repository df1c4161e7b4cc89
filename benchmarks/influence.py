"""Which training examples were behind a prediction: influence scores against training again.

    python benchmarks/influence.py            # about two minutes on two CPU cores
    python benchmarks/influence.py --small    # few subsets
    python benchmarks/influence.py --output benchmarks/published    # the table of these runs

Of scikit-learn's digits, 200 to train on and 40 queries. Two questions, for scores by the gradients
alone and by the curvature of each kind:

- Leave one out, of softmax regression with weight decay, which Newton's method solves: the
  correlation of scores with what the summed loss of the queries gains without each of 40 examples.
- The linear datamodeling score (Park et al., 2023, arXiv 2303.14186) of a network with a hidden
  layer: it is trained again on random halves of the data, from several starts each; for each query
  the rank correlation, over halves, of its loss with minus the sum of the scores of the half.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _results import cached, rounded
from scipy.stats import spearmanr
from sklearn.datasets import load_digits

import singd_optax
from singd_optax.curvature import fit, from_diagonal, influence

TRAIN, QUERIES, DECAY = 200, 40, 1e-2
KINDS = ("diagonal", "kfac", "ekfac")


class Net(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        if self.hidden:
            x = nn.tanh(nn.Dense(self.hidden)(x))
        return nn.Dense(10)(x)


def data():
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = jnp.asarray(digits.data[order] / 16, jnp.float32)
    y = jnp.asarray(digits.target[order], jnp.int32)
    return (x[:TRAIN], y[:TRAIN]), (x[TRAIN : TRAIN + QUERIES], y[TRAIN : TRAIN + QUERIES])


def losses_of(model):
    def losses(params, x, y):
        logits = singd_optax.tag_distribution(model.apply(params, x), "categorical")
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    return losses


def objective(losses, params, x, y, keep):
    """The mean over examples that are kept, and the decay."""
    squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    return (losses(params, x, y) * keep).sum() / keep.sum() + DECAY / 2 * squares


def scores_of(losses, params, train, queries):
    """Name -> (queries, training examples). Units are those of the sum: so is the damping."""
    loss_fn = lambda params, x, y: losses(params, x, y).mean()
    layers = singd_optax.find_layers(loss_fn, params, *train)
    flat = from_diagonal(jax.tree.map(jnp.zeros_like, params))
    kinds = {kind: fit(loss_fn, layers, params, [train], kind=kind, fisher="ggn") for kind in KINDS}
    return {
        name: influence(losses, params, H, [train], [queries], damping=TRAIN * DECAY)
        for name, H in ({"gradients alone": flat} | kinds).items()
    }


def leave_one_out(count):
    """Name -> correlation."""
    train, queries = data()
    model = Net(0)
    losses = losses_of(model)
    start = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0), train[0]))
    flat, unravel = jax.flatten_util.ravel_pytree(start)
    of_flat = lambda w, keep: objective(losses, unravel(w), *train, keep)

    @jax.jit
    def optimum(w, keep):
        hessian = jax.scipy.linalg.cho_factor(jax.hessian(of_flat)(w, keep))
        step = lambda _, w: w - jax.scipy.linalg.cho_solve(hessian, jax.grad(of_flat)(w, keep))
        return jax.lax.fori_loop(0, 10, step, w)

    everyone = jnp.ones(TRAIN)
    w = flat
    for _ in range(4):  # each with a Hessian of its own
        w = optimum(w, everyone)
    total = jax.jit(lambda w: losses(unravel(w), *queries).sum())
    gains = [float(total(optimum(w, everyone.at[i].set(0))) - total(w)) for i in range(count)]
    scores = scores_of(losses, unravel(w), train, queries)
    return {
        name: float(np.corrcoef(gains, table.sum(0)[:count])[0, 1])
        for name, table in scores.items()
    }


def linear_datamodel(halves, starts, steps):
    """Name -> the mean over queries of rank correlations."""
    train, queries = data()
    model = Net(16)
    losses = losses_of(model)
    tx = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    def trained(key, keep):
        params = model.init(key, train[0])

        def step(carry, _):
            params, state = carry
            grads = jax.grad(lambda p: objective(losses, p, *train, keep))(params)
            updates, state = tx.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), None, length=steps)[0][0]

    rng = np.random.default_rng(1)
    keep = np.stack([rng.permutation(TRAIN) < TRAIN // 2 for _ in range(halves)])
    keys = jax.random.split(jax.random.key(0), starts)
    every = jax.jit(jax.vmap(jax.vmap(trained, (0, None)), (None, 0)))
    found = every(keys, jnp.asarray(keep, jnp.float32))
    of_queries = jax.jit(jax.vmap(jax.vmap(lambda params: losses(params, *queries))))
    truth = np.asarray(of_queries(found)).mean(1)  # (halves, queries)
    params = jax.jit(trained)(keys[0], jnp.ones(TRAIN))
    result = {}
    for name, table in scores_of(losses, params, train, queries).items():
        predicted = -(keep @ table.T)
        each = [spearmanr(truth[:, q], predicted[:, q]).statistic for q in range(QUERIES)]
        result[name] = float(np.mean(each))
    return result


def table(first, second):
    """Of both records."""
    lines = ["| | leave one out, correlation | linear datamodeling score |", "|---|---|---|"]
    for kind in (kind for kind in first if kind != "name"):
        lines.append(f"| {kind} | {first[kind]:.3f} | {second[kind]:.3f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="few subsets")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    sizes = (8, 8, 1, 100) if options.small else (40, 64, 5, 500)
    file = options.output / ("influence_small.jsonl" if options.small else "influence.jsonl")
    first = cached(file, "leave one out", lambda: rounded(leave_one_out(sizes[0])))
    second = cached(file, "linear datamodel", lambda: rounded(linear_datamodel(*sizes[1:])))
    print(table(first, second))


if __name__ == "__main__":
    main()
