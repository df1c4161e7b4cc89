"""KL-Shampoo and KL-SOAP against a short restatement, and the fixed point that they define."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_soap import new_basis, random_gradients

import singd_optax
from singd_optax.optimizers import KLSOAP, KLShampoo
from singd_optax.testing._compile import quick_jit

SCALES = {"kl_shampoo": singd_optax.scale_by_kl_shampoo, "kl_soap": singd_optax.scale_by_kl_soap}
FIELDS = ("values_K", "values_C", "S_K", "S_C")


def inverse_root(matrix, power=0.5):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**-power) @ vectors.T


def flip_flop(gradients, steps=500):
    """The minimum of the KL divergence for these gradients: S_K and S_C, each from the other."""
    rows, columns = gradients[0].shape
    S_K, S_C = np.eye(rows), np.eye(columns)
    for _ in range(steps):
        S_K = np.mean([G @ np.linalg.inv(S_C) @ G.T for G in gradients], 0) / columns
        S_C = np.mean([G.T @ np.linalg.inv(S_K) @ G for G in gradients], 0) / rows
    return S_K, S_C


def whitened(S_K, S_C, matrix):
    return inverse_root(S_K) @ matrix @ inverse_root(S_C)


def kl(gradients, adam, b1=0.9, b2=0.95, eps=1e-6):
    """The equations of arXiv 2509.03378 with factors that begin at the first gradient's size."""
    rows, columns = gradients[0].shape
    size = np.sqrt(np.mean(gradients[0] ** 2))
    Q, P, M, V = np.eye(rows), np.eye(columns), 0, 0
    S_K, S_C, l_K, l_C = size * Q, size * P, size * np.ones(rows), size * np.ones(columns)
    for count, G in enumerate(gradients):
        a, b = (l + eps * l.max() for l in (l_K, l_C))
        Z, Y, X = G @ P / np.sqrt(b), Q.T @ G / np.sqrt(a)[:, None], Q.T @ G @ P
        S_K, S_C = (
            b2 * S + (1 - b2) * new for S, new in ((S_K, Z @ Z.T / columns), (S_C, Y.T @ Y / rows))
        )
        l_K = b2 * l_K + (1 - b2) * (X**2 / b).mean(1)
        l_C = b2 * l_C + (1 - b2) * (X**2 / a[:, None]).mean(0)
        M, V = b1 * M + (1 - b1) * G, b2 * V + (1 - b2) * X**2
        m, v = Q.T @ M @ P / (1 - b1 ** (count + 1)), V / (1 - b2 ** (count + 1))
        a, b = (l + eps * l.max() for l in (l_K, l_C))
        root = np.sqrt(v) + 1e-8 + np.finfo(float).eps * np.sqrt(v.sum())
        yield Q @ (m / (root if adam else np.sqrt(np.outer(a, b)))) @ P.T
        if count == 0:
            Q, P = (np.linalg.eigh(S)[1] for S in (S_K, S_C))
            V = (1 - b2) * (Q.T @ G @ P) ** 2
        else:
            Q, P = new_basis(S_K, Q), new_basis(S_C, P)
        l_K, l_C = np.diag(Q.T @ S_K @ Q), np.diag(P.T @ S_C @ P)


def run(scale, gradients):
    """Directions and the state of one matrix; one compilation."""
    update, state = quick_jit(scale.update), scale.init(jnp.asarray(gradients[0]))
    found = []
    for gradient in gradients:
        updates, state = update(jnp.asarray(gradient), state)
        found.append(np.asarray(updates))
    assert update._cache_size() == 1
    return found, state.rule_states[""]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SCALES)
