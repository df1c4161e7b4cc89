"""Mixed precision: what is computed, kept and accumulated in which dtype."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import assert_close, assert_equal, describe, jit, make_step

import singd_optax


class Net(nn.Module):
    dtype: str | None = None

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(6, name="first", dtype=self.dtype)(x))
        return nn.Dense(3, name="second", dtype=self.dtype)(x)


X = jax.random.normal(jax.random.key(0), (48, 5))
Y = jnp.argmax(X @ jax.random.normal(jax.random.key(1), (5, 3)), axis=-1)


def make_loss(dtype=None):
    def loss_fn(params, x, y):
        logits = Net(dtype).apply({"params": params}, x).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return loss_fn


def make_params(dtype="float32"):
    params = Net().init(jax.random.key(2), X)["params"]
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


@pytest.mark.parametrize(
    ("params_dtype", "compute_dtype", "factor_dtype"),
    [
        ("bfloat16", None, "bfloat16"),
        ("float32", "bfloat16", ("bfloat16", "float32")),
        ("float32", "bfloat16", ("float32", "bfloat16")),
        ("float32", "float16", None),
    ],
)
def test_trains(params_dtype, compute_dtype, factor_dtype):
    loss_fn, params = make_loss(compute_dtype), make_params(params_dtype)
    layers = singd_optax.find_layers(loss_fn, params, X, Y, factor_dtype=factor_dtype)
    tx = singd_optax.singd(0.05, layers)
    step, carry = make_step(tx, layers, loss_fn), (params, tx.init(params))
    form = describe(carry)
    values = []
    for _ in range(20):
        *carry, value = step(*carry, X, Y)
        values.append(float(value))
    assert values[-1] < 0.6 * values[0]
    assert describe(tuple(carry)) == form
    pair = factor_dtype if isinstance(factor_dtype, tuple) else (factor_dtype or "float32",) * 2
    for factors in singd_optax.factors(carry[1]).values():
        assert tuple(factor.dtype.name for factor in factors) == pair


def measured(loss_fn, params, **options):
    layers = singd_optax.find_layers(loss_fn, params, X, Y)
    tx = singd_optax.scale_by_singd(layers)
    grad_fn = jit(singd_optax.value_and_grad(loss_fn, layers))
    return grad_fn(params, X, Y, opt_state=tx.init(params), **options), layers, tx


@pytest.mark.parametrize("scale", [2.0**16, 2.0**50])
def test_loss_scale_changes_nothing_in_float32(scale):
    """Also one whose square would not fit into the gradients' products in float32."""
    params = make_params()
    (want, *_), (got, *_) = (
        measured(make_loss(), params, **options) for options in ({}, {"loss_scale": scale})
    )
    assert describe(got) == describe(want)
    assert_close(got, want, 1e-4, 1e-7)


def test_loss_scale_keeps_small_gradients_in_float16():
    """The statistics of gradients below 2^-24, which are 0 in float16, are those of float32."""
    shrink = 1e-6
    scaled_loss = lambda dtype: lambda *args: make_loss(dtype)(*args) * shrink
    params = make_params()
    (_, want_grads, want), *_ = measured(scaled_loss(None), params)
    (_, _, lost), *_ = measured(scaled_loss("float16"), params)
    (_, grads, got), *_ = measured(
        scaled_loss("float16"), params, loss_scale=jnp.float32(2**15 / shrink)
    )
    for path in want:
        for name in ("H_C", "mean_G"):
            a, b, c = (jax.tree.leaves(getattr(tree[path], name))[0] for tree in (got, want, lost))
            np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02 * np.abs(b).max())
            assert np.abs(c - b).max() > 0.1 * np.abs(b).max()
    assert_close(grads, want_grads, 0.05, 2e-9)


def test_loss_scale_with_sampled_labels_and_aux():
    params = make_params()

    def loss_fn(params, x, y):
        logits = singd_optax.tag_distribution(Net().apply({"params": params}, x), "categorical")
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return losses.mean(), logits

    layers = singd_optax.find_layers(loss_fn, params, X, Y)
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = jit(singd_optax.value_and_grad(loss_fn, layers, has_aux=True, fisher="mc"))
    want = grad_fn(params, X, Y, opt_state=state)
    got = grad_fn(params, X, Y, opt_state=state, loss_scale=1024.0)
    assert_close(got, want, 1e-4, 1e-7)


def test_an_overflow_skips_the_step_and_leaves_the_state():
    """float16 with a dynamic loss scale, as it is used."""
    loss_fn, params = make_loss("float16"), make_params()
    layers = singd_optax.find_layers(loss_fn, params, X, Y)
    tx = optax.apply_if_finite(singd_optax.singd(0.05, layers), 10)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jit
    def step(params, opt_state, scale):
        _, grads, curvature = grad_fn(params, X, Y, opt_state=opt_state, loss_scale=scale)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
        finite = opt_state.last_finite
        return optax.apply_updates(params, updates), opt_state, jnp.where(finite, 2, 0.5) * scale

    carry = (params, tx.init(params), jnp.float32(2**20))
    skipped = 0
    for _ in range(40):
        before, carry = carry, step(*carry)
        if not carry[1].last_finite:
            skipped += 1
            assert_equal(carry[0], before[0])
            assert_equal(carry[1].inner_state, before[1].inner_state)
    assert 1 <= skipped <= 25
    assert loss_fn(carry[0], X, Y) < 0.75 * loss_fn(params, X, Y)
    # Without apply_if_finite the refresh alone is skipped, and counted.
    (_, grads, curvature), _, tx = measured(loss_fn, params, loss_scale=2.0**30)
    state = tx.init(params)
    _, after = tx.update(grads, state, params, curvature=curvature)
    assert_equal(after.rule_states, state.rule_states)
    assert [int(count) for count in after.skipped_refreshes.values()] == [1, 1]


@pytest.mark.parametrize(
    ("value", "error"), [(0.0, ValueError), (float("nan"), ValueError), ("dynamic", TypeError)]
)
def test_bad_loss_scale(value, error):
    params = make_params()
    layers = singd_optax.find_layers(make_loss(), params, X, Y)
    state = singd_optax.scale_by_singd(layers).init(params)
    with pytest.raises(error, match="`loss_scale`"):
        singd_optax.value_and_grad(make_loss(), layers)(
            params, X, Y, opt_state=state, loss_scale=value
        )
