"""Steps, momentum and damping by the quadratic model, against dense matrices in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import assert_close, describe, jit, loss_fn, problem

import singd_optax
from singd_optax.optimizers import EKFAC, KFAC, KPSVD, MKOR, TKFAC
from singd_optax.rules import ConjugateGradients, Gated
from singd_optax.testing._rule_problem import (
    Setup,
    gradients_of,
    layers_of,
    params_of,
    step_of,
    steps_of,
)
from singd_optax.transforms import curvature_product, levenberg_marquardt

pytestmark = pytest.mark.usefixtures("x64")

RULE = KFAC(damping_mode="absolute", factor_learning_rate=0.5)
SINGLE = ("bias", "kernel")


def flat(tree):
    """The single layer of a tree as a vector: kernel, then bias, as its matrix has them."""
    return np.concatenate([np.ravel(tree["single"][name]) for name in SINGLE[::-1]])


@pytest.mark.parametrize(
    ("rule", "dense"),
    [
        (RULE, lambda s: np.kron(s.S_K.entries, s.S_C.entries) / (1 - 0.5**2) ** 2),
        (
            KFAC(factor_learning_rate=0.5, inverse_method=ConjugateGradients()),
            lambda s: np.kron(s.K.entries, s.C.entries),
        ),
        (
            TKFAC(factor_learning_rate=0.5),
            lambda s: (
                np.kron(s.S_K.entries, s.S_C.entries) / np.trace(s.S_K.entries) / (1 - 0.5**2)
            ),
        ),
        (
            KPSVD(factor_learning_rate=1.0, second_term=True),
            lambda s: (
                np.kron(s.S_K.entries, s.S_C.entries)
                / np.sqrt(np.linalg.norm(s.S_K.entries) * np.linalg.norm(s.S_C.entries))
                + np.kron(s.T_K.entries, s.T_C.entries)
            ),
        ),
        (
            Gated(EKFAC(), threshold=0.0),
            lambda s: (
                (Q := np.kron(s.K.entries, s.C.entries)) @ np.diag(np.ravel(s.scales)) @ Q.T
            ),
        ),
    ],
    ids=["kfac", "cg", "tkfac", "kpsvd", "gated ekfac"],
)
def test_products(rule, dense):
    steps, layers = steps_of(0, 2), layers_of(Setup("dense"))
    step, init = step_of(rule, layers)
    step, state = jit(step), init(params_of(Setup("dense")))
    for index in range(2):
        now = {path: several[index] for path, several in steps.items()}
        gradients = gradients_of(now, "float64")
        _, state = step(gradients, state, now)
    product = jit(functools.partial(curvature_product, rule, layers))
    got = product({"wrapped": state}, gradients)
    want = dense(state.rule_states["single"]) @ flat(gradients)
    np.testing.assert_allclose(flat(got), want, rtol=1e-9, atol=1e-12 * np.abs(want).max())


def quadratic(dim=4, count=30):
    """A linear layer and squared errors, whose Hessian is U ⊗ I; weights, loss, layers."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(count, dim))), jnp.asarray(rng.normal(size=(count, 2)))
    params = {"single": {"kernel": jnp.ones((dim, 2)), "bias": jnp.zeros(2)}}

    def loss_fn(params, x, y):
        kernel, bias = (params["single"][name] for name in SINGLE[::-1])
        outputs = singd_optax.tag(x @ kernel + bias, x, kernel, bias=bias)
        outputs = singd_optax.tag_distribution(outputs, "gaussian")
        return jnp.sum((outputs - y) ** 2) / 2 / len(x)

    layers = singd_optax.find_layers(loss_fn, params, x, y, structures="dense")
    rows = np.concatenate([np.asarray(x), np.ones((count, 1))], 1)
    return params, loss_fn, layers, (x, y), np.kron(rows.T @ rows / count, np.eye(2))


def train(tx, params, loss_fn, layers, batch, count, **extra):
    grad_fn = singd_optax.value_and_grad(loss_fn, layers, fisher="ggn")

    def step(params, state):
        value, grads, curvature = grad_fn(params, *batch, opt_state=state)
        updates, state = tx.update(grads, state, params, curvature=curvature, value=value, **extra)
        return optax.apply_updates(params, updates), state, value, grads, updates

    step, state, found = jit(step), tx.init(params), []
    for _ in range(count):
        before = state
        params, state, value, grads, updates = step(params, state)
        found.append((before, state, value, grads, updates))
    assert step._cache_size() == 1
    assert describe(state) == describe(tx.init(params))
    return params, found


@functools.cache
def trained(momentum):
    own = quadratic()
    rule = KFAC(damping_mode="absolute", factor_learning_rate=1.0)
    tx = levenberg_marquardt(rule, own[2], damping=0.5, momentum=momentum, adapt_every=2, decay=0.8)
    return own, train(tx, *own[:4], 6)[1]


