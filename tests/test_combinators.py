"""Rules around rules: gates of refreshes, and mixtures with the gradient."""

import pickle

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import assert_close, assert_equal, make_step, problem

import singd_optax
from singd_optax.layers import rule_states
from singd_optax.optimizers import EKFAC, IKFAC, KFAC, SINGD, SOAP, InverseFreeShampoo, Shampoo
from singd_optax.rules import Gated, Mixed, Polar
from singd_optax.testing._rule_problem import (
    Setup,
    Step,
    directions_of,
    gradients_of,
    layers_of,
    params_of,
    step_of,
    steps_of,
)
from singd_optax.training import check_opt_state
from singd_optax.transforms import kld_correction, scale_by_rule


def scaled(step, factor):
    return Step(step.gradient * factor, step.inputs * factor, step.output_gradients)


def refreshes(rule, factors):
    """In which steps each layer was refreshed, for inputs of these sizes."""
    (first,) = (steps_of(0, 1)["single"],)
    step, init = step_of(rule, layers_of(Setup("dense")))
    state, found = init(params_of(Setup("dense"))), []
    stack = steps_of(0, 1)["stack"]
    for index, factor in enumerate(factors):
        now = {"single": scaled(first[0], factor), "stack": stack[0]}
        before = state.rule_states["single"].averaged
        _, state = jax.jit(step)(gradients_of(now, "float64"), state, now)
        if int(state.rule_states["single"].averaged) > int(before):
            found.append(index)
    assert all(int(jnp.sum(count)) == 0 for count in state.skipped_refreshes.values())
    return found, state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "rule", [SINGD(), IKFAC(), InverseFreeShampoo(cache_products=True), Gated(SINGD())]
)
def test_polar_directions_keep_no_products(rule):
    """They whiten with K and C themselves; the products are of natural directions."""
    (view, *_) = layers_of(Setup("dense")).values()
    assert rule.init(view).product_K is not None
    kept = Polar(rule).init(view)
    assert kept.product_K is None
    assert kept.product_C is None


@pytest.mark.usefixtures("x64")
def test_a_gate_opens_where_the_trace_has_moved():
    sizes = [1.0, 1.0, 1.01, 1.04, 1.1, 1.1]
    found, state = refreshes(Gated(KFAC(), threshold=0.05), sizes)
    assert found == [0, 3, 4]  # the trace is the square of the size
    np.testing.assert_array_equal(state.rule_states["stack"].averaged, [1, 1])
    assert refreshes(Gated(KFAC(), threshold=0.0), sizes)[0] == list(range(6))


@pytest.mark.usefixtures("x64")
def test_a_gate_stops_for_good():
    found, state = refreshes(Gated(KFAC(), threshold=0.05, stop=0.01), [1.0, 1.1, 1.1, 2.0])
    assert found == [0, 1]
    assert int(state.rule_states["single"].gate_stopped) == 1
    assert refreshes(Gated(KFAC(), stop=1e9), [1.0, 2.0, 3.0])[0] == [0]


@pytest.mark.usefixtures("x64")
def test_each_matrix_of_a_stack_has_its_own_gate():
    steps = steps_of(0, 2)
    first, second = steps["stack"]
    mixed = Step(*(np.stack([a[0], b[1]]) for a, b in zip(first, second, strict=True)))
    now = {"single": steps["single"], "stack": [first, mixed]}
    _, state = directions_of(Gated(KFAC(), threshold=1e-6), Setup("dense"), now)
    np.testing.assert_array_equal(state.rule_states["stack"].averaged, [1, 2])


