"""Whatever a user does with optax.adamw works with every transformation of the package."""

import functools
import inspect
import pickle

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import (
    ALIASES,
    CURVATURE,
    DEFINED,
    GRADIENT_ALIASES,
    TRANSFORMATIONS,
    VECTORS,
    assert_close,
    assert_equal,
    describe,
    jit,
    loss_fn,
    make_step,
    plain_step,
    problem,
    run,
)

import singd_optax
from singd_optax.layers import RuleState
from singd_optax.training import bind_curvature

everything = pytest.mark.parametrize("name", TRANSFORMATIONS)
#: Without those that are an optimizer's rule alone: their states are looked at, the rest is its.
optimizers = pytest.mark.parametrize(
    "name",
    [
        name
        for name in TRANSFORMATIONS
        if name.removeprefix("scale_by_") not in {*CURVATURE, *GRADIENT_ALIASES}
        or not name.startswith("scale_by_")
    ],
)


def test_everything_is_registered():
    public = {name for name in singd_optax.__all__ if name.startswith("scale_by_")}
    aliases = {
        name
        for name in singd_optax.__all__
        if getattr(getattr(singd_optax, name), "__module__", "").startswith("singd_optax.optim")
    } - public
    assert public | aliases <= set(TRANSFORMATIONS)
    assert aliases == {*ALIASES, *GRADIENT_ALIASES, "optimizer"}


@functools.cache
def reference(name):
    """An optimizer, its jitted step, which donates, and what three steps make."""
    params, layers, x, y = problem()
    tx = TRANSFORMATIONS[name](layers)
    step = make_step(tx, layers, donate_argnums=(0, 1))
    carry = (jax.tree.map(jnp.copy, params), tx.init(params))
    trajectory = []
    for _ in range(3):
        *carry, value = step(*carry, x, y)
        trajectory.append(jax.tree.map(jnp.copy, (*carry, value)))
    return tx, step, trajectory


@everything
def test_state(name):
    """Of constant form, one compilation, pickled, serialized, and known by names of its own."""
    params, *_ = problem()
    tx, step, trajectory = reference(name)
    opt_state = tx.init(params)
    final = trajectory[-1][1]
    assert step._cache_size() == 1
    assert describe(jax.eval_shape(tx.init, params)) == describe(opt_state) == describe(final)
    assert trajectory[-1][2] < trajectory[0][2]
    restored = pickle.loads(pickle.dumps(final))
    assert_equal(restored, final)
    data = flax.serialization.to_bytes(final)
    assert_equal(flax.serialization.from_bytes(opt_state, data), final)

    mapped = optax.tree.map_params(tx, lambda leaf: leaf * 0, final)
    assert jax.tree.structure(mapped) == jax.tree.structure(final)
    for field in set(RuleState._fields) - {"rule_momentum"}:
        assert optax.tree.get(final, field) is not None
    changed = optax.tree.set(final, rule_count=jnp.int32(7))
    assert optax.tree.get(changed, "rule_count") == 7


@optimizers
def test_scan_over_steps_of_an_ensemble(name):
    params, layers, x, y = problem()
    tx, _, trajectory = reference(name)
    step = jax.vmap(plain_step(tx, layers), in_axes=(0, 0, None, None))

    @jit
    def train(members):
        carry = (members, jax.vmap(tx.init)(members))
        return jax.lax.scan(lambda carry, _: (step(*carry, x, y)[:2], None), carry, None, length=3)

    ensemble = jax.tree.map(lambda p: jnp.stack([0.5 * p, p]), params)
    carry, _ = train(ensemble)
    assert_close(jax.tree.map(lambda leaf: leaf[1], carry), trajectory[-1][:2], 2e-3, 1e-4)
    moved = jax.tree.map(lambda leaf: np.ptp(np.asarray(leaf, float), axis=0).max(), carry[1])
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, "float32") for name in ALIASES] + [("singd", "float64")]
)
def test_x64(name, dtype, x64):
    """With 64 bits enabled nothing widens, and float64 params stay so; schedules too."""
    params, layers, x, y = problem.__wrapped__(dtype)
    schedule = lambda count: jnp.asarray(0.05 - 0.001 * count, jnp.float64)
    options = {"damping": schedule, "factor_learning_rate": schedule, "weight_decay": schedule}
    alias = getattr(singd_optax, name)
    legal = inspect.signature(alias).parameters
    tx = alias(schedule, layers, **{key: own for key, own in options.items() if key in legal})
    new_params, opt_state, values = run(tx, layers, params, x, y, 3)
    assert describe(new_params) == describe(params)
    assert values[-1] < values[0]
    if name in VECTORS:
        return
    K, C = singd_optax.factors(opt_state)["first"]
    assert K.dtype == C.dtype == dtype


