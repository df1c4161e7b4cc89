"""What JAX keeps of one trace of a loss for the next: all that has no layer inside, and no more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import assert_equal

import singd_optax
from singd_optax.capture import position_weights, tag, value_and_grad

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
PARAMS = {"a": jnp.ones((3, 3)), "b": jnp.full((3, 3), 0.5)}


def layer(inputs, kernel):
    return tag(inputs @ kernel, inputs, kernel)


def measured(loss, layers, *args):
    state = singd_optax.scale_by_singd(layers).init(PARAMS)
    return value_and_grad(loss, layers)(PARAMS, *args, opt_state=state)


def test_what_has_no_layer_is_traced_once():
    """In the first trace that looks for calls; those that measure, and later steps, know it."""
    traced = []

    @jax.jit
    def activation(x):
        traced.append("activation")
        return jnp.tanh(x)

    def loss(params, x):
        return jnp.sum(layer(activation(layer(x, params["a"])), params["b"]) ** 2)

    layers = singd_optax.find_layers(loss, PARAMS, X)
    first = measured(loss, layers, X)
    assert_equal(measured(loss, layers, X), first)
    assert len(traced) == 1


def test_what_has_a_layer_is_traced_by_each():
    """Also where another loss, without layers in inner programs, came between."""
    traced = []
    activation = jax.jit(jnp.tanh)

    @jax.jit
    def inner(x, kernel):
        traced.append("inner")
        return layer(x, kernel)

    def plain(params, x):
        return jnp.sum(layer(activation(layer(x, params["a"])), params["b"]) ** 2)

    def loss(params, x):
        return jnp.sum(inner(activation(inner(x, params["a"])), params["b"]) ** 2)

    layers = singd_optax.find_layers(plain, PARAMS, X)
    assert set(layers) == {"a", "b"}
    want = measured(plain, layers, X)
    loss(PARAMS, X)  # known without a session
    for _ in range(2):
        before = len(traced)
        assert set(singd_optax.find_layers(loss, PARAMS, X)) == {"a", "b"}
        assert_equal(measured(loss, layers, X)[1:], want[1:])
        assert len(traced) > before
        assert_equal(measured(plain, layers, X), want)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_weights_are_not_those_of_the_call_before(order):
    """One inner jit in one loss, with and without position weights around it."""
    weights = jnp.asarray([1.0, 1, 1, 0, 0, 0])

    def loss_of(call):
        def loss(params, x):
            total = jnp.zeros([])
            for name in order:
                if name == "a":
                    with position_weights(weights):
                        total += jnp.sum(call(x, params[name]) ** 2 * weights[:, None])
                else:
                    total += jnp.sum(call(x, params[name]) ** 2)
            return total

        return loss

    layers = singd_optax.find_layers(loss_of(layer), PARAMS, X)
    for _ in range(2):
        got, want = (measured(loss_of(call), layers, X) for call in (jax.jit(layer), layer))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)
    assert float(got[2]["a"].mean_U) != float(got[2]["b"].mean_U)


def test_a_gradient_inside_of_a_loss_has_a_session_of_its_own():
    """What its inner jit keeps is not the outer one's."""
    call = jax.jit(layer)

    def inner(params, x):
        return jnp.sum(call(x, params["a"]) ** 2)

    layers = singd_optax.find_layers(inner, PARAMS, X)
    state = singd_optax.scale_by_singd(layers).init(PARAMS)

    def loss(params, x):
        value_and_grad(inner, layers)(jax.lax.stop_gradient(params), x, opt_state=state)
        return inner(params, x)

    got, want = (measured(one, layers, X) for one in (loss, inner))
    assert_equal(got, want)
