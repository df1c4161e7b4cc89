"""The optax face: what users do with optax.adamw works with these."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import Passing

import singd_optax
from singd_optax.layers import RuleState
from singd_optax.measures import Statistics

FEATURES = 6


class Net(nn.Module):
    """Two Dense layers, and parameters that are none."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(name="norm")(x)
        x = nn.tanh(nn.Dense(8, name="first")(x))
        return nn.Dense(3, use_bias=False, name="second")(x)


def loss_fn(params, x, y):
    logits = Net().apply({"params": params}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@pytest.fixture(scope="module")
def problem():
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (64, FEATURES))
    y = jnp.argmax(x @ jax.random.normal(keys[1], (FEATURES, 3)), axis=-1)
    params = Net().init(keys[2], x)["params"]
    layers = singd_optax.find_layers(loss_fn, params, x, y, structures=("dense", "diagonal"))
    return params, layers, x, y


def make_step(tx, layers, **jit_options):
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    def step(params, opt_state, x, y):
        value, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature, unrelated=1)
        return optax.apply_updates(params, updates), opt_state, value

    return jax.jit(step, **jit_options)


def train(tx, layers, params, x, y, steps=30):
    step = make_step(tx, layers)
    opt_state = tx.init(params)
    first = None
    for _ in range(steps):
        params, opt_state, value = step(params, opt_state, x, y)
        first = value if first is None else first
    assert step._cache_size() == 1
    return params, opt_state, float(first), float(value)


def describe(tree):
    return jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def dense(layers):
    return layers.replace("", structures="dense")


TRANSFORMS = {
    "singd": lambda layers: singd_optax.singd(0.05, layers),
    "ingd": lambda layers: singd_optax.ingd(0.05, dense(layers)),
    "ikfac": lambda layers: singd_optax.ikfac(0.05, layers),
    "scale_by_singd": lambda layers: optax.chain(
        singd_optax.scale_by_singd(layers), optax.sgd(0.1)
    ),
    "scale_by_ikfac": lambda layers: optax.chain(
        singd_optax.scale_by_ikfac(layers), optax.sgd(0.1)
    ),
}


def layers_of(name, layers):
    return dense(layers) if name == "ingd" else layers


@pytest.mark.parametrize("name", TRANSFORMS)
def test_trains_with_one_compilation_and_a_constant_state(name, problem):
    params, layers, x, y = problem
    tx = TRANSFORMS[name](layers)
    # Not on to a loss of 0: an empirical Fisher vanishes there, and steps of any size leap.
    _, opt_state, first, last = train(tx, layers_of(name, layers), params, x, y, steps=16)
    assert last < 0.7 * first
    assert describe(tx.init(params)) == describe(opt_state)
    assert describe(jax.eval_shape(tx.init, params)) == describe(opt_state)


def test_two_transformations_share_a_model(problem):
    params, layers, x, y = problem
    tx = optax.chain(
        singd_optax.scale_by_singd(layers.without("second")),
        singd_optax.scale_by_ikfac(layers.without("first")),
        optax.sgd(0.1),
    )
    _, opt_state, first, last = train(tx, layers, params, x, y)
    assert set(singd_optax.factors(opt_state)) == {"first", "second"}
    assert last < first


def test_others_pass_through_and_bias_joins_the_kernel(problem):
    params, layers, x, y = problem
    tx = singd_optax.scale_by_singd(layers, factor_learning_rate=0.3)
    opt_state = tx.init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    _, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
    updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
    jax.tree.map(np.testing.assert_array_equal, updates["norm"], grads["norm"])
    K, C = (factor.to_dense() for factor in singd_optax.factors(opt_state)["first"])
    gradient = jnp.concatenate([grads["first"]["kernel"], grads["first"]["bias"][None]])
    natural = K @ K.T @ gradient @ C @ C.T
    np.testing.assert_allclose(updates["first"]["kernel"], natural[:-1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(updates["first"]["bias"], natural[-1], rtol=1e-4, atol=1e-6)


def test_refreshes_when_due(problem):
    params, layers, x, y = problem
    schedule = singd_optax.refresh_schedule(2, late=3)
    for every, expected in (
        (1, range(12)),
        (3, range(0, 12, 3)),
        (schedule, (0, 1, 2, 3, 4, 6, 9)),
    ):
        tx = singd_optax.scale_by_singd(layers, refresh_every=every)
        step = make_step(tx, layers)
        current, opt_state = params, tx.init(params)
        changed = []
        for i in range(12):
            before = singd_optax.factors(opt_state)["first"].K.to_dense()
            current, opt_state, _ = step(current, opt_state, x, y)
            after = singd_optax.factors(opt_state)["first"].K.to_dense()
            if not np.array_equal(before, after):
                changed.append(i)
        assert changed == list(expected)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, 1e25])
def test_a_bad_statistic_skips_that_layer_only(value, problem):
    params, layers, x, y = problem
    tx = singd_optax.scale_by_singd(layers)
    opt_state = tx.init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    _, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
    # 1e25 for both is finite, but the factors that would come of it are not.
    H_K, H_C, *_ = curvature["first"]
    curvature["first"] = curvature["first"]._replace(H_K=H_K * value, H_C=H_C * value)
    updates, new_state = jax.jit(tx.update)(grads, opt_state, params, curvature=curvature)
    assert {k: int(v) for k, v in new_state.skipped_refreshes.items()} == {
        "first": 1,
        "second": 0,
    }
    old, new = opt_state.rule_states, new_state.rule_states
    jax.tree.map(np.testing.assert_array_equal, new["first"], old["first"])
    assert not np.array_equal(new["second"].K.to_dense(), old["second"].K.to_dense())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((updates, new_state)))


