"""Sketchy, Jorge, TNT and Shampoo that whitens, against what they approximate; and Eva-s."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_check_rule import jorge_root, power
from test_soap import assert_dealt, on_four_devices

import singd_optax
from singd_optax.optimizers import EvaS, Jorge, Shampoo, Sketchy
from singd_optax.testing._compile import quick_jit


def directions(tx, gradients):
    update, state = quick_jit(tx.update), tx.init(jnp.asarray(gradients[0]))
    found = []
    for gradient in gradients:
        updates, state = update(jnp.asarray(gradient), state)
        found.append(np.asarray(updates))
    assert update._cache_size() == 1
    return found, state.rule_states[""]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [(9, 3), (4, 8)])
def test_a_sketch_of_enough_rank_is_exact(shape):
    """Of gradients in a space of two rows and two columns, two vectors a side tell all."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.normal(size=(dim, 2)))[0] for dim in shape)
    gradients = [U @ rng.normal(size=(2, 2)) @ V.T for _ in range(5)]
    options = {"b2": 0.8, "eps": 0.01}
    got, _ = directions(singd_optax.scale_by_sketchy(rank=2, **options), gradients)
    want, _ = directions(singd_optax.scale_by_shampoo(structures="dense", **options), gradients)
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [(9, 2), (4, 8)])
def test_a_sketch_and_what_escaped_enclose_the_moment(shape):
    """U diag(s) Uᵀ <= L <= U diag(s) Uᵀ + ρ I, and ρ is no more than the tail of L's spectrum."""
    rng = np.random.default_rng(0)
    gradients = [
        np.geomspace(1, 0.01, shape[0])[:, None] * rng.normal(size=shape) for _ in range(9)
    ]
    _, state = directions(singd_optax.scale_by_sketchy(rank=3, b2=0.9), gradients)
    L = sum(0.1 * 0.9**age * g @ g.T for age, g in enumerate(reversed(gradients)))
    U, s, rho = (np.asarray(x) for x in (state.vectors_K, state.values_K, state.escaped_K))
    rest = np.linalg.eigvalsh(L - U * s @ U.T)
    assert rest[0] > -1e-12
    assert 0 < rest[-1] < rho + 1e-12
    assert rho < 2 * np.linalg.eigvalsh(L)[:-2].sum()
    np.testing.assert_allclose(U.T @ U * (s > 0), np.diag(s > 0), atol=1e-9)


def test_a_sketch_has_no_square():
    """Nothing of a step is as large as rows x rows, where these are many."""
    tx = singd_optax.scale_by_sketchy(rank=4)
    params = jnp.zeros((300, 5))
    state = tx.init(params)
    sizes = [leaf.size for leaf in jax.tree.leaves(state.rule_states)]
    assert sum(sizes) == 300 * 4 + 5 * 4 + 2 * 4 + 3
    text = jax.jit(functools.partial(tx.update, refresh=True)).lower(params, state).as_text()
    assert "300x5xf32" in text
    assert "300x300xf32" not in text


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_no_sketch_is_made_on_two_devices(kind):
    assert_dealt(*on_four_devices(singd_optax.scale_by_sketchy, kind, rank=2))


@pytest.mark.usefixtures("x64")
def test_the_series_of_jorge_is_exact_up_to_the_third_power():
    """Of dim directions that are alike each has 1/√dim of the norm."""
    off = []
    for dim in (16, 64):
        gradient = 3 * np.eye(dim)
        _, state = directions(singd_optax.scale_by_jorge(initial_moment=0.5), [gradient])
        norm = np.linalg.norm(gradient**2 / 0.5)
        exact = (norm / (norm + 1) * 0.5 + 9 / (norm + 1)) ** (-1 / 4)
        off.append(np.asarray(state.K.to_dense())[0, 0] / exact - 1)
    assert off[0] / off[1] == pytest.approx(8, rel=0.2)
    assert off[0] < 15 / 128 / 16**1.5


@pytest.mark.usefixtures("x64")
def test_jorge_stays_near_the_roots_of_the_moment_with_its_decays():
    rng = np.random.default_rng(0)
    gradients = [np.geomspace(1, 0.1, 6)[:, None] * rng.normal(size=(6, 6)) for _ in range(60)]
    tx = singd_optax.scale_by_jorge(initial_moment=0.5, structures="dense", refresh_every=1)
    _, state = directions(tx, gradients)
    A, L = 0.5 ** (-1 / 4) * np.eye(6), 0.5 * np.eye(6)
    for G in gradients:
        X = A @ A @ G
        norm = np.linalg.norm(X @ X.T)
        L = (norm * L + G @ G.T) / (norm + 1)
        A = jorge_root(A, G)
    np.testing.assert_allclose(state.K.to_dense(), A, rtol=1e-9)
    exact = power(L, -1 / 4)
    assert np.linalg.norm(A - exact) < 0.25 * np.linalg.norm(exact)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("scale", "options", "exponent"),
    [
        ("scale_by_shampoo", {"root": 2, "trace_scaled": True}, -1 / 2),
        ("scale_by_tnt", {}, -1),
    ],
)
def test_of_a_kronecker_product_they_are_exact(scale, options, exponent):
    """If E[g gᵀ] = S ⊗ T for g = vec G by rows, directions are S^e G T^e."""
    rng = np.random.default_rng(0)
    halves = [rng.normal(size=(dim, dim)) for dim in (3, 4)]
    gradients = [
        np.sqrt(12) * np.outer(halves[0][:, i], halves[1][:, j])
        for i, j in itertools.product(range(3), range(4))
    ]
    S, T = (half @ half.T for half in halves)
    vectors = np.stack([G.ravel() for G in gradients])
    np.testing.assert_allclose(vectors.T @ vectors / 12, np.kron(S, T))
    mean = lambda count: count / (count + 1)
    tx = getattr(singd_optax, scale)(b2=mean, eps=0.0, structures="dense", **options)
    got, _ = directions(tx, gradients)
    want = power(S, exponent) @ gradients[-1] @ power(T, exponent)
    np.testing.assert_allclose(got[-1], want, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_one_sided_whitening():
    """With L alone E[g gᵀ] is taken for L ⊗ I / columns."""
    rng = np.random.default_rng(0)
    G = rng.normal(size=(3, 5))
    options = {"root": 2, "trace_scaled": True, "eps": 0.0, "structures": ("dense", "identity")}
    (got,), _ = directions(singd_optax.scale_by_shampoo(**options), [G])
    np.testing.assert_allclose(got, power(G @ G.T / 5, -1 / 2) @ G, rtol=1e-7)


def test_errors():
    for rule, match in (
        (lambda: Sketchy(rank=0), "`rank` must be an int >= 1, got 0"),
        (lambda: Sketchy(b2=1.0), "`b2` must be a finite number >= 0 and < 1, got 1"),
        (lambda: Jorge(initial_moment=0.0), "`initial_moment` must be a finite number > 0, got 0"),
        (lambda: EvaS(damping=0.0), "`damping` must be a finite number > 0, got 0"),
    ):
        with pytest.raises(ValueError, match=match):
            rule()
    with pytest.raises(TypeError, match="`trace_scaled` must be True or False, got 1"):
        Shampoo(trace_scaled=1)
    for name, structure in (("sketchy", "block_diagonal:2"), ("jorge", "lower_toeplitz")):
        tx = getattr(singd_optax, f"scale_by_{name}")(structures=structure)
        with pytest.raises(ValueError, match=r"got .*Use|got .*use inverse_free_shampoo"):
            tx.init(jnp.ones((3, 3)))