def test_trajectory(name):
    gradients = random_gradients((5, 5), 8)
    got, _ = run(SCALES[name](momentum=0.9, clip_rms=None), gradients)
    for one, wanted in zip(got, kl(gradients, adam=name == "kl_soap"), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("structures", ["dense", ("block_diagonal:2", "dense"), "diagonal"])
def test_values_are_the_diagonal_in_the_basis_however_old_that_is(structures):
    _, own = run(
        singd_optax.scale_by_kl_shampoo(structures=structures, refresh_every=4),
        random_gradients((6, 4), 11),
    )
    for basis, factor, values in ((own.K, own.S_K, own.values_K), (own.C, own.S_C, own.values_C)):
        Q, S = basis.to_dense(), factor.to_dense()
        np.testing.assert_allclose(np.diag(Q.T @ S @ Q), values, rtol=1e-2)


def after_many(scale, gradients, steps):
    """What the preconditioner makes of each gradient after these, over and over."""
    stacked = jnp.asarray(np.stack(gradients))

    def body(state, index):
        return scale.update(stacked[index % len(gradients)], state)[::-1]

    last, _ = quick_jit(lambda s: jax.lax.scan(body, s, jnp.arange(steps)))(scale.init(stacked[0]))
    return [np.asarray(scale.update(g, last, refresh=False)[0]) for g in stacked]


@pytest.mark.usefixtures("x64")
def test_fixed_point():
    """A few gradients over and over, with a long memory: the factors of the flip-flop."""
    gradients = random_gradients((4, 3), 20)
    S_K, S_C = flip_flop(gradients)
    scale = singd_optax.scale_by_kl_shampoo(b2=0.9995, clip_rms=None, eps=0.0)
    for gradient, got in zip(gradients, after_many(scale, gradients, 30_000), strict=True):
        want = whitened(S_K, S_C, gradient)
        assert np.linalg.norm(got - want) < 0.01 * np.linalg.norm(want)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SCALES)
def test_the_size_of_gradients_drops_out(name):
    gradients = random_gradients((4, 4), 6)
    options = {"adam_eps": 0.0} if name == "kl_soap" else {}
    plain, small = (
        run(SCALES[name](**options), [scale * g for g in gradients])[0] for scale in (1, 1e-7)
    )
    np.testing.assert_allclose(small, plain, rtol=1e-6, atol=1e-8)


def test_nothing_is_learnt_from_zeros():
    gradients = [g.astype(np.float32) for g in random_gradients((4, 4), 3)]
    tx = singd_optax.scale_by_kl_shampoo()
    _, own = run(tx, gradients)
    _, same = run(tx, [*gradients, *[0 * gradients[0]] * 5])
    for name in FIELDS:
        jax.tree.map(np.testing.assert_array_equal, getattr(own, name), getattr(same, name))
    _, fresh = run(tx, [0 * gradients[0]] * 2)
    assert int(fresh.started) == 0
    state = tx.init(jnp.zeros((4, 4)))
    _, state = tx.update(jnp.zeros((4, 4)), state)
    assert int(state.skipped_refreshes[""]) == 1


def test_large_sides_are_diagonal_and_the_clip_bounds():
    tx = singd_optax.scale_by_kl_shampoo(clip_rms=0.5)
    state = jax.eval_shape(tx.init, jnp.zeros((5000, 8))).rule_states[""]
    shapes = [leaf.shape for leaf in jax.tree.leaves((state.S_K, state.S_C))]
    assert shapes == [(5000,), (8, 8)]
    (first, *_), _ = run(tx, [np.full((3, 2), 5.0, np.float32)])
    np.testing.assert_allclose(first, 0.5, rtol=1e-5)


def test_errors():
    for rule, options, match in (
        (KLShampoo, {"clip_rms": 0}, "`clip_rms` must be a finite number > 0, got 0"),
        (KLShampoo, {"eps": -1}, "`eps` must be a finite number >= 0, got -1"),
        (KLSOAP, {"adam_eps": -1}, "`adam_eps` must be a finite number >= 0, got -1"),
    ):
        with pytest.raises(ValueError, match=match):
            rule(**options)
    tx = singd_optax.scale_by_kl_soap(structures="lower_toeplitz")
    with pytest.raises(ValueError, match="KLSOAP turns gradients"):
        tx.init(jnp.ones((3, 2)))