def test_empty_statistics_skip(problem):
    """A layer that the loss did not reach is not moved by statistics of zeros."""
    params, layers, *_ = problem
    tx = singd_optax.scale_by_singd(layers)
    opt_state = tx.init(params)
    curvature = {path: Statistics.zeros(spec) for path, spec in layers.items()}
    _, new_state = tx.update(params, opt_state, params, curvature=curvature)
    jax.tree.map(np.testing.assert_array_equal, new_state.rule_states, opt_state.rule_states)
    assert all(int(count) == 1 for count in new_state.skipped_refreshes.values())


def test_skips_one_layer_of_a_stack():
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.tanh(nn.Dense(4, name="layer")(x)), None

    model = nn.scan(Body, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()
    x = jnp.ones((5, 4))
    params = model.init(jax.random.key(0), x, None)["params"]
    fn = lambda params, x: (model.apply({"params": params}, x, None)[0] ** 2).mean()
    layers = singd_optax.find_layers(fn, params, x)
    tx = singd_optax.scale_by_singd(layers)
    state = tx.init(params)
    _, grads, curvature = singd_optax.value_and_grad(fn, layers)(params, x, opt_state=state)
    poisoned = curvature["layer"].mean_G.at[1].set(jnp.nan)
    curvature["layer"] = curvature["layer"]._replace(mean_G=poisoned)
    _, new_state = tx.update(grads, state, params, curvature=curvature)
    np.testing.assert_array_equal(new_state.skipped_refreshes["layer"], [0, 1, 0])
    moved = np.abs(new_state.rule_states["layer"].K.to_dense() - jnp.eye(5)).max((1, 2)) > 0
    np.testing.assert_array_equal(moved, [True, False, True])


def test_schedules_and_masks(problem):
    params, layers, x, y = problem
    only_kernels = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    for mask in (only_kernels, only_kernels(params)):
        tx = singd_optax.singd(0.0, layers, weight_decay=0.1, mask=mask)
        new_params, *_ = train(tx, layers, params, x, y, steps=2)
        jax.tree.map(np.testing.assert_array_equal, new_params, params)
    decay = optax.linear_schedule(0.1, 0.01, 10)
    options = ("weight_decay", "damping", "factor_learning_rate", "factor_momentum")
    tx = singd_optax.singd(decay, layers, **dict.fromkeys(options, decay))
    _, _, first, last = train(tx, layers, params, x, y, steps=10)
    assert last < first


def test_update_rms(problem):
    params, layers, *_ = problem
    tx = singd_optax.scale_by_rule(Passing(), layers, update_rms=0.2)
    updates = jax.tree.map(lambda p: 1e-6 * (p + 1), params)
    scaled, _ = tx.update(updates, tx.init(params))
    first = jnp.concatenate([scaled["first"]["kernel"].ravel(), scaled["first"]["bias"]])
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(first**2)), 0.2, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, scaled["norm"], updates["norm"])
    zeros, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(zeros))


def test_fallback_gets_exactly_the_rest(problem):
    params, layers, x, y = problem
    tx = singd_optax.singd(0.05, layers, fallback=optax.set_to_zero())
    new_params, *_ = train(tx, layers, params, x, y, steps=3)
    jax.tree.map(np.testing.assert_array_equal, new_params["norm"], params["norm"])
    for path, spec in layers.items():
        for name in spec.shapes:
            leaf = name.rsplit("/", 1)[1]
            assert not np.array_equal(new_params[path][leaf], params[path][leaf])


def test_default_fallback_is_adamw(problem):
    params, layers, *_ = problem
    tx = singd_optax.singd(0.05, layers)
    opt_state = tx.init(params)
    curvature = {path: Statistics.zeros(spec) for path, spec in layers.items()}
    updates, _ = tx.update(params, opt_state, params, curvature=curvature)
    adamw = optax.adamw(0.05)
    expected, _ = adamw.update(params["norm"], adamw.init(params["norm"]), params["norm"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates["norm"], expected
    )


@pytest.mark.parametrize("name", ["singd", "ikfac"])
def test_bfloat16_factors_and_params(name, problem):
    params, layers, x, y = problem
    layers = layers.replace("", factor_dtype=("bfloat16", "float32"))
    tx = getattr(singd_optax, name)(0.05, layers)
    _, opt_state, first, last = train(tx, layers, params, x, y)
    assert last < 0.7 * first
    for K, C in singd_optax.factors(opt_state).values():
        assert (K.dtype, C.dtype) == (jnp.bfloat16, jnp.float32)

    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    x = x.astype(jnp.bfloat16)
    layers = singd_optax.find_layers(loss_fn, low, x, y)
    tx = getattr(singd_optax, name)(0.05, layers)
    new_params, _, first, last = train(tx, layers, low, x, y)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(new_params))
    assert last < first


def test_state_is_found_through_wrappers(problem):
    params, layers, *_ = problem
    opt_state = singd_optax.singd(0.1, layers).init(params)
    found = optax.tree.get(opt_state, "rule_states")
    assert set(found) == set(layers)
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, RuleState))
    assert sum(isinstance(node, RuleState) for node in nodes) == 1