@pytest.mark.parametrize("momentum", [False, True])
def test_each_step_is_the_best_of_its_span(momentum):
    """The gradient of the model at the step is orthogonal to both directions; by dense matrices."""
    (*_, hessian), found = trained(momentum)
    for index, (before, state, _, grads, updates) in enumerate(found):
        damping = float(state.adapted_damping)
        B, step = hessian + damping * np.eye(len(hessian)), -flat(updates)
        slope = B @ step - flat(grads)
        last = flat(before.last_step)
        np.testing.assert_allclose(flat(state.last_step), step, rtol=1e-10)
        plain = float(state.step_momentum) * last if momentum and index else 0 * last
        natural = (step - plain) / float(state.step_size)
        size = np.linalg.norm(flat(grads))
        assert abs(slope @ natural) < 1e-5 * size * np.linalg.norm(natural)
        if momentum and index:
            assert float(state.step_momentum) != 0
            assert abs(slope @ last) < 1e-5 * size * np.linalg.norm(last)
        # Halves of the damping on both sides of the rule: its own, and that of the model.
        A = hessian[::2, ::2]
        pi = np.sqrt(np.trace(A) / len(A))
        sides = A + pi * damping**0.5 * np.eye(len(A)), (1 + damping**0.5 / pi) * np.eye(2)
        want = np.linalg.solve(np.kron(*sides), flat(grads))
        np.testing.assert_allclose(natural, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


def test_the_damping_follows_the_ratio():
    """What two steps changed the loss, to what the model promised; by NumPy."""
    (*_, hessian), found = trained(True)
    damping, promised, before = 0.5, 0.0, None
    for index, (_, state, value, grads, updates) in enumerate(found):
        if index % 2 == 0:
            if index:
                ratio = (float(value) - before) / promised
                np.testing.assert_allclose(float(state.reduction_ratio), ratio, rtol=1e-4)
                assert ratio > 0.75  # of a quadratic loss, with damping in the model
                damping *= 0.8**2
            promised, before = 0.0, float(value)
        np.testing.assert_allclose(float(state.adapted_damping), damping, rtol=1e-6)
        B, step = hessian + damping * np.eye(len(hessian)), -flat(updates)
        promised += step @ B @ step / 2 - flat(grads) @ step


@pytest.mark.parametrize(
    ("losses", "powers"),
    [
        ([5.0, 5.0, 5.0], [0, 1, 2]),  # nothing came of it
        ([5.0, 9.0, np.nan], [0, 1, 2]),
        ([5.0, -9e9, -9e19], [0, -1, -2]),
    ],
)
def test_poor_and_good_steps(losses, powers):
    params, loss_fn, layers, batch, _ = quadratic()
    tx = levenberg_marquardt(RULE, layers, adapt_every=1, decay=0.5)
    state = tx.init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    for loss, power in zip(losses, powers, strict=True):
        _, grads, curvature = grad_fn(params, *batch, opt_state=state)
        _, state = tx.update(grads, state, params, curvature=curvature, value=loss)
        assert float(state.adapted_damping) == 2.0**power


def test_an_exact_product_and_a_small_damping_solve_least_squares():
    params, loss_fn, layers, batch, _ = quadratic()
    tx = levenberg_marquardt(RULE, layers, damping=1e-8, decay=1)
    slope = jax.grad(loss_fn)
    product = lambda v: jax.jvp(lambda p: slope(p, *batch), (params,), (v,))[1]
    new, ((_, state, *_),) = train(tx, params, loss_fn, layers, batch, 1, product=product)
    np.testing.assert_allclose(float(state.step_size), 1, rtol=1e-3)
    assert np.abs(flat(jax.grad(loss_fn)(new, *batch))).max() < 1e-3


def test_trains_beside_another_optimizer():
    """Of the parameters of no layer, which have an optimizer of their own; with few numbers lost
    when a gradient is not finite."""
    params, layers, x, y = problem()
    with pytest.raises(ValueError, match=r"'norm/bias', 'norm/scale'.*are of no layer"):
        levenberg_marquardt(RULE, layers).init(params)
    fallback = optax.adamw(0.01)
    tx = levenberg_marquardt(RULE, layers, damping=0.1, fallback=fallback, refresh_every=2)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jit
    def step(params, state, scale):
        value, grads, curvature = grad_fn(params, x, y, opt_state=state)
        grads = jax.tree.map(lambda g: g * scale, grads)
        updates, state = tx.update(grads, state, params, curvature=curvature, value=value)
        return updates, state, value

    state = tx.init(params)
    first, _, start = step(params, state, 1.0)
    grads = jax.grad(loss_fn)(params, x, y)
    want, _ = fallback.update(grads["norm"], fallback.init(params["norm"]), params["norm"])
    assert_close(first["norm"], want, rtol=1e-6, atol=1e-12)
    now = params
    for _ in range(8):
        updates, state, value = step(now, state, 1.0)
        now = optax.apply_updates(now, updates)
    assert value < 0.8 * start
    _, after, _ = step(now, state, jnp.nan)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.last_step))
    assert_close(after.last_step, state.last_step)
    assert step._cache_size() == 1


def test_errors():
    params, layers, *_ = problem()
    with pytest.raises(ValueError, match="must have damping_mode='absolute'"):
        levenberg_marquardt(KFAC(), layers)
    with pytest.raises(TypeError, match="`rule` must be"):
        levenberg_marquardt(KFAC, layers)
    with pytest.raises(TypeError, match="no option `update_rms`"):
        levenberg_marquardt(RULE, layers, update_rms=0.8)
    for option in ({"damping": 0.0}, {"decay": 1.5}, {"adapt_every": 0}, {"largest_damping": 0.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(option))}` must be"):
            levenberg_marquardt(RULE, layers, **option)
    tx = levenberg_marquardt(RULE, layers, fallback=optax.sgd(0.1))
    with pytest.raises(ValueError, match="got no `value`"):
        tx.update(params, tx.init(params), params)
    scale = singd_optax.scale_by_mkor(layers)
    with pytest.raises(NotImplementedError, match="keeps no curvature"):
        curvature_product(MKOR(), layers, scale.init(params), params)
