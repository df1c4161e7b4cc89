"""Huge gradients, and losses of any size: finite factors, and refreshes that go on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import ALIASES, GRADIENT_ALIASES, jit, loss_fn, plain_step, problem

import singd_optax
from singd_optax.rules._inverse_free import bounded_step
from singd_optax.structures import STRUCTURES, Dense, DenseMatrix

EXAMPLES = [example for entry in STRUCTURES for example in entry.examples]


@pytest.mark.parametrize("structure", EXAMPLES, ids=repr)
@pytest.mark.parametrize("size", [1e-33, 1e-25, 1e-19, 1e19, 1e25, 1e36])
def test_spectral_bound_of_any_size(structure, size):
    dense = jax.random.normal(jax.random.key(0), (6, 6))
    matrix = structure.project(dense + dense.T)
    usual = matrix.spectral_norm_bound()
    exact = np.linalg.norm(np.asarray(matrix.to_dense(), float), 2)
    bound = (matrix * size).spectral_norm_bound()
    np.testing.assert_allclose(bound, usual * size, rtol=1e-5)
    assert exact * (1 - 1e-5) <= float(usual) <= 1.5 * exact + 1e-6


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_bound_of_what_is_not_finite(bad):
    matrix = DenseMatrix(jnp.eye(4).at[1, 2].set(bad))
    assert not jnp.isfinite(matrix.spectral_norm_bound())
    step, _ = bounded_step(Dense().eye(4, jnp.float32), matrix, 0.5, "spectral", "highest")
    assert not jnp.isfinite(step.to_dense()).all()  # which a refresh refuses


def test_a_bound_that_bounds_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(DenseMatrix, "spectral_norm_bound", lambda self, **_: jnp.zeros([]))
    ones = DenseMatrix(jnp.ones((3, 3)))
    step, _ = bounded_step(Dense().eye(3, jnp.float32), ones, 0.5, "spectral", "highest")
    assert not jnp.isfinite(step.to_dense()).any()


@functools.cache
def run_of(name, options=()):
    """An optimizer's first state, and a compiled run over losses times so many ``scales``.

    Returns parameters, state, and how far each step went.
    """
    params, layers, x, y = problem()
    scaled = lambda params, x, y: y[1] * loss_fn(params, x, y[0])
    alone = name in GRADIENT_ALIASES
    tx = getattr(singd_optax, name)(0.01, *(() if alone else (layers,)), **dict(options))
    step = plain_step(tx, layers, scaled)

    def body(carry, scale):
        new = step(*carry, x, (y, scale))[:2]
        return new, optax.tree.norm(optax.tree.sub(new[0], carry[0]))

    return tx.init(params), jit(lambda carry, scales: jax.lax.scan(body, carry, scales))


def trained(name, scales, **options):
    """Parameters and state after steps on the small problem, with losses times ``scales``."""
    state, run = run_of(name, tuple(options.items()))
    (params, opt_state), moved = run((problem()[0], state), jnp.asarray(scales, jnp.float32))
    return params, opt_state, np.asarray(moved)


def all_finite(tree):
    return all(np.isfinite(np.asarray(leaf, float)).all() for leaf in jax.tree.leaves(tree))


#: AdamW's own moments overflow.
STILL, ZERO = optax.sgd(1e-30), optax.set_to_zero()
HUGE = (1e6, 1e12, 1e15, 1e18, 1e25)
CONSTANT = (1e-12, 1e-6, 1e6, 1e15)


@pytest.mark.parametrize(
    ("name", "factor_dtype"),
    [(name, "float32") for name in ALIASES + GRADIENT_ALIASES]
    + [("inverse_free_shampoo", "bfloat16")],
)
def test_losses_of_any_size(name, factor_dtype):
    """One huge gradient leaves all finite for ever after, and steps are soon of their usual size.

    Losses that are always huge or tiny: all layers are refreshed.
    """
    options = {"fallback": STILL}
    if factor_dtype != "float32":
        options["factor_dtype"] = factor_dtype
    for size in HUGE:
        scales = np.ones(30)
        scales[20] = size
        params, opt_state, moved = trained(name, scales, **options)
        assert all_finite((params, opt_state)), f"a loss {size} times larger"
        assert moved.max() < 10 * moved[:20].max(), f"a loss {size} times larger"
    if name not in (*ALIASES, "inverse_free_shampoo"):
        return
    for scale in CONSTANT:
        _, opt_state, _ = trained(name, np.full(30, scale), **options)
        skipped = optax.tree.get(opt_state, "skipped_refreshes").values()
        assert not any(map(int, skipped)), f"losses times {scale}"
        assert all_finite(opt_state), f"losses times {scale}"


@pytest.mark.parametrize("method", ["cholesky", "eigh"])
def test_kfac_does_not_depend_on_the_size_of_the_loss(method):
    options = {"inverse_method": method, "fallback": ZERO}
    want, one, two = (
        trained("kfac", np.full(6, scale), **options)[0] for scale in (1, 1e-12, 1e15)
    )
    for got in (one, two):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3), got, want)


def test_layers_that_are_not_refreshed_any_more_are_told():
    _, layers, *_ = problem()
    _, good, _ = trained("singd", np.ones(30), refresh_every=1)
    _, stuck, _ = trained("singd", np.r_[np.ones(5), np.full(25, np.nan)], refresh_every=1)
    _, back, _ = trained("singd", np.r_[np.full(29, np.nan), np.ones(1)], refresh_every=1)
    for state, count in ((good, 0), (stuck, 25)):
        metrics = singd_optax.diagnostics.metrics(layers, state)
        assert metrics["singd_optax/first/skipped_in_a_row"] == count
    check = singd_optax.training.check_refreshes
    assert check(good) == []
    with pytest.warns(UserWarning, match=r"last 20 refreshes.*'first'.*skipped.*scale it"):
        assert check(stuck) == ["first", "second"]
    assert check(stuck, limit=26) == []
    assert jax.jit(lambda state: check(state) == [])(stuck)  # traced: nothing can be said
    assert int(optax.tree.get(back, "skipped_refreshes")["first"]) > 20
    failing = singd_optax.inverse_free_shampoo(0.1, refresh_every=1)
    zeros = {"w": jnp.zeros((3, 2))}
    state = failing.init(zeros)
    update = jit(failing.update)
    for _ in range(20):
        _, state = update(zeros, state, zeros)
    with pytest.warns(UserWarning, match="'w'"):
        check(state)