@pytest.mark.parametrize("rule", [KFAC(inverse_method="eigh"), EKFAC()], ids=repr)
def test_states_of_two_rules_in_one(rule):
    """Trained, pickled, serialized, checked, and looked into, as any other."""
    params, layers, x, y = problem()
    tx = singd_optax.optimizer(0.05, Gated(rule), layers)
    step = make_step(tx, layers, donate_argnums=(0, 1))
    carry = jax.tree.map(jnp.copy, params), tx.init(params)
    values = []
    for _ in range(5):
        *carry, value = step(*carry, x, y)
        values.append(float(value))
    assert values[-1] < values[0]
    assert step._cache_size() == 1
    opt_state = carry[1]
    check_opt_state(opt_state, tx, params)
    assert_equal(pickle.loads(pickle.dumps(opt_state)), opt_state)
    data = flax.serialization.to_bytes(opt_state)
    assert_equal(flax.serialization.from_bytes(tx.init(params), data), opt_state)
    assert set(singd_optax.factors(opt_state)) == set(layers)
    numbers = singd_optax.diagnostics.layer_diagnostics(layers, opt_state)
    assert float(numbers["first"]["norm_gate_trace"]) > 0
    (state,) = rule_states(opt_state)
    assert state.rule_tag.name == f"Gated {type(rule).__name__}"
    with pytest.raises(ValueError, match="not one of this optimizer"):
        check_opt_state(singd_optax.optimizer(0.05, rule, layers).init(params), tx, params)


@pytest.mark.usefixtures("x64")
def test_mixtures():
    steps = steps_of(0, 2)
    run = lambda rule: directions_of(rule, Setup("dense"), steps)[0]["single"]
    own, half = run(KFAC()), run(Mixed(KFAC(), share=0.25))
    for natural, mixed, step in zip(own, half, steps["single"], strict=True):
        plain = step.gradient * np.linalg.norm(natural) / np.linalg.norm(step.gradient)
        np.testing.assert_allclose(mixed, 0.25 * natural + 0.75 * plain, rtol=1e-10)


def test_a_cold_start():
    """Steps along the gradient while the averages fill."""
    params, layers, x, y = problem()
    cold = Mixed(KFAC(), share=lambda count: jnp.where(count < 2, 0.0, 1.0))
    made = [singd_optax.optimizer(0.05, rule, layers) for rule in (cold, Mixed(KFAC(), share=0.0))]
    steps = [make_step(tx, layers) for tx in made]
    states = [(params, tx.init(params)) for tx in made]
    for index in range(3):
        states = [step(*state, x, y)[:2] for step, state in zip(steps, states, strict=True)]
        if index < 2:
            assert_close(states[0][0], states[1][0])
    off = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), states[0][0], states[1][0])
    assert max(jax.tree.leaves(off)) > 1e-4


def test_kld_correction():
    """By its formula, with a schedule; without decay it is nothing; what is NaN is not kept."""
    params, layers, x, y = problem()
    schedule = lambda count: jnp.float32(0.1) / (1 + count)
    tx = kld_correction(schedule, decay=0.5)
    keys = jax.random.split(jax.random.key(0), 3)
    gradients = [jax.tree.map(lambda p, k=k: jax.random.normal(k, p.shape), params) for k in keys]
    state = tx.init(params)
    for count, gradient in enumerate(gradients):
        got, state = jax.jit(tx.update)(gradient, state)
        ratio = 0.5 * (count + 1) / count if count else 0
        old = gradients[count - 1]
        assert_close(got, jax.tree.map(lambda g, o, r=ratio: g - r * o, gradient, old))
    _, after = tx.update(jax.tree.map(lambda g: g * jnp.nan, gradient), state)
    assert_equal(after.last_gradient, state.last_gradient)
    plain = singd_optax.scale_by_kfac(layers)
    made = [
        optax.chain(tx, optax.sgd(0.05))
        for tx in (plain, optax.chain(kld_correction(0.05, decay=0.0), plain))
    ]
    moved = []
    for one in made:
        step, carry = make_step(one, layers), (params, one.init(params))
        for _ in range(2):
            carry = step(*carry, x, y)[:2]
        moved.append(carry[0])
    assert_close(*moved)


def test_errors():
    with pytest.raises(ValueError, match="goes by the statistics"):
        Gated(Shampoo())
    with pytest.raises(TypeError, match="must be a singd_optax"):
        Mixed(KFAC)
    with pytest.raises(ValueError, match="share"):
        Mixed(KFAC(), share=2.0)
    tx = scale_by_rule(Mixed(SOAP()), matrix_axes={"w": "each"})
    with pytest.raises(ValueError, match="must see a matrix as a whole"):
        tx.init({"w": jnp.ones((2, 3, 4))})
