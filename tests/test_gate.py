"""Where a step decides whether it forms statistics: behind each layer, once, or not at all."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import singd_optax
from singd_optax.layers import rule_states
from singd_optax.training import MultiSteps, TrainState, microbatch, train_step


def problem():
    net = nn.Sequential([nn.Dense(6), nn.tanh, nn.Dense(6), nn.tanh, nn.Dense(3)])
    x = jax.random.normal(jax.random.key(0), (32, 6))
    y = jnp.arange(32) % 3
    params = net.init(jax.random.key(1), x)

    def loss_fn(params, x, y):
        logits = singd_optax.tag_distribution(net.apply(params, x), "categorical")
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), logits

    layers = singd_optax.find_layers(loss_fn, params, x, y)
    return loss_fn, layers, params, x, y


def step_of(grad_fn, tx):
    def step(params, opt_state, x, y, refresh=None, loss_scale=None):
        value, grads, curvature = grad_fn(
            params, x, y, opt_state=opt_state, refresh=refresh, loss_scale=loss_scale
        )
        updates, opt_state = tx.update(
            grads, opt_state, params, curvature=curvature, refresh=refresh
        )
        return optax.apply_updates(params, updates), opt_state, value[0]

    return jax.jit(step, static_argnames="refresh")


def branches(step, *args, **static):
    jaxpr = str(step.trace(*args, **static).jaxpr)
    return jaxpr.count(" cond[")


@pytest.mark.parametrize("fisher", ["empirical", "mc"])
@pytest.mark.parametrize("loss_scale", [None, 128.0])
def test_trajectories(fisher, loss_scale):
    loss_fn, layers, params, x, y = problem()
    tx = singd_optax.singd(0.02, layers, refresh_every=3)
    results, counts = {}, {}
    for gate in ("taps", "top", "static"):
        own = None if gate == "static" else gate
        grad_fn = singd_optax.value_and_grad(loss_fn, layers, has_aux=True, fisher=fisher, gate=own)
        step = step_of(grad_fn, tx)
        trained, opt_state, values = params, tx.init(params), []
        for index in range(7):
            due = singd_optax.refresh_due(opt_state)
            assert bool(due) == (index % 3 == 0)
            refresh = bool(due) if gate == "static" else None
            trained, opt_state, value = step(
                trained, opt_state, x, y, refresh=refresh, loss_scale=loss_scale
            )
            values.append(float(value))
        assert step._cache_size() == (2 if gate == "static" else 1)
        results[gate] = trained, opt_state
        if gate == "static":
            counts[gate] = [
                branches(step, params, opt_state, x, y, refresh=r) for r in (True, False)
            ]
        else:
            counts[gate] = branches(step, params, opt_state, x, y)
    assert counts["top"] == 2
    assert counts["static"] == [0, 0]
    # With jax 0.10.0 and before, a layer that is called twice has its branch in the program twice.
    assert counts["taps"] in ({3, 4} if fisher == "empirical" else {4, 6})
    for gate in ("top", "static"):
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        jax.tree.map(close, results[gate], results["taps"])


def test_without_a_refresh_the_gradient_is_that_of_jax():
    loss_fn, layers, params, x, y = problem()
    opt_state = singd_optax.singd(0.02, layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers, has_aux=True)

    def ours(params, x, y):
        value, grads, curvature = grad_fn(params, x, y, opt_state=opt_state, refresh=False)
        assert curvature == {}
        return value, grads

    theirs = jax.value_and_grad(loss_fn, has_aux=True)
    programs = [
        jax.jit(lambda *args, f=f: f(*args)).lower(params, x, y).as_text() for f in (ours, theirs)
    ]
    assert programs[0] == programs[1]


def test_a_step_may_refresh_whatever_the_schedule_says():
    loss_fn, layers, params, x, y = problem()
    tx = singd_optax.singd(0.02, layers, refresh_every=1000)
    step = step_of(singd_optax.value_and_grad(loss_fn, layers, has_aux=True), tx)
    params, opt_state, _ = step(params, tx.init(params), x, y, refresh=False)
    unchanged = singd_optax.factors(opt_state)["params/layers_0"].K.to_dense()
    np.testing.assert_array_equal(unchanged, np.eye(7))
    assert not singd_optax.refresh_due(opt_state)
    _, opt_state, _ = step(params, opt_state, x, y, refresh=True)
    assert (
        abs(singd_optax.factors(opt_state)["params/layers_0"].K.to_dense() - np.eye(7)).max() > 0.1
    )


@pytest.mark.parametrize("refresh", [True, False])
def test_micro_batches(refresh):
    loss_fn, layers, params, x, y = problem()
    tx = singd_optax.singd(0.02, layers)
    opt_state = tx.init(params)
    grad_fn = singd_optax.value_and_grad(lambda *args: loss_fn(*args)[0], layers)
    parts = microbatch(grad_fn, layers, 8, argnums=(1, 2))
    found = [f(params, x, y, opt_state=opt_state, refresh=refresh) for f in (grad_fn, parts)]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    jax.tree.map(close, *found)
    assert set(found[0][2]) == (set(layers) if refresh else set())

    several = MultiSteps(tx, 2, layers)
    state, trained = several.init(params), params
    for half in (slice(0, 16), slice(16, 32)):
        _, grads, curvature = grad_fn(trained, x[half], y[half], opt_state=state, refresh=refresh)
        updates, state = several.update(grads, state, trained, curvature=curvature, refresh=refresh)
        trained = optax.apply_updates(trained, updates)
    updates, _ = tx.update(found[0][1], opt_state, params, curvature=found[0][2], refresh=refresh)
    jax.tree.map(close, trained, optax.apply_updates(params, updates))


def test_rules_of_gradients():
    params = {"w": jnp.ones((4, 3))}
    tx = singd_optax.shampoo(0.1, refresh_every=2)
    update = jax.jit(tx.update, static_argnames="refresh")
    trained, states = [], []
    for static in (False, True):
        state, gradient = tx.init(params), {"w": jnp.arange(12.0).reshape(4, 3) - 5}
        for _ in range(3):
            refresh = bool(singd_optax.refresh_due(state)) if static else None
            updates, state = update(gradient, state, params, refresh=refresh)
        trained.append(updates)
        states.append(state)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), *trained)


def test_nnx():
    model = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (8, 5))
    loss_fn = lambda model, x: jnp.mean(model(x) ** 2)
    layers = singd_optax.nnx.find_layers(loss_fn, model, x)
    grad_fn = singd_optax.nnx.value_and_grad(loss_fn, layers)
    optimizer = nnx.Optimizer(model, singd_optax.singd(1e-2, layers), wrt=nnx.Param)
    assert singd_optax.refresh_due(optimizer.opt_state)
    for refresh in (True, False, None):
        _, grads, curvature = grad_fn(model, x, optimizer=optimizer, refresh=refresh)
        optimizer.update(model, grads, curvature=curvature, refresh=refresh)
    assert int(rule_states(optimizer.opt_state)[0].rule_count) == 3
    want, _ = nnx.value_and_grad(loss_fn)(model, x)
    np.testing.assert_allclose(grad_fn(model, x, optimizer=optimizer, refresh=False)[0], want)


def test_train_state():
    loss_fn, layers, params, x, y = problem()
    grad_fn = singd_optax.value_and_grad(lambda *args: loss_fn(*args)[0], layers)
    state = TrainState.create(apply_fn=None, params=params, tx=singd_optax.singd(0.02, layers))
    assert singd_optax.refresh_due(state.opt_state)
    state, _ = train_step(grad_fn, state, x, y)
    assert int(state.step) == 1


def test_bad_input():
    loss_fn, layers, params, x, y = problem()
    with pytest.raises(ValueError, match="gate"):
        singd_optax.value_and_grad(loss_fn, layers, gate="bottom")
    tx = singd_optax.singd(0.02, layers)
    opt_state = tx.init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers, has_aux=True)
    with pytest.raises(TypeError, match="refresh"):
        grad_fn(params, x, y, opt_state=opt_state, refresh=singd_optax.refresh_due(opt_state))
    _, grads, curvature = grad_fn(params, x, y, opt_state=opt_state, refresh=False)
    with pytest.raises(ValueError, match="refresh=False"):
        tx.update(grads, opt_state, params, curvature=curvature)
    with pytest.raises(TypeError, match="refresh"):
        tx.update(grads, opt_state, params, curvature=curvature, refresh=1)
    with pytest.raises(ValueError, match="another optimizer"):
        singd_optax.refresh_due(optax.adamw(0.1).init(params))
    with pytest.raises(ValueError, match="params"):
        grad_fn({"other": x}, x, y, opt_state=opt_state, refresh=False)
