"""SM3 against a short restatement, optax's, and Adagrad."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_kl_shampoo import run
from test_soap import random_gradients

import singd_optax
from singd_optax.optimizers import SM3
from singd_optax.testing._compile import quick_jit


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("b2", [None, 0.9])
def test_trajectory(b2):
    gradients = random_gradients((5, 3), 8)
    got, own = run(singd_optax.scale_by_sm3(b2=b2), gradients)
    decay, fresh = (1, 1) if b2 is None else (b2, 1 - b2)
    rows, columns, squares = np.zeros((5, 1)), np.zeros((1, 3)), 0
    for gradient, one in zip(gradients, got, strict=True):
        nu = decay * np.minimum(rows, columns) + fresh * gradient**2
        rows, columns = nu.max(1, keepdims=True), nu.max(0, keepdims=True)
        squares = decay * squares + fresh * gradient**2
        np.testing.assert_allclose(one, gradient / np.sqrt(nu), rtol=1e-10)
        assert (nu >= squares * (1 - 1e-12)).all()  # it covers Adagrad's
    np.testing.assert_allclose(own.values_K, rows[:, 0], rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_as_that_of_optax():
    gradients = random_gradients((4, 6), 5)
    got, _ = run(singd_optax.scale_by_sm3(), gradients)
    other = optax.scale_by_sm3(b1=0.0, b2=1.0, eps=0.0)
    update, state = quick_jit(other.update), other.init(jnp.asarray(gradients[0]))
    for gradient, one in zip(gradients, got, strict=True):
        updates, state = update(jnp.asarray(gradient), state)
        np.testing.assert_allclose(one, updates, rtol=1e-6)


def test_what_overflows_is_forgotten():
    gradients = [np.ones((3, 2), np.float32), np.full((3, 2), 1e30, np.float32)]
    (_, spike, after), own = run(singd_optax.scale_by_sm3(), [*gradients, gradients[0]])
    np.testing.assert_array_equal(spike, 0)
    np.testing.assert_allclose(after, 2**-0.5, rtol=1e-6)
    np.testing.assert_allclose(own.values_C, 2)


def test_errors():
    with pytest.raises(ValueError, match="`b2` must be a finite number >= 0 and < 1, got 1"):
        SM3(b2=1)
    with pytest.raises(ValueError, match="`eps` must be a finite number >= 0, got -1"):
        SM3(eps=-1)
