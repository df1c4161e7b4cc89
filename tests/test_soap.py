"""SOAP against a short restatement, AdamW, and what follows from its definition."""

import contextlib
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import singd_optax
from singd_optax.optimizers import SOAP
from singd_optax.rules._eigenbasis import grouped_bases, values_in
from singd_optax.rules._panels import orthonormal_by_panels
from singd_optax.sharding import spread, state_shardings
from singd_optax.structures import BlockDiagonal, Dense
from singd_optax.testing._compile import quick_jit


def random_gradients(shape, steps, seed=1):
    """With a spectrum, so that eigenvectors are well defined."""
    rng = np.random.default_rng(seed)
    rows, columns = shape
    scale = np.geomspace(1, 0.1, rows)[:, None] * np.geomspace(1, 0.2, columns)
    turned = [np.linalg.qr(rng.normal(size=(dim, dim)))[0] for dim in shape]
    return [turned[0] @ (scale * rng.normal(size=shape)) @ turned[1].T for _ in range(steps)]


def new_basis(moment, basis):
    """One orthogonal iteration; vectors keep the place of the one with their rank."""
    order = np.argsort(-np.diag(basis.T @ moment @ basis))
    found = np.empty_like(basis)
    found[:, order] = np.linalg.qr(moment @ basis[:, order])[0]
    return found


def soap(gradients, b1=0.95, b2=0.9, decay=0.95, eps=1e-8, every=1):
    """The equations of arXiv 2409.11321, algorithm 3, with the first step taken."""
    rows, columns = gradients[0].shape
    Q, P, M, V, L, R = np.eye(rows), np.eye(columns), 0, 0, 0, 0
    for count, G in enumerate(gradients):
        M, V = b1 * M + (1 - b1) * G, b2 * V + (1 - b2) * (Q.T @ G @ P) ** 2
        L, R = decay * L + (1 - decay) * G @ G.T, decay * R + (1 - decay) * G.T @ G
        m, v = M / (1 - b1 ** (count + 1)), V / (1 - b2 ** (count + 1))
        rounding = np.finfo(float).eps * np.sqrt(v.sum())
        yield Q @ (Q.T @ m @ P / (np.sqrt(v) + eps + rounding)) @ P.T
        if count == 0:
            Q, P = (np.linalg.eigh(S)[1] for S in (L, R))
            V = (1 - b2) * (Q.T @ G @ P) ** 2
        elif count % every == 0:
            Q, P = new_basis(L, Q), new_basis(R, P)


def directions(gradients, **options):
    tx = singd_optax.scale_by_soap(**options)
    update, state = quick_jit(tx.update), tx.init(jnp.asarray(gradients[0]))
    found = []
    for gradient in gradients:
        updates, state = update(jnp.asarray(gradient), state)
        found.append(np.asarray(updates))
    assert update._cache_size() == 1
    return found, state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("shape", [(6, 4), (5, 5)])
