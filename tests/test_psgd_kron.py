"""PSGD-Kron against a short restatement, and its fixed point, which is that of KL-Shampoo."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_kl_shampoo import after_many, flip_flop, run, whitened
from test_soap import random_gradients

import singd_optax
from singd_optax.optimizers import PSGDKron
from singd_optax.testing._compile import quick_jit

GEOMETRIES = ("Q0.5EQ1.5", "QUAD", "QEQ")


def moved(Q, gram, other, rate, bound, geometry):
    """One step on Q, with P = Qᵀ Q, as in ``psgd.py`` of its authors."""
    step = rate / bound * (gram - other * np.eye(len(Q)))
    if geometry == "QEQ":
        return Q - Q @ step
    if geometry == "QUAD":
        half = np.eye(len(Q)) - step / 2
        new = half @ Q @ half
        return (new + new.T) / 2
    Q = Q - step @ Q
    R = Q.T - Q
    norm = np.abs(R).sum(1).max()
    R = R / (norm if norm > 0 else 1)
    first, second = np.trace(R @ Q), np.trace(R @ R @ Q)
    a = min(-first / second, 0.125) if second < 0 else 0.125
    return Q + a * R @ Q + a**2 / 2 * R @ R @ Q


def psgd(gradients, bounds, geometry, rate=0.1):
    rows, columns = gradients[0].shape
    size = np.mean(gradients[0] ** 2) ** -0.125
    Q, R = size * np.eye(rows), size * np.eye(columns)
    for G, (bound_Q, bound_R) in zip(gradients, bounds, strict=True):
        U = Q.T @ Q @ G @ R.T @ R
        Q = moved(Q, U @ U.T, columns, rate, bound_Q, geometry)
        R = moved(R, U.T @ U, rows, rate, bound_R, geometry)
        yield Q.T @ Q @ G @ R.T @ R


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_trajectory(geometry):
    """With the bounds that the rule found, which are at least those of the gradient."""
    gradients = random_gradients((5, 3), 12)
    tx = singd_optax.scale_by_psgd_kron(geometry=geometry, damping=0.0, clip_rms=None)
    update, state = quick_jit(tx.update), tx.init(jnp.asarray(gradients[0]))
    got, bounds = [], []
    for gradient in gradients:
        updates, state = update(jnp.asarray(gradient), state)
        own = state.rule_states[""]
        got.append(updates)
        bounds.append((float(own.curvature_K), float(own.curvature_C)))
    for one, wanted in zip(got, psgd(gradients, bounds, geometry), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-9)
    fallen = np.array(bounds)
    assert (fallen[1:] >= 0.9 * fallen[:-1]).all()
    K, C = (factor.to_dense() for factor in (own.K, own.C))
    np.testing.assert_allclose(np.abs(K).max(), np.abs(C).max(), rtol=1e-9)  # balanced
    if geometry == "QUAD":
        np.testing.assert_allclose(K, K.T, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_fixed_point_is_that_of_kl_shampoo(geometry):
    gradients = random_gradients((4, 3), 20)
    S_K, S_C = flip_flop(gradients)
    scale = singd_optax.scale_by_psgd_kron(
        geometry=geometry,
        damping=0.0,
        clip_rms=None,
        curvature_decay=0.9995,  # or large gradients, whose bounds are larger, would count less
        factor_learning_rate=optax.exponential_decay(0.1, 3000, 0.5),
    )
    for gradient, got in zip(gradients, after_many(scale, gradients, 30_000), strict=True):
        want = whitened(S_K, S_C, gradient)
        assert np.linalg.norm(got - want) < 0.01 * np.linalg.norm(want)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("structures", ["dense", "diagonal", ("dense", "identity")])
def test_one_gradient_is_whitened(structures):
    (*_, last), _ = run(
        singd_optax.scale_by_psgd_kron(damping=0.0, structures=structures, clip_rms=None),
        [-7 * np.eye(2)] * 300,
    )
    np.testing.assert_allclose(last, -np.sqrt(2) * np.eye(2), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_noise_bounds_what_no_gradient_says():
    """A row without gradients: its factor grows until noise is what is whitened, and not on."""
    gradients = [g * np.array([[1.0], [1], [1], [0]]) for g in random_gradients((4, 4), 600)]
    wide = {"factor_learning_rate": 0.3, "structures": ("diagonal", "identity")}
    sizes = {}
    for damping in (0.0, 1e-2):
        _, own = run(singd_optax.scale_by_psgd_kron(damping=damping, **wide), gradients)
        sizes[damping] = np.asarray(own.K.diagonal) ** 2
    assert sizes[0.0][3] / sizes[0.0][0] > 1e6
    assert 20 < sizes[1e-2][3] / sizes[1e-2][0] < 500


def test_large_sides_are_diagonal_and_the_clip_bounds():
    state = jax.eval_shape(singd_optax.scale_by_psgd_kron().init, jnp.zeros((5000, 8)))
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.rule_states[""][:2])]
    assert shapes == [(5000,), (8, 8)]
    huge = [np.ones((3, 2), np.float32), np.full((3, 2), 1e12, np.float32)]
    (_, spike), _ = run(singd_optax.scale_by_psgd_kron(refresh_every=10), huge)
    np.testing.assert_allclose(np.sqrt(np.mean(spike**2)), 1.1, rtol=1e-5)


def test_errors():
    for options, match in (
        ({"geometry": "EQ"}, "`geometry` must be one of 'Q0.5EQ1.5', 'QUAD', 'QEQ', got 'EQ'"),
        ({"damping": -1}, "`damping` must be a finite number >= 0, got -1"),
        ({"curvature_decay": 1}, "`curvature_decay` must be a finite number >= 0 and < 1, got 1"),
    ):
        with pytest.raises(ValueError, match=match):
            PSGDKron(**options)
    tx = singd_optax.scale_by_psgd_kron(structures="upper_triangular:1")
    with pytest.raises(ValueError, match="PSGDKron turns gradients"):
        tx.init(jnp.ones((3, 2)))
