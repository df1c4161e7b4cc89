"""Curvatures on meshes, of Auto and of Explicit axes: parameters and examples split, one device's
numbers. Kernels are split over the examples' mesh axis as well (FSDP), and over another."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import meshes
import numpy as np
import optax
import pytest
from contract import jit
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import singd_optax
from singd_optax.curvature import (
    fit,
    from_diagonal,
    from_opt_state,
    influence,
    laplace,
    predict,
    quadratic_penalty,
    remove,
    saliency,
    self_influence,
    tune,
)

pytestmark = pytest.mark.usefixtures("x64")

EXAMPLES, CLASSES, DAMPING = 8, 4, 0.5
KIND = pytest.mark.parametrize("kind", ["Auto", "Explicit"])
SPLITS = {"up": P("data", "model"), "down": P("model", None), "norm": P()}


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = functools.partial(meshes.Dense, param_dtype=float)
        x = nn.tanh(dense(6, name="up")(x))
        x = nn.LayerNorm(param_dtype=float, name="norm")(x)
        return dense(CLASSES, name="down")(x)


def model(params, x):
    return Net().apply({"params": params}, x)


def losses_fn(params, x, y):
    logits = singd_optax.tag_distribution(model(params, x), "categorical")
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def loss_fn(params, x, y):
    return losses_fn(params, x, y).mean()


@functools.cache
def problem():
    x = jax.random.normal(jax.random.key(0), (EXAMPLES, 8), float)
    y = jnp.arange(EXAMPLES) % CLASSES
    params = jax.jit(Net().init)(jax.random.key(1), x)["params"]
    params["up"]["bias"] += 0.1  # which makes a difference to evidence and saliency
    return params, (x, y), singd_optax.find_layers(loss_fn, params, x, y)


@contextlib.contextmanager
def on_mesh(kind):
    """Parameters, shardings and batches, with the mesh set as its kind needs it."""
    params, (x, y), _ = problem()
    mesh = meshes.make_mesh({"data": 2, "model": 2}, kind)

    def sharding(path, leaf):
        spec = SPLITS[path[0].key]
        return NamedSharding(mesh, P(*spec[-leaf.ndim :]))

    shardings = jax.tree_util.tree_map_with_path(sharding, params)
    with jax.set_mesh(mesh) if kind == "Explicit" else contextlib.nullcontext():
        put = lambda tree: jax.device_put(tree, NamedSharding(mesh, P("data")))
        batches = [put((x[:4], y[:4])), put((x[4:], y[4:]))]
        yield jax.device_put(params, shardings), shardings, batches


def assert_same(got, want):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def layers_for(kind):
    """With factors that compile fast for SINGD, which has other tests on meshes."""
    layers = problem()[2]
    return layers.replace(".*", structures="diagonal") if kind == "singd" else layers


@functools.cache
def alone(options):
    """The curvature on one device, in the two batches."""
    params, (x, y), _ = problem()
    options = dict(options)
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    return fit(loss_fn, layers_for(options["kind"]), params, batches, **options)


FITS = [
    {"kind": "ekfac", "fisher": "ggn"},
    {"kind": "diagonal", "fisher": "mc", "others": "diagonal"},
    {"kind": "singd", "fisher": "empirical"},
]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("Auto", FITS[0]), *(("Explicit", options) for options in FITS)],
    ids=lambda one: one if isinstance(one, str) else one["kind"],
)
def test_fit(kind, options):
    want = alone(tuple(options.items()))
    seen = []
    with on_mesh(kind) as (params, _, batches):
        note = lambda state: seen.append(state.sums)
        layers = layers_for(options["kind"])
        got = fit(loss_fn, layers, params, batches, on_batch=note, **options)
    assert_same(got.spectrum(), want.spectrum())
    assert_same((got.nll, got.terms), (want.nll, want.terms))
    # Whole on each device from the first batch on: so the step is compiled once.
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(seen[1:]))


def products(curvature, params, x):
    """All of a curvature and of its posterior, which is one program."""
    posterior = laplace(curvature, params, prior_precision=DAMPING)
    key = jax.random.key(0)
    return {
        "inverse": curvature.inverse_matvec(params, DAMPING),
        "root": curvature.sqrt_matvec(params, DAMPING),
        "numbers": (
            curvature.quadratic(params, DAMPING),
            curvature.logdet(DAMPING),
            curvature.trace(),
            curvature.effective_dimension(DAMPING),
        ),
        "diagonal": curvature.diagonal(-1.0, DAMPING),
        "penalty": jax.grad(quadratic_penalty(curvature, params))(
            jax.tree.map(lambda leaf: leaf + 1, params)
        ),
        "saliency": saliency(curvature, params, damping=DAMPING),
        "removed": remove(curvature, params, "up", 1, damping=DAMPING),
        "drawn": curvature.sample(key, DAMPING, (2,)),
        "sample": posterior.sample(key, (3,)),
        "evidence": posterior.log_evidence(),
        "tuned": tune(posterior, curvature.nll, steps=3).prior_precision,
        "bridge": predict(posterior, model, x, link="bridge", chunk=3),
        "sampled": predict(posterior, model, x, method="sampled", samples=3, key=key, chunk=2),
    }


@functools.cache
def products_alone():
    params, (x, _), _ = problem()
    return jit(products)(alone(tuple(FITS[0].items())), params, x[:4])


@KIND
def test_products(kind):
    with on_mesh(kind) as (params, shardings, batches):
        program = jit(products)
        found = fit(loss_fn, problem()[2], params, batches, **FITS[0])
        got = program(found, params, batches[0][0])
        programs = program._cache_size()
        program(found.scaled(2.0), params, batches[0][0])
        assert program._cache_size() == programs
        if kind == "Explicit":  # where nobody has to be asked
            for name in ("inverse", "penalty", "removed"):
                same = lambda leaf, own: leaf.sharding.is_equivalent_to(own, leaf.ndim)
                assert all(jax.tree.leaves(jax.tree.map(same, got[name], shardings)))
            drawn = got["sample"]["up"]["kernel"].sharding.spec
            assert drawn == P(None, "data", "model")
    assert_same(got, products_alone())


def test_influence():
    params, (x, y), _ = problem()
    found = alone(tuple(FITS[0].items()))
    queries = (x[:4], y[:4])
    options = {"damping": DAMPING, "query_chunk": 3}
    want = influence(losses_fn, params, found, [(x, y)], [queries], **options)
    own = self_influence(losses_fn, params, found, [(x, y)], damping=DAMPING)
    np.testing.assert_allclose(own[:4], np.diag(want), rtol=1e-10)
    with on_mesh("Explicit") as (params, _, batches):
        for more in ({}, {"mode": "reverse"}, {"query_rank": 6}):
            got = influence(losses_fn, params, found, batches, batches[:1], **options, **more)
            np.testing.assert_allclose(got, want, atol=1e-10)
        got = self_influence(losses_fn, params, found, batches, damping=DAMPING)
        np.testing.assert_allclose(got, own, atol=1e-10)


def test_from_a_state_that_is_spread():
    """Rows of factors are on several devices; and a diagonal like the parameters."""
    params, _, layers = problem()

    def filled(leaf):
        """A symmetric matrix, and a count."""
        size = leaf.shape[-1] if leaf.ndim else 1
        one = jnp.eye(size) + 1 / (1 + jnp.arange(size)[:, None] + jnp.arange(size))
        return jnp.broadcast_to(one if leaf.ndim > 1 else 1, leaf.shape).astype(leaf.dtype)

    def state_of(layers):
        tx = singd_optax.scale_by_kfac(layers)
        return tx, jit(lambda: jax.tree.map(filled, tx.init(params)))()

    def numbers(layers):
        """A program of a state and parameters."""
        squares = lambda params: from_diagonal(jax.tree.map(jnp.square, params))
        return jit(
            lambda state, params: (
                from_opt_state(state, layers, params, terms=EXAMPLES).spectrum(),
                squares(params).logdet(1.0),
            )
        )

    want = numbers(layers)(state_of(layers)[1], params)
    with on_mesh("Explicit") as (split, shardings, _):
        layers = singd_optax.sharding.spread(layers, shardings)
        tx, state = state_of(layers)
        of_state = singd_optax.sharding.state_shardings(tx.init, params, shardings, layers)
        state = jax.device_put(state, of_state)
        assert not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state))
        assert_same(numbers(layers)(state, split), want)


def test_no_mesh_is_set():
    with on_mesh("Explicit") as (params, _, batches):
        found = fit(loss_fn, problem()[2], params, batches[:1])
    with pytest.raises(ValueError, match=r"Explicit axes, \('data', 'model'\).*jax.set_mesh"):
        fit(loss_fn, problem()[2], params, batches)
    with pytest.raises(ValueError, match=r"Arrays of the vector are on a mesh"):
        found.matvec(params)


def test_a_model_that_names_the_axis_of_examples():
    """It cannot run with one example, and the message says what to write."""
    with on_mesh("Explicit") as (_, _, batches):
        params = {"w": jnp.ones((8, 4))}
        posterior = laplace(from_diagonal(params), params)
        named = lambda spec: lambda p, x: jnp.matmul(x, p["w"], out_sharding=spec(x))
        with pytest.raises(ValueError, match=r"batch of one.*divide.*in the place of a name"):
            predict(posterior, named(lambda x: P("data", None)), batches[0][0])
        of_input = named(lambda x: P(jax.typeof(x).sharding.spec[0], None))
        found = predict(posterior, of_input, batches[0][0], likelihood="gaussian")
    np.testing.assert_allclose(found.mean, batches[0][0].sum(1)[:, None] * np.ones(4))
