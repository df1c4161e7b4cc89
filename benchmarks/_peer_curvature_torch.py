"""curvlinops, laplace-torch and kronfluence on a recorded problem; in an environment of its own.

    python benchmarks/_peer_curvature_torch.py problem.npz result.npz

Needs torch and these three, and nothing of this project. Arrays of parameters go out as they came
in, as ``kernel0``, ``bias0`` and so on.
"""

import importlib.metadata
import json
import sys
import tempfile

import numpy as np
import torch
from curvlinops import (
    EKFACLinearOperator,
    GGNLinearOperator,
    KFACInverseLinearOperator,
    KFACLinearOperator,
)
from kronfluence import Analyzer, FactorArguments, ScoreArguments, Task, prepare_model
from laplace import Laplace
from laplace.curvature import CurvlinopsGGN
from torch.utils.data import DataLoader, TensorDataset

PACKAGES = ("torch", "curvlinops-for-pytorch", "laplace-torch", "kronfluence")
DOUBLE = torch.float64
DRAWS = 100


class Flat(torch.nn.Module):
    """(N, channels, rows, columns) to (N, rows * columns * channels), the order of JAX."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


class Rows(torch.nn.Module):
    """(N, 1, rows, columns) to (N, rows, columns): rows are positions."""

    def forward(self, x):
        return x.squeeze(1)


class RunningSum(torch.nn.Module):
    def forward(self, x):
        return x.cumsum(1) / x.shape[1]


class ClassesSecond(torch.nn.Module):
    """(N, positions, classes) to (N, classes, positions), as torch's loss wants them."""

    def forward(self, x):
        return x.transpose(1, 2)


class AndOne(torch.nn.Module):
    """One more input that is 1: the next layer's bias is a column of its kernel."""

    def forward(self, x):
        return torch.cat([x, x.new_ones(len(x), 1)], 1)


def names_of(net):
    """kernel0, bias0, kernel1, ...: the order of torch's parameters."""
    depth = sum(name.startswith("kernel") for name in net)
    return [name for i in range(depth) for name in (f"kernel{i}", f"bias{i}")]


def to_torch(array):
    """Kernels end in (inputs, outputs) there, and begin with (outputs, inputs) here."""
    axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[array.ndim]
    return torch.from_numpy(np.ascontiguousarray(array.transpose(axes)))


def from_torch(tensor):
    axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[tensor.ndim]
    return tensor.detach().numpy().transpose(axes)


def network(net, joined=False):
    """The layers with tanh between them; ``joined``: a bias is a column of its kernel."""
    names = names_of(net)
    modules, flat = ([Rows()], True) if net["positions"] else ([], False)
    for kernel, bias in zip(names[::2], names[1::2], strict=True):
        weight, bias = to_torch(net[kernel]), to_torch(net[bias])
        if kernel != "kernel0":
            modules.append(torch.nn.Tanh())
            modules += [RunningSum()] if net["mixed"] else []
        if weight.ndim == 4:
            layer = torch.nn.Conv2d(*weight.shape[1::-1], weight.shape[2:], stride=2)
        else:
            modules += [] if flat else [Flat()]
            flat = True
            if joined:
                modules.append(AndOne())
                weight, bias = torch.cat([weight, bias[:, None]], 1), None
            layer = torch.nn.Linear(*weight.shape[::-1], bias=bias is not None)
        with torch.no_grad():
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)
        modules.append(layer)
    return torch.nn.Sequential(*modules, *([ClassesSecond()] if net["positions"] else []))


def products(net, x, y, damping):
    """By curvlinops: products with one vector, traces, the diagonal of the exact matrix."""
    names = names_of(net)
    vector = [to_torch(net[f"v_{name}"]) for name in names]
    found = {}

    def enter(what, tensors):
        for name, tensor in zip(names, tensors, strict=True):
            found[f"{what}/{name}"] = from_torch(tensor)

    model = network(net)
    sum_of_losses = torch.nn.CrossEntropyLoss(reduction="sum")
    half = len(x) // 2
    batches = [(x[:half], y[:half]), (x[half:], y[half:])]
    problem = model, sum_of_losses, list(model.parameters()), batches
    exact = GGNLinearOperator(*problem)
    enter("exact: product", exact @ vector)
    matrix = exact @ torch.eye(exact.shape[0])
    sizes = [v.numel() for v in vector]
    parts = torch.split(matrix.diagonal(), sizes)
    enter("exact: diagonal", [p.reshape(v.shape) for p, v in zip(parts, vector, strict=True)])
    found["exact: trace"] = float(matrix.trace())
    operators = {"kfac": KFACLinearOperator}
    if not net["positions"]:  # which its EKFAC does not take
        operators["ekfac"] = EKFACLinearOperator
    for kind, operator in operators.items():
        for bias, apart in (("", False), (", bias apart", True)):
            made = operator(*problem, fisher_type="type-2", separate_weight_and_bias=apart)
            enter(f"{kind}{bias}: product", made @ vector)
            found[f"{kind}{bias}: trace"] = float(made.trace)
            inverse = KFACInverseLinearOperator(made, damping=damping, use_exact_damping=True)
            enter(f"{kind}{bias}: inverse product", inverse @ vector)
    drawn = KFACLinearOperator(
        *problem, fisher_type="mc", mc_samples=DRAWS, separate_weight_and_bias=False
    )
    found["kfac, drawn: trace"] = float(drawn.trace)
    return found