def reduce_on_plateau(tx):
    return optax.chain(tx, optax.contrib.reduce_on_plateau(patience=1))


#: Wrappers that leave the first step as it is.
NEUTRAL = {
    "chain": lambda tx: optax.chain(optax.identity(), tx),
    "named_chain": lambda tx: optax.named_chain(("only", tx)),
    "partition": lambda tx: optax.partition(
        {"all": tx}, lambda params: jax.tree.map(lambda _: "all", params)
    ),
    "masked": lambda tx: optax.masked(tx, lambda params: jax.tree.map(lambda _: True, params)),
    "masked_prefix": lambda tx: optax.masked(tx, True),
    "freeze": lambda tx: optax.chain(tx, optax.freeze(False)),
    "selective_transform": lambda tx: optax.selective_transform(
        tx, freeze_mask={path: False for path in problem()[0]}
    ),
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, lambda step: step < 9),
    "clip_before": lambda tx: optax.chain(optax.clip_by_global_norm(1e9), tx),
    "clip_after": lambda tx: optax.chain(tx, optax.clip_by_global_norm(1e9)),
    "decay": lambda tx: optax.chain(tx, optax.add_decayed_weights(0.0)),
    "ema": lambda tx: optax.chain(tx, optax.ema(0.9)),
    "reduce_on_plateau": reduce_on_plateau,
    # The last: ema and others around it would move on from what it rejects.
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
}


@pytest.mark.parametrize("wrapper", NEUTRAL)
def test_wrappers(wrapper):
    """One by one, to tell which; all at once below, for every transformation."""
    params, layers, x, y = problem()
    name = "scale_by_singd"
    tx = NEUTRAL[wrapper](TRANSFORMATIONS[name](layers))
    new_params, opt_state, _ = run(tx, layers, params, x, y, 1)
    assert_close(new_params, reference(name)[2][0][0])
    assert set(singd_optax.factors(opt_state)) == {"first", "second"}


@optimizers
def test_every_wrapper_at_once(name):
    """One stack of wrappers around each transformation; one compilation for all of them."""
    params, layers, x, y = problem()
    tx = TRANSFORMATIONS[name](layers)
    for wrapper in NEUTRAL.values():
        tx = wrapper(tx)
    step = make_step(tx, layers)
    new_params, opt_state, _ = step(params, tx.init(params), x, y)
    assert_close(new_params, reference(name)[2][0][0])
    still, after, _ = step(new_params, opt_state, jnp.full_like(x, jnp.nan), y)
    assert describe(after) == describe(opt_state)
    assert_equal(still, new_params)
    for field in RuleState._fields:
        assert_equal(optax.tree.get(after, field), optax.tree.get(opt_state, field))


FROZEN = {
    "partition": lambda tx, frozen: optax.partition(
        {"train": tx, "freeze": optax.set_to_zero()},
        jax.tree.map(lambda is_frozen: "freeze" if is_frozen else "train", frozen),
    ),
    "multi_transform": lambda tx, frozen: optax.multi_transform(
        {True: optax.set_to_zero(), False: tx}, frozen
    ),
    "masked": lambda tx, frozen: optax.chain(
        optax.masked(tx, jax.tree.map(lambda is_frozen: not is_frozen, frozen)),
        optax.freeze(frozen),
    ),
    "selective_transform": lambda tx, frozen: optax.selective_transform(tx, freeze_mask=frozen),
}


