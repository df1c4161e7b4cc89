"""The curvature family on meshes: the batch, kernels and states split, the numbers one device's."""

import contextlib
import functools

import jax
import meshes
import numpy as np
import pytest
from contract import CURVATURE, jit
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import singd_optax
from singd_optax.sharding import spread, state_shardings

STEPS = 3


def layers_of():
    return meshes.problem()[2].replace("", structures="dense")


def optimizer(name, layers):
    options = {"cross_moments": True} if name == "singd" else {}
    return getattr(singd_optax, name)(2.5e-3, layers, refresh_every=2, **options)


@functools.cache
def alone(name):
    params, batch, _ = meshes.problem()
    layers = layers_of()
    tx = optimizer(name, layers)
    return meshes.run(jit(meshes.make_step(tx, layers)), params, tx.init(params), batch, STEPS)


def check(name, layout, kind, strategy):
    params, batch, _ = meshes.problem()
    sizes, kernels = meshes.LAYOUTS[layout]
    mesh = meshes.make_mesh(sizes, kind)
    shardings = meshes.shardings_of(params, mesh, kernels)
    layers = spread(layers_of(), shardings, strategy=strategy)
    tx = optimizer(name, layers)
    of_state = state_shardings(tx.init, params, shardings, layers)
    step = jit(
        meshes.make_step(tx, layers),
        out_shardings=(shardings, of_state, NamedSharding(mesh, P())),
        donate_argnums=(0, 1),
    )
    of_batch = NamedSharding(mesh, P("data" if "data" in sizes else None))
    with jax.set_mesh(mesh) if kind == "Explicit" else contextlib.nullcontext():
        params = jax.device_put(params, shardings)
        state = jax.jit(tx.init, out_shardings=of_state)(params)
        got = meshes.run(step, params, state, jax.device_put(batch, of_batch), STEPS)
    want = alone(name)
    np.testing.assert_allclose(got[2], want[2], rtol=1e-5)
    assert meshes.difference(got[0], want[0]) < 1e-4
    assert step._cache_size() == 1


@pytest.mark.parametrize("name", [*CURVATURE, "singd"])
def test_split_batches_and_kernels(name):
    check(name, "data x tensor", "Explicit", "rows")


@pytest.mark.parametrize("name", ["ekfac", "rs_kfac", "eva"])
def test_split_layers(name):
    check(name, "fsdp", "Auto", "layers")
