"""SPlus against a short restatement."""

import jax.numpy as jnp
import numpy as np
import pytest
from test_kl_shampoo import run
from test_soap import random_gradients

import singd_optax
from singd_optax.optimizers import SPlus


@pytest.mark.usefixtures("x64")
def test_trajectory():
    """Bases by eigenvectors every three steps, in use from the step after."""
    gradients = random_gradients((5, 5), 8)
    got, own = run(singd_optax.scale_by_splus(b2=0.9, momentum=0.8, refresh_every=3), gradients)
    Q, P, M, L, R = np.eye(5), np.eye(5), 0, 0, 0
    for count, (G, one) in enumerate(zip(gradients, got, strict=True)):
        M, L, R = 0.8 * M + 0.2 * G, 0.9 * L + 0.1 * G @ G.T, 0.9 * R + 0.1 * G.T @ G
        turned = Q.T @ (M / (1 - 0.8 ** (count + 1))) @ P
        want = Q @ np.sign(turned) @ P.T * np.abs(turned).mean()
        np.testing.assert_allclose(one, want, rtol=1e-6, atol=1e-9)
        if count % 3 == 0:
            Q, P = (np.linalg.eigh(moment)[1] for moment in (L, R))
    assert int(own.started) == 1


@pytest.mark.usefixtures("x64")
def test_without_bases_it_is_the_sign():
    gradients = random_gradients((5, 3), 4)
    got, _ = run(singd_optax.scale_by_splus(structures="identity", update_rms=0.3), gradients)
    for gradient, one in zip(gradients, got, strict=True):
        np.testing.assert_allclose(one, 0.3 * np.sign(gradient), rtol=1e-9)


def test_errors():
    with pytest.raises(ValueError, match="`b2` must be a finite number >= 0 and < 1, got 1"):
        SPlus(b2=1.0)
    with pytest.raises(ValueError, match="`basis_method` must be one of 'qr', 'eigh', got 'svd'"):
        SPlus(basis_method="svd")
    with pytest.raises(ValueError, match="SPlus turns gradients"):
        singd_optax.scale_by_splus(structures="lower_toeplitz").init(jnp.ones((3, 2)))
