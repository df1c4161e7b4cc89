"""Updates have one size while gradients come, and fade when these vanish."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import ALIASES, GRADIENT_ALIASES, Passing, jit, loss_fn, plain_step, problem

import singd_optax

RATE = 1e-2
RECIPES = ALIASES + GRADIENT_ALIASES


def recipe(name, layers, **options):
    alone = name in GRADIENT_ALIASES
    return getattr(singd_optax, name)(RATE, *(() if alone else (layers,)), **options)


def simulate(steps, momentum=0.85, vanish=20, back=None, size=1.0):
    """Root mean squares of scaled updates, where momentum of gradients of one size vanishes."""
    tx = singd_optax.scale_by_rule(Passing(), momentum=momentum, update_rms=1.0)

    def step(state, count):
        there = (count < vanish) | (count >= (steps if back is None else back))
        draw = jax.random.normal(jax.random.fold_in(jax.random.key(0), count), (4, 5))
        update, state = tx.update({"w": size * there * draw}, state)
        return state, jnp.sqrt(jnp.mean(update["w"] ** 2))

    return np.asarray(
        jit(lambda s: jax.lax.scan(step, s, jnp.arange(steps))[1])(tx.init({"w": jnp.ones((4, 5))}))
    )


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_a_vanished_gradient(size):
    sizes = simulate(400, size=size)
    np.testing.assert_allclose(sizes[:20], 1, rtol=1e-4)
    assert sizes[20:].sum() < 20  # of 280 steps and more at full size
    assert sizes[80:].max() < 1e-3


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95, 0.99])
def test_longer_momentum_takes_as_much_longer(momentum):
    sizes = simulate(2000, momentum=momentum)
    assert sizes[20:].sum() < 3 / (1 - momentum)


def test_a_gradient_that_comes_back():
    """At once at full size, and never above it."""
    sizes = simulate(500, back=400)
    np.testing.assert_allclose(sizes[400:], 1, rtol=1e-4)
    assert sizes.max() < 1.0001


def test_one_huge_update_is_soon_forgotten():
    tx = singd_optax.scale_by_rule(Passing(), update_rms=1.0)
    state = tx.init({"w": jnp.ones((4, 5))})
    sizes = []
    for count in range(300):
        update, state = tx.update({"w": jnp.full((4, 5), 1e4 if count == 50 else 1.0)}, state)
        sizes.append(float(update["w"][0, 0]))
    assert max(sizes) < 1.0001
    assert min(sizes[250:]) > 0.999


def test_an_update_that_is_not_finite_leaves_the_running_size():
    tx = singd_optax.scale_by_rule(Passing(), update_rms=1.0)
    ones = {"w": jnp.ones((3, 2))}
    _, state = tx.update(ones, tx.init(ones))
    for bad in (jnp.nan, jnp.inf):
        update, new = tx.update({"w": ones["w"].at[0, 0].set(bad)}, state)
        assert not np.isfinite(update["w"]).all()
        assert new.size_states["w"] == state.size_states["w"]


def test_layers_of_a_stack_have_sizes_of_their_own():
    tx = singd_optax.scale_by_rule(Passing(), update_rms=1.0, matrix_axes={"w": ((1,), (2,))})
    ones = {"w": jnp.ones((2, 3, 2))}
    state = tx.init(ones)
    half = {"w": jnp.ones((2, 3, 2)).at[0].set(1e-3)}
    _, state = tx.update(ones, state)
    update, state = tx.update(half, state)
    assert state.size_states["w"].shape == (2,)
    assert update["w"][0].max() < 0.1
    np.testing.assert_allclose(update["w"][1], 1, rtol=1e-6)


class Experts(nn.Module):
    """Two experts; `share` says how much of the output is of the first."""

    @nn.compact
    def __call__(self, x, share):
        return share * nn.Dense(4, name="a")(x) + (1 - share) * nn.Dense(4, name="b")(x)


@pytest.mark.parametrize("name", RECIPES)
def test_an_unused_expert_moves_as_far_as_with_adamw(name):
    x = jax.random.normal(jax.random.key(0), (6, 4))
    y = jnp.tanh(x @ jax.random.normal(jax.random.key(5), (4, 4)))
    start = Experts().init(jax.random.key(1), x, 0.5)["params"]

    def expert_loss(params, x, share):
        return jnp.mean((Experts().apply({"params": params}, x, share) - y) ** 2)

    layers = singd_optax.find_layers(expert_loss, start, x, 0.5)

    def moved(tx):
        step = plain_step(tx, layers, expert_loss)
        body = lambda carry, share: (step(*carry, x, share)[:2], None)
        run = jit(lambda carry, shares: jax.lax.scan(body, carry, shares)[0])
        used = run((start, tx.init(start)), jnp.full(50, 0.5))
        after = run(used, jnp.ones(600))
        return max(
            float(jnp.abs(a - b).max())
            for a, b in zip(*(jax.tree.leaves(p[0]["b"]) for p in (after, used)), strict=True)
        )

    assert moved(recipe(name, layers, weight_decay=0.0)) < 5 * moved(optax.adamw(RATE))


@pytest.mark.parametrize("name", RECIPES)
def test_a_loss_of_zero_leaves_a_trained_net(name):
    params, layers, x, y = problem()
    scaled = lambda params, x, y: y[1] * loss_fn(params, x, y[0])
    tx = recipe(name, layers, weight_decay=0.0)
    step = plain_step(tx, layers, scaled)
    body = lambda carry, scale: (step(*carry, x, (y, scale))[:2], None)
    run = jit(lambda carry, scales: jax.lax.scan(body, carry, scales)[0])
    trained = run((params, tx.init(params)), jnp.ones(60))
    after = run(trained, jnp.zeros(600))
    first, last, later = (float(loss_fn(p, x, y)) for p in (params, trained[0], after[0]))
    assert last < 0.9 * first
    assert later < last + 0.2 * (first - last)