@pytest.mark.parametrize("wrapper", FROZEN)
@pytest.mark.parametrize("partial", [False, True])
def test_frozen_and_partial_layers_hold_no_state(wrapper, partial):
    params, layers, x, y = problem()
    names = {"first/bias"} if partial else {"first/bias", "first/kernel"}
    frozen = {
        layer: {leaf: f"{layer}/{leaf}" in names for leaf in content}
        for layer, content in params.items()
    }
    for name in ("singd", "scale_by_singd"):
        tx = FROZEN[wrapper](TRANSFORMATIONS[name](layers), frozen)
        if partial:
            with pytest.warns(UserWarning, match=r"(?s)'first'.*first/bias.*optax\.freeze"):
                new_params, opt_state, values = run(tx, layers, params, x, y)
        else:
            new_params, opt_state, values = run(tx, layers, params, x, y)
        assert set(singd_optax.factors(opt_state)) == {"second"}
        assert_equal(new_params["first"]["bias"], params["first"]["bias"])
        moved = not np.array_equal(new_params["first"]["kernel"], params["first"]["kernel"])
        assert moved == partial
        assert values[-1] < values[0]


def test_freezing_behind_the_optimizer_keeps_the_preconditioner():
    params, layers, x, y = problem()
    mask = jax.tree.map(lambda _: False, params) | {"first": {"kernel": False, "bias": True}}
    tx = optax.chain(TRANSFORMATIONS["singd"](layers), optax.freeze(mask))
    new_params, opt_state, _ = run(tx, layers, params, x, y, 1)
    want = reference("singd")[2][0][0]
    assert set(singd_optax.factors(opt_state)) == {"first", "second"}
    assert_close(new_params["first"]["kernel"], want["first"]["kernel"])
    assert_equal(new_params["first"]["bias"], params["first"]["bias"])


def test_everything_frozen():
    params, layers, *_ = problem()
    tx = optax.masked(TRANSFORMATIONS["scale_by_singd"](layers), False)
    state = tx.init(params)
    updates, _ = tx.update(params, state, params)
    assert_equal(updates, params)
    assert singd_optax.factors(state) == {}


@pytest.mark.parametrize("name", ALIASES + GRADIENT_ALIASES)
def test_injected_hyperparameters_and_schedules(name):
    """Every numeric option can be one, and a step with all of them is that without."""
    params, layers, x, y = problem()
    alias = getattr(singd_optax, name)
    own = {"layers": layers} if name in ALIASES else {}
    defaults = {p.name: p.default for p in inspect.signature(alias).parameters.values()}
    names = set(defaults)
    numeric = {key for key, default in defaults.items() if type(default) in (int, float)}
    static = {"root", "rank", "structures"} & names
    own |= {"eps": 0.03} if "eps" in names else {}
    own |= {"adam_eps": 0.1} if "adam_eps" in names else {}
    own |= DEFINED if name in ("soap", "kl_shampoo", "kl_soap", "splus") else {}
    tx = optax.inject_hyperparams(alias, static_args=static)(learning_rate=0.05, **own)
    step = make_step(tx, layers)
    opt_state = tx.init(params)
    form = describe(opt_state)
    assert numeric - static | {"learning_rate"} <= set(opt_state.hyperparams)
    assert optax.tree.get(opt_state, "learning_rate") == jnp.float32(0.05)
    moved, opt_state, _ = step(params, opt_state, x, y)
    assert_close(moved, reference(name)[2][0][0])
    assert describe(opt_state) == form
    opt_state = optax.tree.set(opt_state, learning_rate=jnp.float32(0))
    still, opt_state, _ = step(moved, opt_state, x, y)
    assert_equal(still, moved)
    assert step._cache_size() == 1

    if name != "singd":
        return
    schedule = optax.join_schedules(
        [optax.constant_schedule(0.05), optax.constant_schedule(0.0)], [1]
    )
    halves = {"weight_decay": schedule, "damping": schedule, "factor_learning_rate": schedule}
    tx = optax.inject_hyperparams(alias)(learning_rate=schedule, layers=layers, **halves)
    injected, *_ = run(tx, layers, params, x, y, 2)
    plain, *_ = run(alias(schedule, layers, **halves), layers, params, x, y, 2)
    assert_close(injected, plain)


