"""Damping by how few rows the moments are of."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import singd_optax
from singd_optax import sampling_damping
from singd_optax.optimizers import SINGD
from singd_optax.rules import damping_at

ROWS = 12
DIMS = (8, 6)  # with the bias, and outputs
#: What a row of both moments has.
NUMBERS = {"dense": DIMS, "block_diagonal:2": (2, 2), "diagonal": (1, 1), "identity": (0, 0)}


def problem(structures, rows=ROWS):
    model = nn.Dense(DIMS[1])
    x = jax.random.normal(jax.random.key(0), (rows, DIMS[0] - 1))
    params = model.init(jax.random.key(1), x)

    def loss_fn(params, x):
        return jnp.mean(jnp.sin(model.apply(params, x)).sum(-1))

    layers = singd_optax.find_layers(loss_fn, params, x, structures=structures)
    return loss_fn, params, x, layers


def measured(structures, rows=ROWS, **options):
    loss_fn, params, x, layers = problem(structures, rows)
    tx = singd_optax.scale_by_singd(layers, **options)
    state = tx.init(params)
    _, grads, curvature = singd_optax.value_and_grad(loss_fn, layers)(params, x, opt_state=state)
    return tx, state, grads, curvature["params"], params


def factors_of(statistics):
    """Of the structures of both moments."""
    return statistics.H_K, statistics.H_C


@pytest.mark.parametrize("structures", NUMBERS)
@pytest.mark.parametrize("rows", [1, ROWS, 3000])
def test_damping_is_what_rows_leave_open(structures, rows):
    statistics = measured(structures, rows)[3]
    assert int(statistics.rows) == rows
    b_K, b_C = NUMBERS[structures]
    want = max(0.03, 2 * b_K * b_C / rows**2)
    got = damping_at(
        sampling_damping(share=2),
        jnp.int32(0),
        statistics,
        factors_of(statistics),
        is_relative=False,
    )
    np.testing.assert_allclose(got, 0.03)  # in absolute units nothing is known of it
    got = damping_at(
        sampling_damping(share=2),
        jnp.int32(0),
        statistics,
        factors_of(statistics),
        is_relative=True,
    )
    np.testing.assert_allclose(got, want * statistics.mean_U * statistics.mean_G, rtol=1e-5)


def test_it_is_the_default_and_equals_the_number_that_it_stands_for():
    number = DIMS[0] * DIMS[1] / ROWS**2
    assert number > 0.3
    updates = []
    for options in ({}, {"damping": number}, {"damping": 0.03}):
        tx, state, grads, statistics, params = measured("dense", **options)
        curvature = {"params": statistics}
        updates.append(tx.update(grads, state, params, curvature=curvature)[0])
    same = lambda a, b: jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), a, b)
    same(updates[0], updates[1])
    with pytest.raises(AssertionError):
        same(updates[0], updates[2])


def test_least_may_be_a_schedule_and_all_is_jitted_once():
    damping = sampling_damping(singd_optax.damping_schedule(0.5, early=100.0))
    tx, state, grads, statistics, params = measured("dense", damping=damping)
    curvature = {"params": statistics}
    step = jax.jit(lambda g, s: tx.update(g, s, params, curvature=curvature))
    first, _ = step(grads, state)
    _ = step(grads, state)
    assert step._cache_size() == 1
    plain = measured("dense", damping=100.0)
    want, _ = plain[0].update(grads, plain[1], params, curvature=curvature)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), first, want)


def test_each_matrix_of_a_stack_has_its_own():
    """Experts that see few tokens are damped more: weights count rows."""
    statistics = measured("dense")[3]
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), statistics)
    stacked = stacked._replace(rows=jnp.array([2.0, 1e4]))
    got = damping_at(
        sampling_damping(), jnp.int32(0), stacked, factors_of(stacked), is_relative=True
    )
    mean = statistics.mean_U * statistics.mean_G
    np.testing.assert_allclose(got, jnp.array([48 / 4, 0.03]) * mean, rtol=1e-5)


def test_in_injected_hyperparameters_it_is_fixed():
    _, _, _, layers = problem("dense")
    tx = optax.inject_hyperparams(singd_optax.singd)(
        learning_rate=0.1, layers=layers, damping=sampling_damping(0.1)
    )
    hyperparameters = tx.init(problem("dense")[1]).hyperparams
    assert "damping" not in hyperparameters
    assert "learning_rate" in hyperparameters


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: sampling_damping(-1.0), ValueError, "`least`"),
        (lambda: sampling_damping("much"), TypeError, "`least`"),
        (lambda: sampling_damping(share=-1.0), ValueError, "`share`"),
        (lambda: sampling_damping(share=lambda count: 1.0), TypeError, "`share`"),
        (lambda: SINGD(damping="much"), TypeError, "`damping`"),
    ],
)
def test_errors(make, error, match):
    with pytest.raises(error, match=match):
        make()
