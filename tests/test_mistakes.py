"""What users get wrong, each with its message. Missing or foreign arguments are in test_errors."""

import functools

import flax.linen as nn
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
    jit,
    loss_fn,
    make_step,
    problem,
)

import singd_optax


def started(name="scale_by_singd", **options):
    params, layers, x, y = problem()
    tx = TRANSFORMATIONS[name](layers)
    return params, layers, x, y, tx, singd_optax.value_and_grad(loss_fn, layers)


def test_curvature_of_the_last_step_is_an_error():
    params, _, x, y, tx, grad_fn = started()
    opt_state = tx.init(params)
    _, grads, old = grad_fn(params, x, y, opt_state=opt_state)
    _, opt_state = tx.update(grads, opt_state, params, curvature=old)
    with pytest.raises(ValueError, match=r"(?s)earlier step.*after 0 updates.*after 1\..*same"):
        tx.update(grads, opt_state, params, curvature=old)
    # grad_fn in a jit of its own, as the optimizer is not.
    jitted = jit(grad_fn)
    _, grads, curvature = jitted(params, x, y, opt_state=opt_state)
    _, after = tx.update(grads, opt_state, params, curvature=curvature)
    with pytest.raises(ValueError, match="earlier step"):
        tx.update(grads, after, params, curvature=curvature)


def test_curvature_of_the_last_step_refreshes_nothing_under_jit():
    """There numbers cannot raise: the refresh is skipped, and counted where metrics show it."""
    params, layers, x, y, tx, grad_fn = started()

    @jit
    def step(params, opt_state, last):
        _, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=last)
        return optax.apply_updates(params, updates), opt_state, curvature

    opt_state = tx.init(params)
    _, _, curvature = grad_fn(params, x, y, opt_state=opt_state)
    params, opt_state, curvature = step(params, opt_state, curvature)
    fresh = singd_optax.factors(opt_state)
    assert not np.array_equal(fresh["first"].K.to_dense(), jnp.eye(6))
    params, opt_state, curvature = step(params, opt_state, curvature)
    assert_equal(singd_optax.factors(opt_state), fresh)
    metrics = singd_optax.diagnostics.metrics(layers, opt_state)
    assert metrics["singd_optax/first/skipped_refreshes"] == 1


def test_forgotten_curvature():
    params, _, x, y, tx, grad_fn = started()
    opt_state = tx.init(params)
    _, grads, _ = grad_fn(params, x, y, opt_state=opt_state)
    with pytest.raises(ValueError, match=r"no `curvature`.*curvature=curvature"):
        tx.update(grads, opt_state, params)
    with pytest.raises(ValueError, match=r"no `curvature`.*curvature=curvature"):
        jax.jit(tx.update)(grads, opt_state, params)


def test_other_layers_for_the_gradient_than_for_the_optimizer():
    params, layers, x, y, tx, _ = started()
    opt_state = tx.init(params)
    for other, words in (
        (layers.without("second"), r"'second', which `layers` have not.*same layers"),
        (layers.replace("first", structures="diagonal"), r"'first'.*Dense.*Diagonal.*same layers"),
        (layers.replace("first", factor_dtype="bfloat16"), r"float32.*bfloat16.*same layers"),
    ):
        grad_fn = singd_optax.value_and_grad(loss_fn, other)
        with pytest.raises(ValueError, match=f"(?s){words}"):
            grad_fn(params, x, y, opt_state=opt_state)
    # The state of the other optimizer, and the curvature that belongs to it.
    fewer = layers.without("second")
    grad_fn = singd_optax.value_and_grad(loss_fn, fewer)
    state = singd_optax.scale_by_singd(fewer).init(params)
    _, grads, curvature = grad_fn(params, x, y, opt_state=state)
    with pytest.raises(ValueError, match=r"no statistics for the layers \['second'\].*same layers"):
        tx.update(grads, opt_state, params, curvature=curvature)


