"""`singd_optax.curvature` beside PyTorch packages: same networks, parameters and data, in float64.

    python3 -m venv peer
    peer/bin/pip install torch curvlinops-for-pytorch laplace-torch kronfluence
    python benchmarks/peer_curvature.py --python peer/bin/python

Prints how far results are apart, relative to their norm, and saves that. The networks: a perceptron
with a hidden layer, one with a convolution, and two that take the rows of an image for positions,
with a loss of each, without and with sums over positions between the layers. They are trained for a
little on 200 of scikit-learn's digits. How definitions map:

- Everything here is of the sum over examples. curvlinops: ``reduction="sum"``; laplace-torch: as it
  is; kronfluence has means: its damping is ours divided by N, and its scores are N times ours.
- A bias here is one more row of its layer's matrix. curvlinops: ``separate_weight_and_bias=False``;
  kronfluence: as it is; laplace-torch always gives a bias a factor of its own, and so is asked
  about the same function with a constant input in each layer in the place of biases. The rows
  "bias apart" show what the other definition makes of it.
- The matrix of the whole network, "exact", has no function here: its product is by ``jax.jvp`` and
  ``jax.vjp``, its diagonal and trace are those of ``fit(kind="diagonal", fisher="ggn")``.
- Damping is added to eigenvalues of the whole block. curvlinops: ``use_exact_damping=True``.
- "ggn" here is "type-2" of curvlinops, but for "mixed": with several losses an example, its KFAC
  sends one column of the roots of all their Hessians back at once, and what it squares has products
  of different losses. The mean over draws of labels has none, nor has ours: see "drawn".
- Influence is by the labels of the data, "empirical", as draws of labels differ.
- KFAC of several positions: curvlinops divides one factor by their number, as we do; kronfluence
  divides both, so that its block is smaller by this number. "Both factors means" has that.

Optional: the tests compare with explicit matrices, without these packages.
"""

import argparse
import dataclasses
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _data import digits
from _results import rounded

import singd_optax
from singd_optax.curvature import fit, influence, laplace, output_distribution, predict

TRAIN, QUERIES, STEPS = 200, 40, 100
BIAS_APART, BOTH_MEANS, DRAWN = ", bias apart", ", both factors means", ", drawn"
NUMBERS = {"nets": ["mlp", "conv", "rows", "mixed"], "damping": 3.0, "noise": 0.3}


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.tanh(nn.Dense(20, param_dtype=float)(x.reshape(len(x), -1)))
        return nn.Dense(10, param_dtype=float)(x)