def test_trajectory(shape, every):
    gradients = random_gradients(shape, 8)
    options = {"b2": 0.9, "basis_decay": 0.95, "momentum": 0.95, "refresh_every": every}
    got, state = directions(gradients, **options)
    first, *_ = want = list(soap(gradients, every=every))
    # The first gradient leaves eigenvectors open where it has more columns than rows, or fewer:
    # there is a difference of signs and of turns in its null space, which has no part in it.
    np.testing.assert_allclose(got[0], first, rtol=1e-9)
    np.testing.assert_allclose(np.sign(first), np.sign(gradients[0]))  # Adam's first step
    if shape == (5, 5):
        for one, wanted in zip(got, want, strict=True):
            np.testing.assert_allclose(one, wanted, rtol=1e-6, atol=1e-8)
    Q = np.asarray(state.rule_states[""].K.to_dense())
    np.testing.assert_allclose(Q.T @ Q, np.eye(len(Q)), atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("structures", ["identity", "diagonal"])
def test_without_bases_it_is_adamw(structures):
    """For any decays, in all of the recipe."""
    gradients = {
        "w": jnp.asarray(random_gradients((6, 4), 8)),
        "b": jnp.asarray(random_gradients((8, 3), 1)[0]),
    }
    params = jax.tree.map(lambda g: g[0], gradients)
    adamw = optax.adamw(0.1, b1=0.9, b2=0.99, weight_decay=0.02)
    options = {"structures": structures, "fallback": adamw}
    ours = singd_optax.soap(0.1, b2=0.99, momentum=0.9, weight_decay=0.02, **options)
    mine, theirs = params, params
    states = ours.init(params), adamw.init(params)
    steps = [quick_jit(tx.update) for tx in (ours, adamw)]
    for index in range(8):
        now = jax.tree.map(lambda g, index=index: g[index], gradients)
        moved, *_ = pairs = [
            step(now, state, own)
            for step, state, own in zip(steps, states, (mine, theirs), strict=True)
        ]
        mine, theirs = (
            optax.apply_updates(own, pair[0])
            for own, pair in zip((mine, theirs), pairs, strict=True)
        )
        states = [pair[1] for pair in pairs]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), mine, theirs)
    assert float(optax.tree.norm(moved[0])) > 0


