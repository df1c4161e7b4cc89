"""CASPR against its two forms, its family, and the matrices that it lies between."""

import jax.numpy as jnp
import numpy as np
import pytest

import singd_optax
from singd_optax.optimizers import CASPR, Shampoo
from singd_optax.testing._compile import quick_jit


def power(matrix, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T


def problem(seed, rows=4, columns=3, count=40, eps=1e-6):
    """Gradients, and Shampoo's damped moments of them."""
    gradients = np.random.default_rng(seed).normal(size=(count, rows, columns))
    gradients *= np.random.default_rng(seed + 1).lognormal(size=(rows, columns))
    L, R = sum(g @ g.T for g in gradients), sum(g.T @ g for g in gradients)
    L, R = (m + eps * np.linalg.eigvalsh(m)[-1] * np.eye(len(m)) for m in (L, R))
    return gradients, L, R


def kronecker_sides(L, R, exponent):
    """L^e ⊗ I and I ⊗ R^e, for row-major vec."""
    return (
        np.kron(power(L, exponent), np.eye(len(R))),
        np.kron(np.eye(len(L)), power(R, exponent)),
    )


def caspr_matrix(L, R):
    """The preconditioner on vec(G): two passes of J."""
    left, right = kronecker_sides(L, R, -0.25)
    return np.linalg.matrix_power((left + right) / 2, 2)


def shampoo_matrix(L, R):
    left, right = kronecker_sides(L, R, -0.25)
    return left @ right


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_two_passes_are_the_sum_formula(method):
    gradients, L, R = problem(0, count=8)
    tx = singd_optax.scale_by_caspr(b2=None, eps=1e-6, root_method=method)
    state, update = tx.init(jnp.asarray(gradients[0])), quick_jit(tx.update)
    for gradient in gradients:
        updates, state = update(jnp.asarray(gradient), state)
    G = gradients[-1]
    A, B = power(L, -0.25), power(R, -0.25)
    formula = (power(L, -0.5) @ G + 2 * A @ G @ B + G @ power(R, -0.5)) / 4
    rtol = 1e-9 if method == "eigh" else 1e-5
    np.testing.assert_allclose(updates, formula, rtol=rtol, atol=rtol * np.abs(formula).max())
    of_vector = (caspr_matrix(L, R) @ G.ravel()).reshape(G.shape)
    np.testing.assert_allclose(formula, of_vector, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_state_and_roots_are_those_of_shampoo():
    gradients, *_ = problem(3)
    states = []
    for scale in (singd_optax.scale_by_shampoo, singd_optax.scale_by_caspr):
        tx = scale()
        state, update = tx.init(jnp.asarray(gradients[0])), quick_jit(tx.update)
        for gradient in gradients[:3]:
            _, state = update(jnp.asarray(gradient), state)
        states.append(state)
    shampoo, caspr = states
    for part in (0, 1):
        np.testing.assert_array_equal(
            shampoo.rule_states[""][part].blocks, caspr.rule_states[""][part].blocks
        )
    assert issubclass(CASPR, Shampoo)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_limits_of_the_power_mean_family(seed):
    """((A^p + B^p) / 2)^(-2/p) is CASPR at p = -1, and goes to Shampoo as p -> 0."""
    _, L, R = problem(seed)
    A, B = kronecker_sides(L, R, 0.25)

    def member(p):
        return power((power(A, p) + power(B, p)) / 2, -2 / p)

    def distance(matrix, target):
        return np.linalg.norm(matrix - target) / np.linalg.norm(target)

    assert distance(member(-1), caspr_matrix(L, R)) < 1e-9
    shampoo = shampoo_matrix(L, R)
    errors = [distance(member(-p), shampoo) for p in (1e-1, 1e-2, 1e-3)]
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 10, rtol=0.15)
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_loewner_order_of_adagrad_caspr_and_shampoo(seed):
    """As bounds of the full second moment's root: Adagrad <= CASPR <= Shampoo.

    With rank r of the gradients, Σ g gᵀ <= r (L ⊗ R)^(1/2), and the means are ordered.
    """
    gradients, L, R = problem(seed)
    flat = gradients.reshape(len(gradients), -1)
    rank = min(gradients.shape[1:])
    adagrad = power(flat.T @ flat, 0.5)
    caspr = rank**0.5 * np.linalg.inv(caspr_matrix(L, R))
    shampoo = rank**0.5 * np.linalg.inv(shampoo_matrix(L, R))
    tolerance = -1e-9 * np.linalg.norm(shampoo)
    assert np.linalg.eigvalsh(caspr - adagrad)[0] > tolerance
    assert np.linalg.eigvalsh(shampoo - caspr)[0] > tolerance


def test_errors():
    with pytest.raises(ValueError, match="`eps` must be a finite number >= 0, got -1"):
        singd_optax.scale_by_caspr(eps=-1.0)
    with pytest.raises(ValueError, match="`block_size` must be an int >= 1, got 0"):
        singd_optax.caspr(0.1, structures="block_diagonal:0")
