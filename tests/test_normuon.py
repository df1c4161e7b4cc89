"""NorMuon against a short restatement, and Muon."""

import jax.numpy as jnp
import numpy as np
import pytest
from test_kl_shampoo import run
from test_soap import random_gradients

import singd_optax
from singd_optax.optimizers import NorMuon
from singd_optax.testing._compile import quick_jit


def polar(matrix):
    U, _, V = np.linalg.svd(matrix, full_matrices=False)
    return U @ V


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [(6, 4), (3, 5)])
def test_trajectory(shape):
    """Algorithm 1 of arXiv 2510.05491, with an exact polar factor."""
    gradients = random_gradients(shape, 5)
    got, own = run(singd_optax.scale_by_normuon(iteration="quintic", steps=30), gradients)
    v = 0
    for gradient, one in zip(gradients, got, strict=True):
        O = polar(gradient)
        v = 0.95 * v + 0.05 * (O**2).mean(0)
        U = O / (np.sqrt(v) + 1e-8)
        mean = np.linalg.svd(gradient)[1].mean()
        want = mean * U * np.linalg.norm(O) / np.linalg.norm(U)
        np.testing.assert_allclose(one, want, rtol=1e-7)
    np.testing.assert_allclose(own.values_C, v, rtol=1e-7)


@pytest.mark.usefixtures("x64")
def test_with_columns_of_one_size_it_is_muon():
    """As the polar factor of a tall matrix has them; the momentum is Muon's."""
    gradients = random_gradients((6, 4), 4)
    got, _ = run(
        singd_optax.scale_by_normuon(iteration="quintic", steps=30, momentum=0.9, nesterov=True),
        gradients,
    )
    M = 0
    for gradient, one in zip(gradients, got, strict=True):
        M = 0.9 * M + gradient
        ahead = gradient + 0.9 * M
        mean = np.linalg.svd(ahead)[1].mean()
        np.testing.assert_allclose(one, mean * polar(ahead), rtol=1e-7)


def test_the_smallest_state_and_no_factors():
    params = {"w": jnp.zeros((6, 4)), "stack": jnp.zeros((2, 5, 3)), "b": jnp.zeros(3)}
    tx = singd_optax.normuon(0.1, matrix_axes={"stack": ((1,), (2,))})
    (state,) = singd_optax.layers.rule_states(tx.init(params))
    shapes = {path: own.values_C.shape for path, own in state.rule_states.items()}
    assert shapes == {"w": (4,), "stack": (2, 3)}
    with pytest.raises(ValueError, match="no Kronecker factors"):
        singd_optax.factors(tx.init(params))


def test_zeros_and_sizes():
    zeros = jnp.zeros((3, 2))
    tx = singd_optax.scale_by_normuon()
    updates, _ = quick_jit(tx.update)(zeros, tx.init(zeros))
    np.testing.assert_array_equal(updates, 0)
    params = {"w": jnp.asarray(random_gradients((6, 4), 1)[0], jnp.float32)}
    whole = singd_optax.normuon(0.1, weight_decay=0.0)
    moved, _ = quick_jit(whole.update)(params, whole.init(params), params)
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(moved["w"] ** 2)), 0.1 * 0.2, rtol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match="`b2` must be a finite number >= 0 and < 1, got 1"):
        NorMuon(b2=1)
    with pytest.raises(ValueError, match="`iteration_dtype` must be one of"):
        NorMuon(iteration_dtype="int32")
