"""Updates have one size while gradients come, and fade when these vanish."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import ALIASES, GRADIENT_ALIASES, Passing, jit, plain_step

import singd_optax

RATE = 1e-2
RECIPES = ALIASES + GRADIENT_ALIASES


def recipe(name, layers, **options):
    alone = name in GRADIENT_ALIASES
    return getattr(singd_optax, name)(RATE, *(() if alone else (layers,)), **options)


@functools.cache
def simulation(momentum):
    """A compiled function (lengths of gradients) -> root mean squares of scaled updates."""
    tx = singd_optax.scale_by_rule(Passing(), momentum=momentum, update_rms=1.0)

    def step(state, now):
        count, length = now
        draw = jax.random.normal(jax.random.fold_in(jax.random.key(0), count), (4, 5))
        update, state = tx.update({"w": length * draw}, state)
        return state, jnp.sqrt(jnp.mean(update["w"] ** 2))

    start = tx.init({"w": jnp.ones((4, 5))})
    return jit(lambda lengths: jax.lax.scan(step, start, (jnp.arange(len(lengths)), lengths))[1])


def simulate(steps, momentum=0.85, vanish=20, back=None, size=1.0):
    """The same, where momentum of gradients of one size vanishes, and may come back."""
    count = np.arange(2000)
    there = (count < vanish) | (count >= (len(count) if back is None else back))
    return np.asarray(simulation(momentum)(np.float32(size) * there.astype(np.float32)))[:steps]


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

    def step(state, length):
        update, state = tx.update({"w": jnp.full((4, 5), length)}, state)
        return state, update["w"][0, 0]

    sizes = jit(lambda lengths: jax.lax.scan(step, state, lengths)[1])(
        jnp.ones(300).at[50].set(1e4)
    )
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


def expert_loss(params, x, now):
    """The first number says how large the loss is, the second what `share` is."""
    y = jnp.tanh(x @ jax.random.normal(jax.random.key(5), (4, 4)))
    return now[0] * jnp.mean((Experts().apply({"params": params}, x, now[1]) - y) ** 2)


jit_loss = jit(expert_loss)


@functools.cache
def experts():
    """Inputs, parameters, layers."""
    x = jax.random.normal(jax.random.key(0), (6, 4))
    start = Experts().init(jax.random.key(1), x, 0.5)["params"]
    return x, start, singd_optax.find_layers(expert_loss, start, x, jnp.ones(2))


@functools.cache
def run_of(name):
    """The first parameters and state, and fifty compiled steps at a size of the loss, a share."""
    x, start, layers = experts()
    tx = optax.adamw(RATE) if name == "adamw" else recipe(name, layers, weight_decay=0.0)
    step = plain_step(tx, layers, expert_loss)
    body = lambda carry, now: (step(*carry, x, now)[:2], None)
    run = jit(lambda carry, now: jax.lax.scan(body, carry, jnp.tile(now, (50, 1)))[0])
    return (start, tx.init(start)), run


def moved(name):
    """How far an expert goes in 600 steps, after 50 in which it was used."""
    first, run = run_of(name)
    used = after = run(first, jnp.array([1.0, 0.5]))
    for _ in range(12):
        after = run(after, jnp.array([1.0, 1.0]))
    pairs = zip(*(jax.tree.leaves(p[0]["b"]) for p in (after, used)), strict=True)
    return max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in pairs)


@pytest.mark.parametrize("name", RECIPES)
def test_no_gradient_no_update(name):
    """An unused expert moves as far as with AdamW, and a loss of zero leaves a trained net."""
    assert moved(name) < 5 * moved("adamw")

    first, run = run_of(name)
    now = jnp.array([1.0, 0.5])
    trained = after = run(first, now)
    for _ in range(12):
        after = run(after, now * jnp.array([0.0, 1.0]))
    losses = [float(jit_loss(p[0], experts()[0], now)) for p in (first, trained, after)]
    assert losses[1] < 0.9 * losses[0]
    assert losses[2] < losses[1] + 0.2 * (losses[0] - losses[1])