def posteriors(net, x, y, x_test, precision, noise):
    """By laplace-torch: evidence and predictive distributions."""
    found = {}
    for bias, joined in (("", True), (", bias apart", False)):
        for kind, structure in (("kfac", "kron"), ("diagonal", "diag"), ("exact", "full")):
            for likelihood in ("classification", "regression"):
                target = y if likelihood == "classification" else torch.eye(10)[y]
                gaussian = {"sigma_noise": noise} if likelihood == "regression" else {}
                posterior = Laplace(
                    network(net, joined),
                    likelihood,
                    subset_of_weights="all",
                    hessian_structure=structure,
                    prior_precision=precision,
                    backend=CurvlinopsGGN,
                    **gaussian,
                )
                posterior.fit(DataLoader(TensorDataset(x, target), batch_size=len(x) // 2))
                name = f"{kind}{bias}:" + ("" if target is y else " regression")
                evidence = posterior.log_marginal_likelihood()
                found[f"{name} evidence"] = float(evidence)
                log_det = posterior.log_det_posterior_precision
                found[f"{name} log det"] = float(log_det)
                if likelihood == "regression":
                    _, covariance = posterior(x_test)
                    found[f"{name} covariance"] = covariance.detach().numpy()
                    continue
                for link in ("probit", "bridge"):
                    p = posterior(x_test, pred_type="glm", link_approx=link)
                    found[f"{name} {link}"] = p.detach().numpy()
    return found


class Classification(Task):
    def compute_train_loss(self, batch, model, sample=False):
        if sample:
            raise NotImplementedError("Labels that are drawn differ from one package to another.")
        x, y = batch
        return torch.nn.functional.cross_entropy(model(x), y, reduction="sum")

    def compute_measurement(self, batch, model):
        return self.compute_train_loss(batch, model)


def scores(net, train, queries, damping):
    """By kronfluence, by the labels of the data; its matrices are means, and so is its damping."""
    found = {}
    dtypes = ("activation_covariance", "gradient_covariance", "per_sample_gradient", "lambda")
    factor_dtypes = {f"{name}_dtype": DOUBLE for name in dtypes}
    score_dtypes = {
        f"{name}_dtype": DOUBLE for name in ("per_sample_gradient", "precondition", "score")
    }
    for kind in ("diagonal", "kfac", "ekfac"):
        task = Classification()
        model = prepare_model(network(net), task)
        with tempfile.TemporaryDirectory() as folder:
            analyzer = Analyzer("peer", model, task, cpu=True, disable_tqdm=True, output_dir=folder)
            analyzer.fit_all_factors(
                kind,
                TensorDataset(*train),
                per_device_batch_size=len(train[0]) // 2,
                factor_args=FactorArguments(
                    strategy=kind, use_empirical_fisher=True, **factor_dtypes
                ),
            )
            analyzer.compute_pairwise_scores(
                kind,
                kind,
                TensorDataset(*queries),
                TensorDataset(*train),
                per_device_query_batch_size=len(queries[0]),
                per_device_train_batch_size=len(train[0]) // 2,
                score_args=ScoreArguments(damping_factor=damping, **score_dtypes),
            )
            found[f"{kind}: scores"] = analyzer.load_pairwise_scores(kind)["all_modules"].numpy()
    return found


def main():
    torch.set_default_dtype(DOUBLE)
    with np.load(sys.argv[1], allow_pickle=False) as archive:
        problem = dict(archive)
    numbers = json.loads(str(problem["numbers"]))
    image = lambda name: torch.from_numpy(problem[name].transpose(0, 3, 1, 2).copy())
    x, x_test = image("x"), image("x_test")
    y, y_test = (torch.from_numpy(problem[name]).long() for name in ("y", "y_test"))
    result = {}
    for name in numbers["nets"]:
        start = f"{name}/"
        net = {k.removeprefix(start): v for k, v in problem.items() if k.startswith(start)}
        of_positions = (lambda y: y[:, None].expand(-1, 8)) if net["positions"] else (lambda y: y)
        train, queries = (x, of_positions(y)), (x_test, of_positions(y_test))
        found = products(net, *train, numbers["damping"])
        if name == "mlp":
            found |= posteriors(net, x, y, x_test, numbers["damping"], numbers["noise"])
        found |= scores(net, train, queries, numbers["damping"] / len(x))
        result |= {start + key: value for key, value in found.items()}
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    np.savez(sys.argv[2], versions=json.dumps(versions), **result)


if __name__ == "__main__":
    main()
