"""flax's TrainState and nnx.Optimizer."""

import functools

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import (
    TRANSFORMATIONS,
    Net,
    assert_close,
    assert_equal,
    describe,
    jit,
    loss_fn,
    make_step,
    problem,
)
from flax import nnx
from flax.training import train_state

import singd_optax
from singd_optax.capture._nnx_program import as_pure
from singd_optax.measures import Statistics, is_stale
from singd_optax.training import TrainState, train_step


def test_train_state():
    params, layers, x, y = problem()
    tx = TRANSFORMATIONS["scale_by_singd"](layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    state = TrainState.create(apply_fn=Net().apply, params=params, tx=tx)
    step = jit(functools.partial(train_step, grad_fn))
    plain, want = make_step(tx, layers), (params, tx.init(params))
    for _ in range(2):
        state, value = step(state, x, y)
        *want, want_value = plain(*want, x, y)
    assert_close((state.params, state.opt_state, value), (*want, want_value), 1e-3, 1e-5)
    assert int(state.step) == 2
    assert state.tx is tx
    restored = flax.serialization.from_bytes(state, flax.serialization.to_bytes(state))
    assert_equal(restored, state)


def test_train_state_forwards_other_arguments_and_fields():
    class MyState(TrainState):
        batches: int = 0

    params, layers, x, y = problem()
    tx = optax.chain(
        TRANSFORMATIONS["scale_by_singd"](layers), optax.contrib.reduce_on_plateau(patience=1)
    )
    state = MyState.create(apply_fn=Net().apply, params=params, tx=tx)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    value, grads, curvature = grad_fn(state.params, x, y, opt_state=state.opt_state)
    state = state.apply_gradients(
        grads=grads, curvature=curvature, extra_args={"value": value}, batches=5
    )
    assert isinstance(state, MyState)
    assert state.batches == 5
    np.testing.assert_allclose(optax.tree.get(state.opt_state, "best_value"), value, rtol=1e-6)


def test_stock_train_state_is_told_the_remedy():
    params, layers, x, y = problem()
    tx = TRANSFORMATIONS["singd"](layers)
    stock = train_state.TrainState.create(apply_fn=Net().apply, params=params, tx=tx)
    with pytest.raises(ValueError, match=r"(?s)TrainState.*singd_optax\.training\.TrainState"):
        stock.apply_gradients(grads=params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    with pytest.raises(TypeError, match=r"(?s)singd_optax\.training\.TrainState.*flax\.training"):
        train_step(grad_fn, stock, x, y)
    ours = TrainState.create(apply_fn=Net().apply, params=params, tx=tx)
    with pytest.raises(ValueError, match="curvature=curvature"):
        ours.apply_gradients(grads=params)


@pytest.mark.parametrize("kind", [nnx.Optimizer, nnx.ModelAndOptimizer])
def test_nnx_optimizers_forward_curvature(kind):
    """With the Linen model's parameters under the same names, they do what a plain loop does."""
    params, layers, x, y = problem()

    class Part(nnx.Module):
        def __init__(self, content):
            for name, value in content.items():
                setattr(self, name, nnx.Param(jnp.copy(value)))

    class Model(nnx.Module):
        def __init__(self):
            for name, content in params.items():
                setattr(self, name, Part(content))

    model = Model()
    tx = TRANSFORMATIONS["scale_by_singd"](layers)
    optimizer = kind(model, tx, wrt=nnx.Param)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @nnx.jit
    def update(model, optimizer, grads, curvature):
        arguments = (grads,) if kind is nnx.ModelAndOptimizer else (model, grads)
        optimizer.update(*arguments, curvature=curvature)

    want = (params, tx.init(params))
    step = make_step(tx, layers)
    for _ in range(2):
        _, grads, curvature = jit(grad_fn)(want[0], x, y, opt_state=want[1])
        like = nnx.state(model, nnx.Param)
        nnx.replace_by_pure_dict(like, grads)
        update(model, optimizer, like, curvature)
        *want, _ = step(*want, x, y)
    got = as_pure(nnx.state(model, nnx.Param))
    assert_close(nnx.to_pure_dict(got), want[0], 1e-3, 1e-5)
    state = as_pure(optimizer.opt_state)
    assert_close(
        singd_optax.factors(state)["first"], singd_optax.factors(want[1])["first"], 1e-3, 1e-5
    )


def test_curvature_is_a_dict_that_says_its_step():
    params, layers, x, y = problem()
    state = TRANSFORMATIONS["scale_by_singd"](layers).init(params)
    state = optax.tree.set(state, rule_count=jnp.int32(2))
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    curvature = jit(grad_fn)(params, x, y, opt_state=state)[2]
    assert type(curvature) is dict
    again = jax.tree.map(lambda leaf: leaf, curvature)
    assert all(isinstance(statistics, Statistics) for statistics in again.values())
    assert describe(again) == describe(curvature)
    # Sums and scalings of whole trees do not look like an earlier step.
    for changed in (
        jax.tree.map(jnp.add, curvature, curvature),
        jax.tree.map(lambda leaf: leaf / 2, curvature),
        {path: Statistics.zeros(spec) for path, spec in layers.items()},
    ):
        assert not is_stale(changed["first"], jnp.int32(2))
    assert is_stale(curvature["first"], jnp.int32(3))