@pytest.mark.usefixtures("x64")
def test_turned_gradients_turn_steps():
    """U G Vᵀ -> U step Vᵀ, after the first step, whose basis is that of the parameter."""
    gradients = random_gradients((5, 5), 6)
    rng = np.random.default_rng(3)
    U, V = (np.linalg.qr(rng.normal(size=(5, 5)))[0] for _ in range(2))
    plain, _ = directions(gradients)
    turned, _ = directions([U @ g @ V.T for g in gradients])
    assert np.abs(turned[0] - U @ plain[0] @ V.T).max() > 0.1
    for one, other in zip(turned[1:], plain[1:], strict=True):
        np.testing.assert_allclose(one, U @ other @ V.T, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_one_sided():
    """A side without a basis, by structure or by the largest dim, is left in its coordinates."""
    gradients = random_gradients((5, 3), 5)
    got, state = directions(gradients, structures=("dense", "identity"), refresh_every=1)
    Q, V, M = np.eye(5), 0, 0
    L = 0
    for count, G in enumerate(gradients):
        fresh = G, (Q.T @ G) ** 2, G @ G.T
        M, V, L = (0.95 * old + 0.05 * new for old, new in zip((M, V, L), fresh, strict=True))
        weight = 1 - 0.95 ** (count + 1)
        root = np.sqrt(V / weight)
        want = Q @ (Q.T @ M / weight / (root + 1e-8 + np.finfo(float).eps * np.linalg.norm(root)))
        if count < 1:
            np.testing.assert_allclose(got[count], want, rtol=1e-9)
            Q = np.asarray(jnp.linalg.eigh(L)[1])
            V = 0.05 * (Q.T @ G) ** 2
        else:
            Q = new_basis(L, Q)
    assert state.rule_states[""].C.dim == 3
    assert not jax.tree.leaves(state.rule_states[""].C)
    wide = jax.eval_shape(singd_optax.scale_by_soap().init, jnp.zeros((4097, 8)))
    assert [leaf.shape for leaf in jax.tree.leaves(wide.rule_states[""].K)] == []
    assert [leaf.shape for leaf in jax.tree.leaves(wide.rule_states[""].C)] == [(8, 8)]


@pytest.mark.usefixtures("x64")
def test_a_factored_second_moment_of_rank_one_is_the_full_one():
    """Where squares are a product of rows and columns, in a basis that does not turn."""
    rng = np.random.default_rng(0)
    rows, columns = np.geomspace(1, 0.1, 4)[:, None], np.geomspace(1, 0.3, 3)
    gradients = [rows * columns * np.sign(rng.normal(size=(4, 3))) for _ in range(4)]
    same = {"structures": "identity"}
    full, state = directions(gradients, **same)
    factored, small = directions(gradients, **same, second_moment="factored")
    np.testing.assert_allclose(factored, full, rtol=1e-10)
    numbers = [sum(leaf.size for leaf in jax.tree.leaves(s.rule_states)) for s in (state, small)]
    assert numbers[0] - numbers[1] == 4 * 3 - (4 + 3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["qr", "eigh"])
@pytest.mark.parametrize("structure", [Dense(), BlockDiagonal(3)], ids=repr)
def test_bases_become_eigenvectors_and_keep_their_places(structure, method):
    """Of a moment that turns a little, each vector stays near itself, whatever its eigenvalue."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 6)) * np.array([1.0, 9, 3, 0.3, 5, 0.1])
    moment = structure.project_gram(jnp.asarray(rows))
    eye = structure.eye(6, "float64")
    started = jnp.ones([], jnp.int32)
    view = singd_optax.find_matrices({"w": eye.to_dense()}).specs[0]

    def refreshed(moment, basis):
        found = grouped_bases(
            {"w": view},
            {"w": (moment, moment)},
            {"w": (basis, basis)},
            {"w": started},
            method=method,
            precision="highest",
        )["w"]
        assert bool(found.is_basis)
        assert bool(found.went_well)
        return found.pair[0]

    basis = eye
    for _ in range(60):
        basis = refreshed(moment, basis)
    Q, S = (np.asarray(m.to_dense()) for m in (basis, moment))
    turned = Q.T @ S @ Q
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-6)
    np.testing.assert_allclose(np.diag(turned), values_in(moment, basis, "highest"), rtol=1e-9)
    assert (np.argsort(np.diag(turned)) == np.argsort(np.diag(S))).all()
    nudged = structure.project_gram(jnp.asarray(rows + 0.01 * rng.normal(size=rows.shape)))
    moved = np.asarray(refreshed(nudged, basis).to_dense())
    assert np.abs(np.diag(moved.T @ Q)).min() > 0.9


def on_four_devices(scale, kind="Auto", **options):
    """The program of a refresh of six matrices; and a second step, on one device and on four."""
    types = (getattr(AxisType, kind),) * 2
    mesh = jax.make_mesh((2, 2), ("data", "model"), types, devices=jax.devices()[:4])
    everywhere = NamedSharding(mesh, P())
    params = {name: jnp.zeros((6, 6)) for name in "abc"}
    shardings = jax.tree.map(lambda _: everywhere, params)
    gradients = {
        name: jnp.asarray(random_gradients((6, 6), 2, seed), jnp.float32)
        for seed, name in enumerate(params)
    }
    found = singd_optax.find_matrices(params, structures="dense")
    layers = spread(found, shardings)
    tx, alone = (scale(own, eps=1e-2, **options) for own in (layers, found))
    of_state = state_shardings(tx.init, params, shardings, layers)
    first, second = ({n: g[i] for n, g in gradients.items()} for i in (0, 1))
    step = jax.jit(functools.partial(tx.update, refresh=True), out_shardings=(shardings, of_state))
    state = jax.device_put(tx.init(params), of_state)
    first, second = jax.device_put((first, second), everywhere)
    with jax.set_mesh(mesh) if kind == "Explicit" else contextlib.nullcontext():
        text = step.lower(first, state).compile().as_text()
        _, state = step(first, state)
        got, _ = step(second, state)
    first, second = jax.device_get((first, second))
    _, own = quick_jit(alone.update)(first, alone.init(params))
    want, _ = quick_jit(alone.update)(second, own)
    return text, got, want


def assert_dealt(text, got, want):
    """Of six matrices on four devices: two on each, of which two are idle work."""
    calls = re.findall(r"= \(?f32\[([\d,]+)\][^=]*custom-call\(.*lapack_s(?:syevd|geqrf)", text)
    assert calls
    assert {int(np.prod([int(n) for n in call.split(",")])) for call in calls} == {36}
    trips = re.findall(r'known_trip_count":{"n":"(\d+)"', text)
    assert set(trips) <= {"2"}  # of six
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), got, want)


@pytest.mark.parametrize("method", ["qr", "eigh"])
def test_no_decomposition_is_made_on_two_devices(method):
    assert_dealt(*on_four_devices(singd_optax.scale_by_soap, basis_method=method))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dim", "rank", "width"), [(9, 9, 4), (8, 3, 4), (5, 5, 128)])
def test_bases_of_tpus(dim, rank, width):
    """Panels against LAPACK, the last of other width; of low rank, and of very small numbers."""
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(2, 2, dim, rank)) @ rng.normal(size=(2, 2, rank, dim))
    make = quick_jit(functools.partial(orthonormal_by_panels, width=width))
    for scale in (1, 1e-200):
        Q = np.asarray(make(scale * matrices))
        gram = Q.swapaxes(-1, -2) @ Q
        np.testing.assert_allclose(gram, np.broadcast_to(np.eye(dim), gram.shape), atol=1e-12)
        known = min(rank, dim - 1)
        want = np.linalg.qr(matrices)[0]
        np.testing.assert_allclose(Q[..., :known], want[..., :known], atol=1e-11)
    zeros = np.asarray(make(0 * matrices))
    np.testing.assert_array_equal(zeros, np.broadcast_to(np.eye(dim), zeros.shape))


def test_on_tpus_large_bases_are_loops():
    """Nothing of the program for a TPU grows with the matrix, and the first basis is Jacobi's."""
    sizes = {}
    for dim in (257, 512):
        tx = singd_optax.scale_by_soap(structures=("dense", "identity"))
        params = jax.ShapeDtypeStruct((dim, 2), jnp.float32)
        state = jax.eval_shape(tx.init, params)
        step = jax.jit(functools.partial(tx.update, refresh=True))
        text = step.trace(params, state).lower(lowering_platforms=("tpu",)).as_text()
        assert "Eigh" in text
        assert "Qr" not in text
        sizes[dim] = len(text.splitlines())
    assert abs(sizes[512] - sizes[257]) < 20


def test_zeros_keep_the_basis():
    gradients = [g.astype(np.float32) for g in random_gradients((5, 5), 3)]
    _, state = directions([*gradients, 0 * gradients[0]], refresh_every=1)
    own = state.rule_states[""]
    assert int(own.started) == 1
    _, dead = directions([0 * gradients[0]] * 3, refresh_every=1)
    np.testing.assert_array_equal(dead.rule_states[""].K.to_dense(), np.eye(5))
    assert int(dead.rule_states[""].started) == 0
    assert int(dead.skipped_refreshes[""]) == 0


def test_bases_in_bfloat16_follow():
    """Coefficients are measured in the basis that is kept, rounded as it is."""
    gradients = [g.astype(np.float32) for g in random_gradients((8, 8), 40)]
    wide, _ = directions(gradients, refresh_every=5)
    narrow, state = directions(gradients, refresh_every=5, factor_dtype="bfloat16")
    assert state.rule_states[""].K.dtype == jnp.bfloat16
    assert np.linalg.norm(narrow[-1] - wide[-1]) < 0.1 * np.linalg.norm(wide[-1])


def test_errors():
    for options, match in (
        ({"b2": 1.0}, "`b2` must be a finite number >= 0 and < 1, got 1"),
        ({"basis_decay": -1.0}, "`basis_decay` must be a finite number >= 0"),
        ({"basis_method": "svd"}, "`basis_method` must be one of 'qr', 'eigh', got 'svd'"),
        ({"second_moment": "half"}, "`second_moment` must be one of 'full', 'factored'"),
    ):
        with pytest.raises(ValueError, match=match):
            SOAP(**options)
    tx = singd_optax.scale_by_soap(structures="lower_triangular:1")
    with pytest.raises(ValueError, match=r"SOAP turns gradients into bases.*inverse_free_shampoo"):
        tx.init(jnp.ones((3, 2)))
