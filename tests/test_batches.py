"""Statistics of parts are statistics of the whole: micro-batches, shards; and what they cost."""

import os
import subprocess
import sys
import textwrap

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import singd_optax
from singd_optax.layers._convolution import Convolution
from singd_optax.measures import Moments, layer_statistics

PATCHES = 32 * 16 * 16 * 9 * 16 * 4


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(4, (3, 3), param_dtype=float)(x)).mean((1, 2))
        return nn.Dense(3, param_dtype=float)(x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss_average", ["batch", None])
@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
def test_micro_batches(kfac_approx, loss_average):
    """The mean over micro-batches, or for a sum loss the sum on the side of the gradients."""
    model = Net()
    x = jax.random.normal(jax.random.key(0), (8, 4, 4, 2))
    params = model.init(jax.random.key(1), x)["params"]
    reduce = jnp.sum if loss_average is None else jnp.mean

    def loss_fn(params, x):
        return reduce(jnp.sum(jnp.sin(model.apply({"params": params}, x)), axis=-1))

    layers = singd_optax.find_layers(
        loss_fn, params, x, kfac_approx=kfac_approx, loss_average=loss_average
    )
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = jax.jit(singd_optax.value_and_grad(loss_fn, layers))
    _, grads, whole = grad_fn(params, x, opt_state=state)
    parts = [grad_fn(params, part, opt_state=state) for part in jnp.split(x, 4)]
    mean = lambda *leaves: sum(leaves) / len(leaves)
    curvature = jax.tree.map(mean, *[part[2] for part in parts])
    # A plain mean knows nothing of how many there were.
    curvature = {path: s._replace(rows=4 * s.rows) for path, s in curvature.items()}
    gradient = jax.tree.map(mean, *[part[1] for part in parts])
    if loss_average is None:
        curvature = {path: s.scaled(gradients=4) for path, s in curvature.items()}
        gradient = jax.tree.map(lambda g: 4 * g, gradient)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
        (gradient, curvature),
        (grads, whole),
    )


SHARDS = """
    import flax.linen as nn, jax, jax.numpy as jnp, numpy as np, singd_optax
    from functools import partial
    from jax.sharding import PartitionSpec as P
    jax.config.update("jax_num_cpu_devices", 4)
    model = nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(3)])
    x = jax.random.normal(jax.random.key(0), (8, 5, 6))
    mask = (jnp.arange(5) < 4) * jnp.ones((8, 1))
    params = model.init(jax.random.key(1), x)["params"]
    def loss_fn(params, x, mask):
        with singd_optax.position_weights(mask):
            y = model.apply({"params": params}, x)
        return jnp.sum(jnp.sin(y).sum(-1) * mask) / jnp.sum(mask)
    layers = singd_optax.find_layers(loss_fn, params, x, mask, loss_average="batch+sequence")
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), P(), P("data"), P("data")), out_specs=P(),
             check_vma=False)
    def sharded(params, state, x, mask):
        _, grads, curvature = grad_fn(params, x, mask, opt_state=state)
        whole = singd_optax.training.pmean_curvature(curvature, "data")
        return jax.lax.pmean(grads, "data"), whole
    got = sharded(params, state, x, mask)
    _, *want = grad_fn(params, x, mask, opt_state=state)
    assert jax.device_count() == 4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, tuple(want))
    print("equal")
"""


def test_shards():
    """Under shard_map on four devices, the mean of statistics is that of the whole batch."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHARDS)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert done.stdout.strip() == "equal", done.stderr


@pytest.mark.parametrize(
    ("structure", "share"),
    [("dense", 1.0), ("diagonal", 0.6), ("block_diagonal:16", 0.96), ("block_diagonal:40", 0.75)],
)
@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
def test_memory_of_convolutions(structure, share, kfac_approx):
    """Temporaries of a compiled refresh, as a share of the bytes of all patches."""
    model = nn.Conv(32, (3, 3))
    x = jax.ShapeDtypeStruct((32, 16, 16, 16), jnp.float32)
    params = {"conv": jax.eval_shape(model.init, jax.random.key(0), x)["params"]}
    loss_fn = lambda params, x: model.apply({"params": params["conv"]}, x).mean()
    layers = singd_optax.find_layers(
        loss_fn, params, x, structures=structure, kfac_approx=kfac_approx
    )
    spec = layers["conv"]
    own = jax.eval_shape(singd_optax.scale_by_singd(layers).init, params).rule_states["conv"]
    operation = Convolution((3, 3), ((1, 1), (1, 1)), (1, 1), (1, 1), (1, 1))

    measures = (Moments(whitened_by=("K", "C")),)

    def refresh(inputs, gradients, state):
        return layer_statistics(
            spec, measures, operation, inputs, gradients, None, state, "highest"
        )

    gradients = jax.ShapeDtypeStruct((32, 16, 16, 32), jnp.float32)
    compiled = jax.jit(refresh).lower(x, gradients, {"K": own.K, "C": own.C}).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < share * PATCHES


class DeepLinearConvolutions(nn.Module):
    """Circular convolutions, a mean over space, a linear head: no position is special."""

    @nn.compact
    def __call__(self, x):
        for width in (3, 2):
            x = nn.Conv(width, (2, 3), padding="CIRCULAR", param_dtype=float)(x)
        return nn.Dense(2, param_dtype=float)(x.mean((1, 2)))


@pytest.mark.usefixtures("x64")
def test_reduce_is_the_gauss_newton_matrix_of_deep_linear_convolutions():
    model = DeepLinearConvolutions()
    x = jax.random.normal(jax.random.key(0), (5, 3, 4, 2))
    params = model.init(jax.random.key(1), x)["params"]

    def loss_fn(params, x):
        y = singd_optax.tag_distribution(model.apply({"params": params}, x), "gaussian")
        return 0.5 * (y**2).sum(-1).mean()

    errors = {}
    for approx in ("reduce", "expand"):
        layers = singd_optax.find_layers(loss_fn, params, x, kfac_approx=approx)
        state = singd_optax.scale_by_singd(layers).init(params)
        grad_fn = jax.jit(singd_optax.value_and_grad(loss_fn, layers, fisher="ggn"))
        *_, curvature = grad_fn(params, x, opt_state=state)
        jacobian = jax.jacobian(lambda p: model.apply({"params": p}, x).reshape(-1))(params)
        for path, spec in layers.items():
            rows = jax.vmap(spec.to_matrix)(jacobian[path]["kernel"], jacobian[path]["bias"])
            rows = rows.reshape(len(rows), -1)
            block = rows.T @ rows / len(x)
            kron = jnp.kron(curvature[path].H_K.to_dense(), curvature[path].H_C.to_dense())
            errors[path, approx] = float(jnp.abs(kron - block).max() / jnp.abs(block).max())
    assert all(errors[path, "reduce"] < 1e-10 for path in layers)
    assert all(errors[path, "expand"] > 0.05 for path in ("Conv_0", "Conv_1"))