def test_model_changed_after_find_layers():
    params, layers, x, y, tx, _ = started()

    class Deeper(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.LayerNorm(name="norm")(x)
            x = nn.tanh(nn.Dense(4, name="first")(x))
            x = nn.tanh(nn.Dense(4, name="between")(x))
            return nn.Dense(3, use_bias=False, name="second")(x)

    deeper = Deeper().init(jax.random.key(0), x)["params"]
    for name in ("singd", "scale_by_singd"):
        with pytest.warns(UserWarning, match=r"(?s)between/kernel.*call find_layers again"):
            TRANSFORMATIONS[name](layers).init(deeper)

    class Other(nn.Module):
        """The same parameters; the first layer is no longer called as a layer."""

        @nn.compact
        def __call__(self, x):
            x = nn.LayerNorm(name="norm")(x)
            kernel = self.param("first", lambda key: params["first"])["kernel"]
            return nn.Dense(3, use_bias=False, name="second")(nn.tanh(x @ kernel))

    def other_loss(params, x, y):
        return (Other().apply({"params": params}, x) ** 2).mean()

    opt_state = tx.init(params)
    step = make_step(tx, layers, other_loss)
    with pytest.warns(UserWarning, match=r"(?s)\['first'\].*find_layers.*without"):
        _, opt_state, _ = step(params, opt_state, x, y)
    skipped = optax.tree.get(opt_state, "skipped_refreshes")
    assert {path: int(count) for path, count in skipped.items()} == {"first": 1, "second": 0}

    wide = params | {"first": jax.tree.map(lambda leaf: jnp.tile(leaf, 2), params["first"])}
    with pytest.raises(ValueError, match=r"\(5, 8\).*\(5, 4\).*find_layers again"):
        tx.init(wide)
    renamed = {"head" if name == "second" else name: part for name, part in params.items()}
    with pytest.raises(ValueError, match=r"no array at 'second/kernel'.*find_layers again"):
        tx.init(renamed)


def test_whole_dict_of_variables():
    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=True)(nn.Dense(3)(x))

    _, _, x, _ = problem()
    variables = Normed().init(jax.random.key(0), x)
    loss = lambda variables, x: (Normed().apply(variables, x) ** 2).mean()
    message = r"(?s)batch_stats.*variables\['params'\]"
    with pytest.raises(ValueError, match=message):
        singd_optax.find_layers(loss, variables, x)

    def split(params, x):
        return loss({"params": params, "batch_stats": variables["batch_stats"]}, x)

    layers = singd_optax.find_layers(split, variables["params"], x)
    tx = singd_optax.singd(0.1, layers)
    with pytest.raises(ValueError, match=r"(?s)whole dict.*variables\['params'\]"):
        tx.init(variables)
    grad_fn = singd_optax.value_and_grad(split, layers)
    with pytest.raises(ValueError, match=r"(?s)whole dict.*variables\['params'\]"):
        grad_fn(variables, x, opt_state=tx.init(variables["params"]))
    # A dict with params alone is legal, as the README has it.
    only = {"params": variables["params"]}
    assert list(singd_optax.find_layers(lambda p, x: split(p["params"], x), only, x)) == [
        "params/Dense_0"
    ]


def test_jit_inside_of_the_loss_is_never_stale():
    """An inner jit that was traced before, without taps or with other options, is traced anew."""
    params, layers, x, y, *_ = started()
    apply = jax.jit(Net().apply)

    def jitted_loss(params, x, y):
        logits = apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    jitted_loss(params, x, y)
    reduced = layers.replace("", kfac_approx="reduce", structures="diagonal")
    states = {own: singd_optax.scale_by_singd(own).init(params) for own in (layers, reduced)}
    plain = {
        own: jit(singd_optax.value_and_grad(loss_fn, own))(params, x, y, opt_state=state)
        for own, state in states.items()
    }
    for current in (layers, reduced, layers):
        grad_fn = singd_optax.value_and_grad(jitted_loss, current)
        got, want = grad_fn(params, x, y, opt_state=states[current]), plain[current]
        assert_close(got, want, 1e-4, 1e-6)
        assert all(np.any(measured.mean_U) for measured in got[2].values())


def test_donated_twice():
    params, layers, x, y, tx, grad_fn = started()
    params = jax.tree.map(jnp.copy, params)
    opt_state = tx.init(params)
    step = make_step(tx, layers, donate_argnums=(0, 1))
    new_params, new_state, _ = step(params, opt_state, x, y)
    # A jitted function never gets to see the deleted arrays: the message is JAX's.
    with pytest.raises((RuntimeError, ValueError), match=r"(?i)deleted"):
        step(params, opt_state, x, y)
    with pytest.raises(ValueError, match=r"`params` were donated.*step returned"):
        grad_fn(params, x, y, opt_state=new_state)
    with pytest.raises(ValueError, match=r"`opt_state` were donated.*step returned"):
        grad_fn(new_params, x, y, opt_state=opt_state)
    # No buffer is in params and state, nor twice in a state, so that donating both is legal.
    for name in TRANSFORMATIONS:
        tx = TRANSFORMATIONS[name](layers)
        leaves = jax.tree.leaves((new_params, tx.init(new_params)))
        pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves if leaf.size]
        assert len(set(pointers)) == len(pointers)


def test_mistakes_are_seen_through_partial_application():
    """functools.partial and lambdas around the gradient function change nothing."""
    params, _, x, y, tx, grad_fn = started()
    bound = functools.partial(grad_fn, opt_state=tx.init(params))
    value, _, curvature = bound(params, x, y)
    assert np.isfinite(value)
    assert set(curvature) == {"first", "second"}