class Conv(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.tanh(nn.Conv(5, (3, 3), strides=2, padding="VALID", param_dtype=float)(x))
        return nn.Dense(10, param_dtype=float)(x.reshape(len(x), -1))


class Rows(nn.Module):
    """Each row of an image is a position, with logits of its own; mixed: of all rows above it."""

    mixed: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.tanh(nn.Dense(12, param_dtype=float)(x[..., 0]))
        x = jnp.cumsum(x, 1) / x.shape[1] if self.mixed else x
        return nn.Dense(10, param_dtype=float)(x)


#: Of each network the layers, from inputs to outputs, and how many positions they have.
NETS = {
    "mlp": (MLP(), {"Dense_0": 1, "Dense_1": 1}),
    "conv": (Conv(), {"Conv_0": 9, "Dense_0": 1}),
    "rows": (Rows(mixed=False), {"Dense_0": 8, "Dense_1": 8}),
    "mixed": (Rows(mixed=True), {"Dense_0": 8, "Dense_1": 8}),
}


class Problem:
    """A network, its parameters and losses."""

    def __init__(self, name: str, x: jax.Array, y: jax.Array):
        self.net, self.positions = NETS[name]
        self.model = lambda params, x: self.net.apply({"params": params}, x)
        self.x, self.y = x, y
        half = len(x) // 2
        self.batches = [(x[:half], y[:half]), (x[half:], y[half:])]
        params = self.net.init(jax.random.key(0), x)["params"]
        self.params = self.trained(params)
        normal = lambda leaf: np.random.default_rng(leaf.size).normal(size=leaf.shape)
        self.vector = jax.tree.map(normal, params)

    def losses(self, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = singd_optax.tag_distribution(self.model(params, x), "categorical")
        labels = y if logits.ndim == 2 else jnp.broadcast_to(y[:, None], logits.shape[:2])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def loss_fn(self, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return self.losses(params, x, y).mean()

    def squares_fn(self, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        """Of regression on the labels as unit vectors."""
        outputs = singd_optax.tag_distribution(self.model(params, x), "gaussian")
        return 0.5 * ((outputs - jax.nn.one_hot(y, 10)) ** 2).sum(-1).mean()

    @property
    def of_positions(self) -> bool:
        """Whether each position has a loss."""
        return isinstance(self.net, Rows)

    @property
    def real_targets(self) -> int:
        return 10 * len(self.x)

    def trained(self, params: Any) -> Any:
        tx = optax.adam(1e-2)

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            updates, state = tx.update(jax.grad(self.loss_fn)(params, self.x, self.y), state)
            return (optax.apply_updates(params, updates), state), None

        run = lambda params: jax.lax.scan(step, (params, tx.init(params)), None, length=STEPS)[0]
        return jax.jit(run)(params)[0]

    def flat(self, tree: Any) -> dict[str, np.ndarray]:
        """kernel0, bias0, ..."""
        return {
            f"{part}{i}": np.asarray(tree[layer][part])
            for i, layer in enumerate(self.positions)
            for part in ("kernel", "bias")
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """What the other side needs."""
        vector = self.flat(self.vector)
        mixed = self.of_positions and self.net.mixed
        flags = {"positions": np.array(self.of_positions), "mixed": np.array(mixed)}
        known = self.flat(self.params) | flags
        return known | {f"v_{name}": v for name, v in vector.items()}

    def fitted(self, kind: Any, fisher: Any = "ggn", *, squares: bool = False) -> Any:
        loss_fn = self.squares_fn if squares else self.loss_fn
        average = "batch+sequence" if self.of_positions else "batch"
        layers = singd_optax.find_layers(
            loss_fn, self.params, *self.batches[0], loss_average=average
        )
        return fit(loss_fn, layers, self.params, self.batches, kind=kind, fisher=fisher)

    def exact_product(self) -> Any:
        """The Gauss-Newton matrix of the whole network, by forward and reverse derivatives."""
        model = lambda params: self.model(params, self.x)
        logits, along = jax.jvp(model, (self.params,), (self.vector,))
        p = jax.nn.softmax(logits)
        curved = p * along - p * (p * along).sum(-1, keepdims=True)
        return jax.vjp(model, self.params)[1](curved)[0]


def ours(problem: Problem, x_test: jax.Array, y_test: jax.Array, *, posteriors: bool) -> Any:
    """Name -> array, or a tree of arrays by name; names are those of the other side."""
    damping, noise = NUMBERS["damping"], NUMBERS["noise"]
    found: dict[str, Any] = {"exact: product": problem.flat(problem.exact_product())}
    kinds = {kind: problem.fitted(kind) for kind in ("diagonal", "kfac", "ekfac")}
    found["exact: diagonal"] = problem.flat(kinds["diagonal"].diagonal())
    found["exact: trace"] = kinds["diagonal"].trace()
    for kind in ("kfac", "ekfac"):
        found[f"{kind}: product"] = problem.flat(kinds[kind].matvec(problem.vector))
        inverse = kinds[kind].inverse_matvec(problem.vector, damping)
        found[f"{kind}: inverse product"] = problem.flat(inverse)
        found[f"{kind}: trace"] = kinds[kind].trace()
    if posteriors:
        posterior = laplace(kinds["ekfac"], problem.params, prior_precision=damping)
        found["ekfac: evidence"] = posterior.log_evidence()
    for kind in ("kfac", "diagonal") if posteriors else ():
        posterior = laplace(kinds[kind], problem.params, prior_precision=damping)
        name = f"{kind}:"
        found[f"{name} evidence"] = posterior.log_evidence()
        found[f"{name} log det"] = kinds[kind].logdet(damping)
        for link in ("probit", "bridge"):
            p = jax.jit(
                lambda posterior, x, link=link: predict(posterior, problem.model, x, link=link)
            )(posterior, x_test)
            found[f"{name} {link}"] = p
        name = f"{kind}: regression"
        curvature = problem.fitted(kind, squares=True)
        posterior = laplace(curvature, problem.params, prior_precision=damping, noise=noise)
        found[f"{name} evidence"] = posterior.log_evidence(real_targets=problem.real_targets)
        found[f"{name} log det"] = posterior.likelihood_curvature.logdet(damping)
        gaussian = output_distribution(posterior, problem.model, x_test)
        found[f"{name} covariance"] = gaussian.covariance
    for kind in ("diagonal", "kfac", "ekfac"):
        curvature = problem.fitted(kind, "empirical")

        def scores(curvature: Any) -> np.ndarray:
            data = problem.batches, [(x_test, y_test)]
            table = influence(problem.losses, problem.params, curvature, *data, damping=damping)
            return TRAIN * (table.sum(-1) if problem.of_positions else table)

        found[f"{kind}: scores"] = scores(curvature)
        if kind == "kfac":
            blocks = {
                path: block.scaled(1 / problem.positions[path.rsplit("/")[-1]])
                for path, block in curvature.blocks.items()
            }
            found[f"kfac{BOTH_MEANS}: scores"] = scores(
                dataclasses.replace(curvature, blocks=blocks)
            )
    return found


def whole(found: Any) -> np.ndarray:
    """One vector, of trees in the order of their names."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])


def apart(found: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Name -> |ours - theirs| / |theirs|, of what both have."""
    report = {}
    for name in dict.fromkeys([*found, *theirs]):
        own = found.get(name, found.get(name.replace(BIAS_APART, "").replace(DRAWN, "")))
        their = theirs.get(name, theirs.get(name.replace(BOTH_MEANS, "")))
        if own is not None and their is not None:
            a, b = whole(own), whole(their)
            report[name] = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    return report


def evidences(found: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """By blocks, and by the exact Gauss-Newton matrix of all weights."""
    own = {kind: found[f"{kind}: evidence"] for kind in ("diagonal", "kfac", "ekfac")}
    other = {kind: theirs[f"{kind}: evidence"] for kind in (f"kfac{BIAS_APART}", "exact")}
    return {kind: float(value) for kind, value in (own | other).items()}


def gathered(archive: dict[str, np.ndarray], net: str) -> dict[str, Any]:
    """Of one network; ``what/kernel0`` and its like become trees."""
    found: dict[str, Any] = {}
    for key, value in archive.items():
        owner, _, rest = key.partition("/")
        what, _, part = rest.partition("/")
        if owner == net and part:
            found.setdefault(what, {})[part] = value
        elif owner == net:
            found[what] = value
    return found


#: Who has the results whose names end so.
SIDES = {
    "curvlinops": ("product", "diagonal", "trace"),
    "laplace-torch": ("evidence", "log det", "probit", "bridge", "covariance"),
    "kronfluence": ("scores",),
}


def table(report: dict[str, dict[str, float]]) -> str:
    """A row for each package and matrix, with the largest difference of its results."""
    lines = [
        f"| beside | matrix | results | {' | '.join(report)} |",
        "|---" * (len(report) + 3) + "|",
    ]
    names = list(dict.fromkeys(name for rows in report.values() for name in rows))
    for side, ends in SIDES.items():
        own = [name for name in names if name.endswith(ends)]
        for matrix in dict.fromkeys(name.partition(": ")[0] for name in own):
            rows = [name for name in own if name.startswith(f"{matrix}: ")]
            cells = [side, matrix, ", ".join(name.partition(": ")[2] for name in rows)]
            for differences in report.values():
                found = [differences[name] for name in rows if name in differences]
                cells.append(f"{max(found):.0e}" if found else "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="one with torch and the three packages")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_enable_x64", True)
    data = digits()
    end = TRAIN + QUERIES
    x, x_test = (jnp.asarray(part, float) for part in (data.x[:TRAIN], data.x[TRAIN:end]))
    y, y_test = jnp.asarray(data.y[:TRAIN]), jnp.asarray(data.y[TRAIN:end])
    problems = {name: Problem(name, x, y) for name in NUMBERS["nets"]}
    arrays = {"x": x, "y": y, "x_test": x_test, "y_test": y_test, "numbers": json.dumps(NUMBERS)}
    for name, problem in problems.items():
        arrays |= {f"{name}/{key}": value for key, value in problem.arrays().items()}
    with tempfile.TemporaryDirectory() as folder:
        recorded, result = Path(folder) / "problem.npz", Path(folder) / "result.npz"
        np.savez(recorded, **arrays)
        script = Path(__file__).with_name("_peer_curvature_torch.py")
        command = [options.python, "-W", "ignore", script, recorded, result]
        subprocess.run(command, check=True)
        with np.load(result, allow_pickle=False) as archive:
            theirs = dict(archive)
    versions = json.loads(str(theirs.pop("versions"))) | {"jax": jax.__version__}
    report, evidence = {}, {}
    for name, problem in problems.items():
        found = ours(problem, x_test, y_test, posteriors=name == "mlp")
        other = gathered(theirs, name)
        report[name] = rounded(apart(found, other))
        if name == "mlp":
            evidence = evidences(found, other)
    print(table(report))
    print(evidence)
    saved = {"numbers": NUMBERS, "versions": versions, "evidence": evidence}
    saved["relative_differences"] = report
    (options.output / "peer_curvature.json").write_text(json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    main()
