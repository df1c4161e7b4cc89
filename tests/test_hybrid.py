"""A switch to first order where the loss stalls: decided inside of jit, and for good."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import assert_close, assert_equal, describe, jit, loss_fn, make_step, problem
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import singd_optax
from singd_optax.layers import rule_states
from singd_optax.transforms import hybrid


@functools.cache
def made(threshold, window=2):
    layers = problem()[1]
    tx = hybrid(
        singd_optax.mkor(0.02, layers), optax.adamw(0.01), threshold=threshold, window=window
    )
    return tx, make_step(tx, layers)


def run(tx, step, count):
    params, _, x, y = problem()
    carry, values = (params, tx.init(params)), []
    for _ in range(count):
        *carry, value = step(*carry, x, y)
        values.append(float(value))
    return *carry, values


def test_as_the_one_before_and_as_the_other_after():
    """Means of two losses each; the fourth is the first that can switch."""
    params, layers, x, y = problem()
    tx, step = made(threshold=1e9)
    first = optax.adamw(0.01)
    second = singd_optax.mkor(0.02, layers)
    got, state, _ = run(tx, step, 3)
    want, own, _ = run(second, make_step(second, layers), 3)
    assert int(state.switched) == 0
    assert_close(got, want)
    assert_close(state.second_order, own)
    assert int(state.window_count) == 1
    updates, own = first.update(jax.grad(loss_fn)(got, x, y), first.init(params), got)
    got, state, value = step(got, state, x, y)
    assert int(state.switched) == 1
    assert_close(got, optax.apply_updates(want, updates))
    assert_close(state.first_order, own)
    (of_rule,) = rule_states(state)
    assert int(of_rule.rule_count) == 3
    assert not singd_optax.refresh_due(state)
    after = step(got, state, x, y)
    assert_equal(after[1].second_order, state.second_order)
    assert step._cache_size() == 1
    assert describe(after[1]) == describe(tx.init(params))
    assert value > after[2]


def test_no_switch_while_the_loss_falls():
    tx, step = made(threshold=0.0)
    _, state, values = run(tx, step, 6)
    assert values == sorted(values, reverse=True)
    assert int(state.switched) == 0
    assert int(state.windows) == 3


def decisions(losses, **options):
    """Whether the switch is done after each loss."""
    tx = hybrid(optax.scale(-1.0), optax.scale(-2.0), **options)
    one = {"w": jnp.ones(2)}

    def step(state, loss):
        updates, state = tx.update(one, state, value=loss)
        return state, (state.switched, updates["w"][0], state.window_mean)

    return [np.asarray(x) for x in jax.lax.scan(step, tx.init(one), jnp.asarray(losses))[1]]


def test_the_rule():
    """By NumPy, on losses that fall, stall and fall again, negative ones, and some that are NaN."""
    rng = np.random.default_rng(0)
    for sign in (1.0, -1.0):
        falling = np.concatenate([np.linspace(9, 5, 20), np.full(20, 5.0), np.linspace(5, 1, 20)])
        losses = (falling if sign > 0 else falling - 10) + 0.01 * rng.normal(size=60)
        means = losses.reshape(-1, 5).mean(1)
        falls = (means[:-1] - means[1:]) / np.abs(means[:-1])
        at = 5 * (2 + int(np.argmax(falls < 0.02))) - 1
        switched, factors, _ = decisions(losses, threshold=0.02, window=5)
        np.testing.assert_array_equal(switched, np.arange(60) >= at)
        np.testing.assert_array_equal(factors, np.where(np.arange(60) >= at, -2, -1))
        holes = np.insert(losses, [3, 17, 40], [np.nan, np.inf, np.nan])
        kept = decisions(holes, threshold=0.02, window=5)[0][np.isfinite(holes)]
        np.testing.assert_array_equal(kept, switched)


def test_in_front_of_an_optimizer_that_goes_on():
    """Preconditioned, then not, by one momentum; in a vmap each member decides by itself."""
    params, layers, x, y = problem()
    scale = hybrid(
        singd_optax.scale_by_mkor(layers, grafting="sgd"), optax.identity(), threshold=0.1, window=1
    )
    tx = optax.chain(scale, optax.sgd(0.05, momentum=0.9))
    grads = jax.grad(loss_fn)(params, x, y)
    state = tx.init(params)
    _, _, curvature = singd_optax.value_and_grad(loss_fn, layers)(params, x, y, opt_state=state)

    def twice(second):
        now = state
        for value in (1.0, second):
            updates, now = tx.update(grads, now, params, value=value, curvature=curvature)
        return updates, now[0].switched

    updates, switched = jit(jax.vmap(twice))(jnp.array([0.5, 0.95]))
    assert switched.tolist() == [0, 1]
    first = jax.tree.map(lambda g: -0.05 * g, grads)["second"]["kernel"]
    assert np.abs(updates["second"]["kernel"][1] - 1.9 * first).max() > 1e-4  # has the momentum
    moved = updates["second"]["kernel"][1] - updates["second"]["kernel"][0]
    assert np.abs(moved).max() > 1e-4


def test_on_a_mesh():
    params, layers, x, y = problem()
    axes = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((2,), ("data",), axes, devices=jax.devices()[:2])
    tx, _ = made(threshold=1e9)
    want = run(*made(threshold=1e9), 5)
    with jax.set_mesh(mesh):
        batch = jax.device_put((x, y), NamedSharding(mesh, P("data")))
        carry = jax.device_put((params, tx.init(params)), NamedSharding(mesh, P()))
        step = make_step(tx, layers)
        for _ in range(5):
            *carry, _ = step(*carry, *batch)
    assert int(carry[1].switched) == 1
    assert_close(carry[0], want[0])


def test_errors():
    scale = optax.identity()
    with pytest.raises(TypeError, match=r"`first_order` must be .*optax.identity\(\)"):
        hybrid(scale, None)
    with pytest.raises(TypeError, match=r"`second_order`.*not called"):
        hybrid(optax.sgd, scale)
    with pytest.raises(ValueError, match="threshold"):
        hybrid(scale, scale, threshold=-1.0)
    with pytest.raises(ValueError, match="window"):
        hybrid(scale, scale, window=0)
    tx = hybrid(scale, scale)
    with pytest.raises(ValueError, match="got no `value`"):
        tx.update({}, tx.init({}))
