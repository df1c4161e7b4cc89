"""Trajectories of the authors' PyTorch package, recorded in float64, to 1e-10 at every step.

They run through the papers' settings, ``SINGD.paper`` and ``IKFAC.paper``; the same spelled out as
options of ``scale_by_singd`` is one more row.
"""

import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import singd_optax
from singd_optax.optimizers import IKFAC, SINGD

GOLDEN = Path(__file__).parent / "golden"
NAMES = [
    "mlp_dense",
    "mlp_dense_nobias_T3",
    "mlp_ikfac",
    "mlp_diag",
    "mlp_diag_dense_normalized",
    "mlp_mse",
    "mlp_block3_hier",
    "mlp_tril_triu_toeplitz",
    "mlp_rankk_triangular",
    "seq_expand",
    "seq_reduce",
    "conv_expand",
    "conv_reduce_block_diag",
]


class MLP(nn.Module):
    """Dense, tanh, ..., Dense; maybe pooled over positions after the first layer."""

    features: tuple[int, ...]
    use_bias: bool
    pool_after_first: bool

    @nn.compact
    def __call__(self, x):
        for i, features in enumerate(self.features):
            if i:
                x = jnp.tanh(x)
            x = nn.Dense(features, use_bias=self.use_bias, name=f"Dense_{i}", param_dtype=float)(x)
            if i == 0 and self.pool_after_first:
                x = x.mean(axis=1)
        return x


class ConvNet(nn.Module):
    """Conv, relu, ..., mean over space, Dense; ``specs`` are PyTorch's arguments."""

    specs: tuple[dict, ...]
    out: int

    @nn.compact
    def __call__(self, x):
        for i, spec in enumerate(self.specs):
            layer = nn.Conv(
                spec["out_channels"],
                (spec["kernel_size"],) * 2,
                strides=spec.get("stride", 1),
                padding=spec["padding"],
                kernel_dilation=spec.get("dilation", 1),
                name=f"Conv_{i}",
                param_dtype=float,
            )
            x = nn.relu(layer(x))
        return nn.Dense(self.out, name="Dense_0", param_dtype=float)(x.mean(axis=(1, 2)))


def model_of(meta):
    if meta["kind"] == "conv":
        return ConvNet(tuple(meta["model"]["specs"]), meta["model"]["out"])
    return MLP(
        tuple(meta["model"]["dims"][1:]),
        meta["model"]["bias"],
        meta["model"].get("pool") == "mean_after_first",
    )


def load(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    return json.loads(str(arrays.pop("meta"))), arrays


def subtree(arrays, prefix):
    tree = {}
    for key, value in arrays.items():
        if key.startswith(prefix + "/"):
            layer, name = key.removeprefix(prefix + "/").split("/")
            tree.setdefault(layer, {})[name] = jnp.asarray(value)
    return tree


def paper_optimizer(layers, hyper):
    """The paper's algorithm from public pieces, with the reference's names translated."""
    options = {"damping": hyper["damping"], "factor_learning_rate": hyper["lr_cov"]}
    step_norm = "max_abs" if hyper.get("normalize_lr_cov") else None
    if hyper.get("kfac_like"):
        assert step_norm is None
        rule = IKFAC.paper(**options)
    else:
        rule = SINGD.paper(factor_momentum=hyper["alpha1"], factor_step_norm=step_norm, **options)
    return around(singd_optax.scale_by_rule(rule, layers, refresh_every=hyper["T"]), hyper)


def spelled_optimizer(layers, hyper):
    """The same as options of ``scale_by_singd`` and ``scale_by_ikfac``."""
    options = {
        "damping": hyper["damping"],
        "factor_learning_rate": hyper["lr_cov"],
        "refresh_every": hyper["T"],
        "factor_step_norm": "max_abs" if hyper.get("normalize_lr_cov") else None,
    }
    if hyper.get("kfac_like"):
        scale = singd_optax.scale_by_ikfac(layers, **options)
    else:
        scale = singd_optax.scale_by_singd(layers, factor_momentum=hyper["alpha1"], **options)
    return around(scale, hyper)


def around(scale, hyper):
    """The steps after the preconditioner."""
    return optax.chain(
        scale,
        optax.add_decayed_weights(hyper["weight_decay"]),
        optax.trace(hyper["momentum"]),
        optax.scale_by_learning_rate(hyper["lr"]),
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NAMES)
def test_trajectory(name):
    follow(name, paper_optimizer)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["mlp_dense_nobias_T3", "mlp_ikfac", "mlp_diag_dense_normalized"])
def test_spelled_chain(name):
    follow(name, spelled_optimizer)


def follow(name, make):
    """Run an optimizer over the recorded batches, and compare every step."""
    meta, arrays = load(name)
    hyper = meta["hyper"]
    model = model_of(meta)

    def loss_fn(params, x, y):
        output = model.apply({"params": params}, x)
        if meta["loss"] == "mse":
            return 0.5 * jnp.mean(jnp.sum((output - y) ** 2, axis=-1))
        return optax.softmax_cross_entropy_with_integer_labels(output, y).mean()

    params = subtree(arrays, "init")
    inputs, targets = jnp.asarray(arrays["inputs"]), jnp.asarray(arrays["targets"])
    layers = singd_optax.find_layers(
        loss_fn,
        params,
        inputs[0],
        targets[0],
        structures=tuple(hyper["structures"]),
        kfac_approx=hyper["kfac_approx"],
        loss_average=hyper["loss_average"],
    )
    tx = make(layers, hyper)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jax.jit
    def step(params, opt_state, x, y):
        value, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
        return optax.apply_updates(params, updates), opt_state, value

    opt_state = tx.init(params)
    for i in range(meta["steps"]):
        params, opt_state, value = step(params, opt_state, inputs[i], targets[i])
        expected = subtree(arrays, f"step{i}")
        np.testing.assert_allclose(value, arrays["losses"][i], rtol=0, atol=1e-10)
        for path, pair in singd_optax.factors(opt_state).items():
            for factor, factor_name in zip(pair, "KC", strict=True):
                np.testing.assert_allclose(
                    factor.to_dense(), expected[path].pop(factor_name), rtol=0, atol=1e-10
                )
        jax.tree.map(
            lambda got, want: np.testing.assert_allclose(got, want, rtol=0, atol=1e-10),
            params,
            expected,
        )
    assert step._cache_size() == 1
