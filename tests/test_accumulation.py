"""Micro-batches give the gradients and the statistics of the whole batch."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import (
    TRANSFORMATIONS,
    assert_close,
    assert_equal,
    describe,
    jit,
    loss_fn,
    make_step,
    problem,
)

import singd_optax
from singd_optax.training import MultiSteps, microbatch

PARTS = 4


class Tokens(nn.Module):
    """A tied embedding, whose kernel is also used as its transpose, around a Dense layer."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(7, 4, name="embed")
        return embed.attend(nn.tanh(nn.Dense(4, name="dense")(embed(tokens))))


def token_loss(average, params, tokens):
    logits = Tokens().apply({"params": params}, tokens)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, ::-1])
    return {"batch+sequence": losses.mean, "batch": losses.sum(1).mean, None: losses.sum}[average]()


@pytest.mark.parametrize(
    ("average", "kfac_approx"),
    [("batch", "reduce"), ("batch+sequence", "expand"), (None, "expand")],
)
def test_microbatch_is_the_whole_batch(average, kfac_approx, x64):
    loss = functools.partial(token_loss, average)
    tokens = jax.random.randint(jax.random.key(0), (8, 5), 0, 7)
    params = Tokens().init(jax.random.key(1), tokens)["params"]
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    layers = singd_optax.find_layers(
        loss, params, tokens, kfac_approx=kfac_approx, loss_average=average
    )
    assert set(layers) == {"embed", "dense"}
    tx = singd_optax.scale_by_singd(layers, factor_learning_rate=0.1)
    opt_state = tx.init(params)
    plain_fn = singd_optax.value_and_grad(loss, layers)
    grad_fn = jit(plain_fn)
    micro_fn = jit(microbatch(plain_fn, layers, 2))
    update = jit(tx.update)
    # Whitened with factors that are not I.
    _, grads, curvature = grad_fn(params, tokens, opt_state=opt_state)
    _, opt_state = update(grads, opt_state, params, curvature=curvature)
    whole = grad_fn(params, tokens, opt_state=opt_state)
    parts = micro_fn(params, tokens, opt_state=opt_state)
    assert describe(parts) == describe(whole)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(whole))
    assert_close(parts, whole, 1e-10, 1e-12)

    multi = MultiSteps(tx, PARTS, layers)
    multi_update = jit(multi.update)
    state = multi.init(params)._replace(
        multi_steps=multi.init(params).multi_steps._replace(inner_opt_state=opt_state)
    )
    for part in jnp.split(tokens, PARTS):
        _, grads, curvature = grad_fn(params, part, opt_state=state)
        updates, state = multi_update(grads, state, params, curvature=curvature)
    want = update(whole[1], opt_state, params, curvature=whole[2])
    if average is not None:  # The accumulator of gradients is float32, as optax's.
        assert_close(updates, want[0], 1e-5, 1e-7)
    assert_close(state.multi_steps.inner_opt_state, want[1], 1e-10, 1e-12)
    assert bool(multi.has_updated(state))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.accumulated_curvature))


def test_microbatch_options():
    """Several batched arguments, aux, bfloat16 gradients, steps without statistics."""
    params, layers, x, y = problem()
    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    layers = singd_optax.find_layers(loss_fn, low, x, y, structures="dense")

    def with_aux(params, x, y):
        return loss_fn(params, x, y), {"mean": x.mean(), "rows": x}

    tx = singd_optax.singd(0.1, layers, refresh_every=2)
    grad_fn = singd_optax.value_and_grad(with_aux, layers, has_aux=True)
    kinds = optax.microbatching.AccumulationType
    micro_fn = microbatch(
        grad_fn,
        layers,
        8,
        argnums=(1, 2),
        has_aux=True,
        aux={"mean": kinds.MEAN, "rows": kinds.CONCAT},
    )
    opt_state = tx.init(low)
    (_, aux), grads, curvature = micro_fn(low, x, y, opt_state=opt_state)
    assert_close(aux, {"mean": x.mean(), "rows": x})
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("bfloat16")}
    _, opt_state = tx.update(grads, opt_state, low, curvature=curvature)
    _, _, curvature = micro_fn(low, x, y, opt_state=opt_state)
    measured = [statistics._replace(measured_at=None) for statistics in curvature.values()]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(measured))
    with pytest.raises(ValueError, match="divisible"):
        microbatch(grad_fn, layers, 5)(low, x, opt_state=opt_state)
    with pytest.raises(TypeError, match="microbatch_size"):
        microbatch(grad_fn, layers, 2.5)
    mixed = layers.replace("first", loss_average=None)
    with pytest.raises(ValueError, match="loss_average by find_layers"):
        microbatch(grad_fn, mixed, 8)
    with pytest.raises(ValueError, match="loss_average by find_layers"):
        MultiSteps(tx, 2, mixed)


def test_multi_steps_trains_as_full_batches_and_skips_what_is_not_finite():
    params, layers, x, y = problem()
    inner = TRANSFORMATIONS["scale_by_singd"](layers)
    full, want = make_step(inner, layers), (params, inner.init(params))
    multi = MultiSteps(inner, PARTS, layers, should_skip_update_fn=optax.skip_not_finite)
    tx = optax.chain(multi.gradient_transformation())
    step = make_step(tx, layers)
    got = (params, tx.init(params))
    form = describe(got)
    for _ in range(2):
        for index, (a, b) in enumerate(zip(jnp.split(x, PARTS), jnp.split(y, PARTS), strict=True)):
            if index == 2:
                *after, _ = step(*got, jnp.full_like(a, jnp.nan), b)
                assert_equal(after[0], got[0])
                for field in ("accumulated_curvature", "mini_step", "acc_grads", "rule_states"):
                    new, old = (optax.tree.get(state, field) for state in (after[1], got[1]))
                    assert_equal(new, old)
                assert int(optax.tree.get(got[1], "mini_step")) == 2
                got = after
            *got, _ = step(*got, a, b)
        *want, _ = full(*want, x, y)
        assert_close(got[0], want[0], 1e-3, 1e-5)
        assert_close(singd_optax.factors(got[1]), singd_optax.factors(want[1]))
        skipped = optax.tree.get(got[1], "skipped_refreshes")
        assert not any(int(value) for value in skipped.values())
    assert describe(tuple(got)) == form
    assert step._cache_size() == 1


def test_optax_multi_steps_is_refused():
    params, layers, x, y = problem()
    inner = TRANSFORMATIONS["singd"](layers)
    tx = optax.chain(optax.MultiSteps(inner, PARTS).gradient_transformation())
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    with pytest.raises(ValueError, match=r"(?s)MultiSteps.*last.*training\.MultiSteps.*microbatch"):
        grad_fn(params, x, y, opt_state=tx.init(params))
    ours = MultiSteps(inner, PARTS, layers)
    with pytest.raises(ValueError, match="`curvature`"):
        ours.update(params, ours.init(params), params)
    with pytest.raises(ValueError, match="no statistics for the layers"):
        ours.update(params, ours.init(params), params, curvature={})