def test_conditionally_transform_keeps_the_state():
    params, layers, x, y = problem()
    tx = optax.conditionally_transform(TRANSFORMATIONS["singd"](layers), lambda step: step % 2 == 0)
    _, opt_state, _ = run(tx, layers, params, x, y, 2)
    assert int(optax.tree.get(opt_state, "rule_count")) == 1


def test_schedule_free():
    params, layers, x, y = problem()
    tx = optax.contrib.schedule_free(
        singd_optax.singd(0.05, layers, momentum=0.0), learning_rate=0.05, b1=0.9
    )
    new_params, opt_state, values = run(tx, layers, params, x, y, 5)
    average = optax.contrib.schedule_free_eval_params(opt_state, new_params)
    assert values[-1] < values[0]
    assert loss_fn(average, x, y) < values[0]


@pytest.mark.parametrize("reset_state", [False, True])
def test_lookahead_with_bound_curvature(reset_state):
    params, layers, x, y = problem()
    inner = TRANSFORMATIONS["singd"](layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    def lookahead(curvature=None):
        return optax.lookahead(bind_curvature(inner, curvature), 2, 0.5, reset_state=reset_state)

    @jit
    def step(pair, opt_state):
        value, grads, curvature = grad_fn(pair.fast, x, y, opt_state=opt_state)
        updates, opt_state = lookahead(curvature).update(grads, opt_state, pair)
        return optax.apply_updates(pair, updates), opt_state, value

    pair = optax.LookaheadParams.init_synced(params)
    opt_state = lookahead().init(pair)
    form = describe(opt_state)
    pair, opt_state, _ = step(pair, opt_state)
    want = reference("singd")[2]
    assert_close(pair.fast, want[0][0])
    pair, opt_state, _ = step(pair, opt_state)
    half = jax.tree.map(lambda a, b: (a + b) / 2, params, want[1][0])
    assert_close(pair.fast, half, 1e-3, 1e-5)
    assert describe(opt_state) == form
    assert int(optax.tree.get(opt_state, "rule_count")) == (0 if reset_state else 2)
    assert step._cache_size() == 1


def test_sam_with_bound_curvature():
    params, layers, x, y = problem()
    inner = TRANSFORMATIONS["scale_by_singd"](layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.01))

    def sam(curvature=None):
        return optax.contrib.sam(bind_curvature(inner, curvature), adversary, sync_period=2)

    @jit
    def step(params, opt_state):
        value, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
        updates, opt_state = sam(curvature).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    carry, values = (params, sam().init(params)), []
    for _ in range(6):
        *carry, value = step(*carry)
        values.append(float(value))
    assert values[4] < values[2] < values[0]
    assert int(optax.tree.get(carry[1], "rule_count")) == 3
    assert not any(map(int, optax.tree.get(carry[1], "skipped_refreshes").values()))


def test_wrappers_that_drop_arguments_are_refused_with_the_remedy():
    params, layers, *_ = problem()
    tx = TRANSFORMATIONS["singd"](layers)
    looking = optax.lookahead(tx, 2, 0.5)
    pair = optax.LookaheadParams.init_synced(params)
    with pytest.raises(ValueError, match=r"(?s)curvature.*lookahead.*bind_curvature"):
        looking.update(params, looking.init(pair), pair)
    sam = optax.contrib.sam(tx, optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"(?s)curvature.*sam.*bind_curvature"):
        sam.update(params, sam.init(params), params)


@optimizers
def test_flatten_is_refused_with_the_reason(name):
    params, layers, *_ = problem()
    with pytest.raises(ValueError, match=r"(?s)one array.*optax\.flatten.*leave it out.*fallback"):
        optax.flatten(TRANSFORMATIONS[name](layers)).init(params)


def test_flattened_fallback():
    params, layers, x, y = problem()
    tx = singd_optax.singd(0.05, layers, fallback=optax.flatten(optax.adamw(0.05)))
    new_params, *_ = run(tx, layers, params, x, y, 1)
    assert_close(new_params, reference("singd")[2][0][0], 1e-3, 1e-5)
