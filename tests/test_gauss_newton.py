"""KFAC-expand and -reduce equal the Gauss-Newton matrix on deep linear nets (arXiv 2311.00636)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import singd_optax

pytestmark = pytest.mark.usefixtures("x64")

DIMS, OUTPUTS, EXAMPLES, POSITIONS = (4, 3, 5), 3, 6, 5


class DeepLinear(nn.Module):
    """Dense layers without activations; maybe a mean over positions in the middle."""

    pool: bool
    use_bias: bool

    @nn.compact
    def __call__(self, x):
        for i, features in enumerate((*DIMS, OUTPUTS)):
            x = nn.Dense(features, use_bias=self.use_bias, param_dtype=float)(x)
            if self.pool and i == 1:
                x = x.mean(axis=1)
        return x


def statistics_and_gauss_newton(pool, kfac_approx, use_bias=True):
    """For each layer, (U, G) as captured and the exact Gauss-Newton block.

    Each input comes once with each unit vector as residual (times the root of their number), so
    that the second moment of the residuals is the Hessian of the square loss, for each input.
    """
    model = DeepLinear(pool, use_bias)
    x = jax.random.normal(jax.random.key(0), (EXAMPLES, POSITIONS, 4), jnp.float64)
    x = jnp.repeat(x, OUTPUTS, axis=0)
    params = model.init(jax.random.key(1), x)["params"]
    outputs = model.apply({"params": params}, x)
    residuals = jnp.tile(jnp.eye(OUTPUTS), (EXAMPLES, 1)) * OUTPUTS**0.5
    targets = outputs - (residuals if pool else residuals[:, None])

    def loss_fn(params, x, y):
        errors = model.apply({"params": params}, x) - y
        return 0.5 * (errors**2).sum(-1).mean()

    layers = singd_optax.find_layers(
        loss_fn,
        params,
        x,
        targets,
        kfac_approx=kfac_approx,
        loss_average="batch" if pool else "batch+sequence",
    )
    # K = C = I at the start: the statistics are plain moments.
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    _, _, curvature = grad_fn(params, x, targets, opt_state=state)
    jacobian = jax.jacobian(lambda p: model.apply({"params": p}, x).reshape(-1, OUTPUTS))(params)
    for path, spec in layers.items():
        layer = jacobian[path]
        rows = layer["kernel"].reshape(-1, OUTPUTS, spec.fan_in - use_bias, spec.fan_out)
        if use_bias:
            rows = jnp.concatenate([rows, layer["bias"][:, :, None]], axis=2)
        rows = rows.reshape(rows.shape[0] * OUTPUTS, -1)
        block = rows.T @ rows / (rows.shape[0] / OUTPUTS)
        H_K, H_C, *_ = curvature[path]
        yield path, H_K.to_dense(), H_C.to_dense(), block


def errors(pool, kfac_approx, use_bias=True):
    return [
        float(jnp.abs(jnp.kron(U, G) - block).max() / jnp.abs(block).max())
        for _, U, G, block in statistics_and_gauss_newton(pool, kfac_approx, use_bias)
    ]


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(("pool", "kfac_approx"), [(False, "expand"), (True, "reduce")])
def test_exact_in_its_setting(pool, kfac_approx, use_bias):
    found = errors(pool, kfac_approx, use_bias)
    assert len(found) == 4
    assert max(found) < 1e-10


@pytest.mark.parametrize(("pool", "kfac_approx"), [(True, "expand"), (False, "reduce")])
def test_not_exact_in_the_other_setting(pool, kfac_approx):
    assert errors(pool, kfac_approx)[0] > 0.05
