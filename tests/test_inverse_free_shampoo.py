"""Inverse-free Shampoo against its equations, its fixed point and its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import singd_optax
from singd_optax.structures import BlockDiagonal, Dense, Diagonal, TriangularLowRank
from singd_optax.testing._compile import quick_jit


def random_gradients(shape, steps, seed=1):
    return np.random.default_rng(seed).normal(size=(steps, *shape))


def run(tx, gradients, dtype=None):
    gradients = jnp.asarray(gradients, dtype)

    def step(state, gradient):
        updates, state = tx.update(gradient, state)
        return state, updates

    return quick_jit(lambda g: jax.lax.scan(step, tx.init(g[0]), g))(gradients)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "structures",
    [(Dense(), Dense()), (BlockDiagonal(2), Diagonal()), (TriangularLowRank(1), Dense())],
    ids=str,
)
def test_is_its_equations(structures):
    b1, a1, damping, batch = 0.05, 0.6, 0.2, 3.0
    tx = singd_optax.scale_by_inverse_free_shampoo(
        structures=structures,
        damping=damping,
        damping_mode="absolute",
        factor_learning_rate=b1,
        factor_momentum=a1,
        factor_step_norm=None,
        factor_init="identity",
        batch_size=batch,
    )
    gradients = random_gradients((5, 4), 6)
    state, updates = run(tx, gradients)
    Pi_K, Pi_C = (
        lambda m, s=s: np.asarray(s.project(jnp.asarray(m)).to_dense()) for s in structures
    )
    K, C, m_K, m_C = np.eye(5), np.eye(4), np.zeros((5, 5)), np.zeros((4, 4))
    for G, got in zip(gradients, updates, strict=True):
        H_K = Pi_K(K.T @ G @ C @ C.T @ G.T @ K) * batch / 4
        H_C = Pi_C(C.T @ G.T @ K @ K.T @ G @ C) * batch / 5
        damped_K = H_K + damping * np.trace(C.T @ C) / 4 * Pi_K(K.T @ K)
        damped_C = H_C + damping * np.trace(K.T @ K) / 5 * Pi_C(C.T @ C)
        m_K = a1 * m_K + (1 - a1) / 2 * (damped_K - np.eye(5))
        m_C = a1 * m_C + (1 - a1) / 2 * (damped_C - np.eye(4))
        K, C = K @ (np.eye(5) - b1 * m_K), C @ (np.eye(4) - b1 * m_C)
        np.testing.assert_allclose(got, K @ K.T @ G @ C @ C.T, rtol=1e-9)
    factors = state.rule_states[""]
    np.testing.assert_allclose(factors.K.to_dense(), K, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(factors.C.to_dense(), C, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_fixed_point():
    """For one gradient G, square: K Kᵀ G C Cᵀ = d G^-T, as vec(G) vec(G)ᵀ asks for."""
    gradient = random_gradients((4, 4), 1)[0] + 3 * np.eye(4)
    tx = singd_optax.scale_by_inverse_free_shampoo(damping=0.0, factor_momentum=0.0)
    _, updates = run(tx, np.broadcast_to(gradient, (400, 4, 4)))
    np.testing.assert_allclose(updates[-1], 4 * np.linalg.inv(gradient).T, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_scale_of_the_loss_drops_out():
    gradients = random_gradients((5, 3), 5)
    tx = singd_optax.scale_by_inverse_free_shampoo(structures=("dense", "diagonal"))
    _, updates = run(tx, gradients)
    for scale in (1e-6, 1e5):
        np.testing.assert_allclose(run(tx, scale * gradients)[1] * scale, updates, rtol=1e-8)
    batch = singd_optax.scale_by_inverse_free_shampoo(
        structures=("dense", "diagonal"), batch_size=100.0
    )
    np.testing.assert_allclose(run(batch, gradients)[1] * 100, updates, rtol=1e-8)


def test_factors_fit_the_first_gradient():
    gradients = 1e-4 * random_gradients((6, 5), 1)
    tx = singd_optax.scale_by_inverse_free_shampoo(factor_learning_rate=0.0, damping=0.0)
    state, updates = run(tx, gradients, jnp.float32)
    square = np.mean(gradients**2)
    np.testing.assert_allclose(updates[0], gradients[0] / square, rtol=1e-4)
    assert bool(state.rule_states[""].started)


@pytest.mark.parametrize(("structures", "share"), [("dense", 0.4), ("lower_toeplitz", 0.7)])
def test_bfloat16_factors_follow_float32(structures, share):
    """At a step size below bfloat16's resolution, where rounding to nearest would stand still.

    A Toeplitz matrix has one number for its diagonal, whose random walk is not averaged: its
    deviation is 0.22 of the way.
    """
    rng = np.random.default_rng(0)
    sides = [np.diag(np.geomspace(0.3, 3, dim)) for dim in (12, 10)]
    gradients = sides[0] @ rng.normal(size=(300, 12, 10)) @ sides[1]
    options = dict(structures=structures, factor_learning_rate=2e-3, factor_momentum=0.0)
    factors = {}
    for name in ("float32", "bfloat16"):
        tx = singd_optax.scale_by_inverse_free_shampoo(factor_dtype=name, **options)
        state, _ = run(tx, gradients, jnp.float32)
        factors[name] = state.rule_states[""]
        assert factors[name].K.dtype == jnp.dtype(name)
    start = run(tx, gradients[:1], jnp.float32)[0].rule_states[""]
    for wide, narrow, first in zip(
        *(state[:2] for state in (*factors.values(), start)), strict=True
    ):
        wide, narrow, first = (
            np.asarray(matrix.astype(jnp.float32).to_dense()) for matrix in (wide, narrow, first)
        )
        assert np.linalg.norm(narrow - wide) < share * np.linalg.norm(wide - first)


def test_stable_at_large_steps():
    gradients = random_gradients((20, 16), 300) * np.geomspace(1e-3, 1e3, 300)[:, None, None]
    tx = singd_optax.scale_by_inverse_free_shampoo(factor_learning_rate=0.9)
    state, updates = run(tx, gradients, jnp.float32)
    assert np.isfinite(updates).all()
    assert int(state.skipped_refreshes[""]) == 0


def test_gradients_of_zeros_teach_nothing():
    tx = singd_optax.scale_by_inverse_free_shampoo()
    gradients = random_gradients((4, 3), 3)
    gradients[1] = 0
    states = [run(tx, gradients[:count], jnp.float32)[0] for count in (1, 2)]
    first, second = (singd_optax.factors(state) for state in states)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert int(states[1].skipped_refreshes[""]) == 1
    state, _ = run(tx, np.zeros((2, 4, 3)), jnp.float32)
    assert not bool(state.rule_states[""].started)


def test_errors():
    scale = singd_optax.scale_by_inverse_free_shampoo
    with pytest.raises(ValueError, match="`batch_size` must be a finite number > 0, got 0"):
        scale(batch_size=0)
    with pytest.raises(ValueError, match="`factor_init` must be one of 'identity', 'gradient'"):
        scale(factor_init="zeros")
    with pytest.raises(ValueError, match="Unknown structure 'dens'"):
        scale(structures="dens")
    with pytest.raises(ValueError, match="`factor_dtype` must be one of 'bfloat16'"):
        scale(factor_dtype="float16")
    with pytest.raises(ValueError, match="`momentum` must be a finite number >= 0 and < 1, got 1"):
        singd_optax.inverse_free_shampoo(0.1, momentum=1)
