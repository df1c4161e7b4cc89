"""The optax face of the gradients-only optimizers."""

import functools
import inspect
import pickle

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import singd_optax
from singd_optax.layers import RuleState
from singd_optax.testing._compile import _known_options

SCALES = {
    "shampoo": singd_optax.scale_by_shampoo,
    "caspr": singd_optax.scale_by_caspr,
    "inverse_free_shampoo": singd_optax.scale_by_inverse_free_shampoo,
    "soap": singd_optax.scale_by_soap,
    "kl_shampoo": singd_optax.scale_by_kl_shampoo,
    "kl_soap": singd_optax.scale_by_kl_soap,
    "psgd_kron": singd_optax.scale_by_psgd_kron,
    "normuon": singd_optax.scale_by_normuon,
    "inverse_free_kl_shampoo": singd_optax.scale_by_inverse_free_kl_shampoo,
    "splus": singd_optax.scale_by_splus,
    "sm3": singd_optax.scale_by_sm3,
    "sketchy": singd_optax.scale_by_sketchy,
    "jorge": singd_optax.scale_by_jorge,
    "tnt": singd_optax.scale_by_tnt,
    "eva_s": singd_optax.scale_by_eva_s,
    "mini_block_fisher": singd_optax.scale_by_mini_block_fisher,
}
ALIASES = {name: getattr(singd_optax, name) for name in SCALES}
TRANSFORMS = {name: lambda make=make: make(0.03) for name, make in ALIASES.items()} | {
    f"scale_by_{name}": lambda make=make: optax.chain(
        make(grafting="adam"), optax.scale_by_learning_rate(0.03)
    )
    for name, make in SCALES.items()
}
ONE_EACH = pytest.mark.parametrize("name", ["shampoo", "scale_by_caspr", "inverse_free_shampoo"])
NAMES = pytest.mark.parametrize("name", SCALES)


def jit(function, **options):
    """Compiles faster, and runs slower."""
    return jax.jit(function, compiler_options=dict(_known_options()), **options)


def loss_fn(params, x, y):
    hidden = jnp.tanh(x @ params["first"]["kernel"] + params["first"]["bias"])
    hidden = jnp.tanh(jnp.einsum("ni,hio->nho", hidden, params["heads"]) * params["scale"])
    logits = jnp.einsum("nho,hoc->nc", hidden, params["out"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@functools.cache
def a_problem():
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(64, 6)), jnp.float32)
    y = jnp.argmax(x @ random.normal(size=(6, 3)), axis=-1)
    shapes = {"heads": (2, 8, 4), "out": (2, 4, 3)}
    params = {name: random.normal(size=shape) / 3 for name, shape in shapes.items()}
    params["first"] = {"kernel": random.normal(size=(6, 8)) / 3, "bias": np.zeros(8)}
    params["scale"] = np.ones(())
    return jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params), x, y


@pytest.fixture
def problem():
    return a_problem()


@functools.cache
def gradients():
    """Those of the first parameters."""
    return jax.grad(loss_fn)(*a_problem())


def make_step(tx, **jit_options):
    def step(params, opt_state, x, y):
        value, grads = jax.value_and_grad(loss_fn)(params, x, y)
        updates, opt_state = tx.update(grads, opt_state, params, unrelated=1)
        return optax.apply_updates(params, updates), opt_state, value

    return jit(step, **jit_options)


def train(tx, params, x, y, steps=30, step=None):
    step, opt_state, values = step or make_step(tx), tx.init(params), []
    for _ in range(steps):
        params, opt_state, value = step(params, opt_state, x, y)
        values.append(value)
    assert step._cache_size() == 1
    return params, opt_state, float(values[0]), float(values[-1])


def describe(tree):
    return jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def assert_close(a, b, rtol=2e-3, atol=1e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), a, b)


@ONE_EACH
def test_contract(name, problem):
    params, x, y = problem
    tx = TRANSFORMS[name]()
    step = make_step(tx)
    _, final_state, first, last = train(tx, params, x, y, step=step)
    assert last < 0.7 * first
    opt_state = tx.init(params)
    assert describe(opt_state) == describe(final_state)
    assert describe(jax.eval_shape(tx.init, params)) == describe(final_state)

    mapped = optax.tree.map_params(tx, lambda leaf: leaf * 0, opt_state)
    assert jax.tree.structure(mapped) == jax.tree.structure(opt_state)

    body = lambda carry, _: (step.__wrapped__(*carry, x, y)[:2], None)
    scanned, _ = jit(lambda carry: jax.lax.scan(body, carry, None, length=30))((params, opt_state))
    assert loss_fn(scanned[0], x, y) < 0.7 * first

    plain = step(params, opt_state, x, y)
    donating = make_step(tx, donate_argnums=(0, 1))
    donated = donating(*jax.tree.map(jnp.copy, (params, opt_state)), x, y)
    assert_close(donated, plain, rtol=1e-4, atol=1e-6)
    for restored in (
        pickle.loads(pickle.dumps(plain[1])),
        flax.serialization.from_bytes(plain[1], flax.serialization.to_bytes(plain[1])),
    ):
        assert jax.tree.structure(restored) == jax.tree.structure(plain[1])
        jax.tree.map(np.testing.assert_array_equal, restored, plain[1])


@pytest.mark.parametrize("name", ["shampoo", "psgd_kron", "inverse_free_shampoo"])
def test_ensemble_of_training_runs_under_vmap(name, problem):
    """Of heads and scalars; for each rule by itself see ``test_contract.py``."""
    params, x, y = problem
    tx = ALIASES[name](0.03)
    members = [jax.tree.map(lambda p, s=s: p * s, params) for s in (0.5, 1.5)]
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    mapped = stack(members), jax.vmap(tx.init)(stack(members))
    step = make_step(tx)
    together = jit(jax.vmap(step.__wrapped__, in_axes=(0, 0, None, None)))
    states = [tx.init(member) for member in members]
    for _ in range(2):
        *mapped, _ = together(*mapped, x, y)
        pairs = [step(*pair, x, y)[:2] for pair in zip(members, states, strict=True)]
        members, states = map(list, zip(*pairs, strict=True))
    assert_close(mapped[0], stack(members))


@NAMES
def test_gradients_that_are_not_finite_change_no_factor(name, problem):
    params, *_ = problem
    tx = SCALES[name](grafting="adam", matrix_axes={"heads": ((1,), (2,))})
    grads = gradients()
    update = jit(tx.update)
    _, state = update(grads, tx.init(params))
    bad = dict(grads, heads=grads["heads"].at[1, 0, 0].set(jnp.inf), out=grads["out"] * jnp.nan)
    _, new = update(bad, state)
    memory = lambda state, path: (
        state.rule_states[path],
        state.size_states[path],
    )
    jax.tree.map(np.testing.assert_array_equal, memory(new, "out"), memory(state, "out"))
    leaves = (jax.tree.leaves(memory(s, "heads")) for s in (new, state))
    pairs = list(zip(*leaves, strict=True))
    for now, before in pairs:
        np.testing.assert_array_equal(now[1], before[1])
    assert any(np.any(now[0] != before[0]) for now, before in pairs)
    counts = {path: count.tolist() for path, count in new.skipped_refreshes.items()}
    assert counts == {"heads": [0, 1], "out": 1, "first/kernel": 0}


@functools.cache
def adamw_updates():
    params, *_ = a_problem()
    tx = optax.adamw(0.05)
    return jit(tx.update)(gradients(), tx.init(params), params)[0]


@NAMES
def test_vectors_pass_through_and_get_adamw_in_the_recipe(name, problem):
    params, *_ = problem
    grads = gradients()
    left_out = SCALES[name](matrix_axes={"out": None})
    recipe = ALIASES[name](0.05, matrix_axes={"out": None})
    still = ALIASES[name](0.05, matrix_axes={"out": None}, fallback=optax.set_to_zero())

    @jit
    def update(grads, params):
        updates, state = left_out.update(grads, left_out.init(params))
        others = (tx.update(grads, tx.init(params), params)[0] for tx in (recipe, still))
        return updates, state, *others

    updates, state, with_adamw, with_zeros = update(grads, params)
    for pick in (lambda t: t["first"]["bias"], lambda t: t["scale"], lambda t: t["out"]):
        np.testing.assert_array_equal(pick(updates), pick(grads))
        assert_close(pick(with_adamw), pick(adamw_updates()), rtol=1e-6, atol=0)
        assert not np.any(pick(with_zeros))
    assert set(state.rule_states) == {"first/kernel", "heads"}
    assert np.any(with_zeros["heads"])


@NAMES
def test_schedules(name, problem):
    params, x, y = problem
    decay = optax.linear_schedule(0.05, 0.01, 10)
    options = {"weight_decay": decay, "refresh_every": lambda count: 1 + count // 5}
    taken = inspect.signature(ALIASES[name]).parameters
    options |= {key: decay for key in ("damping", "eps") if key in taken}
    options |= {"b2": decay} if name == "splus" else {}
    _, _, first, last = train(ALIASES[name](decay, **options), params, x, y, steps=10)
    assert last < first


@NAMES
def test_masks_partitions_and_chains(name, problem):
    params, x, y = problem
    labels = {"first": "train", "heads": "train", "out": "frozen", "scale": "frozen"}
    tx = optax.apply_if_finite(
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.partition({"train": ALIASES[name](0.05), "frozen": optax.set_to_zero()}, labels),
        ),
        3,
    )
    step = make_step(tx)
    new_params, opt_state, first, last = train(tx, params, x, y, steps=15, step=step)
    np.testing.assert_array_equal(new_params["out"], params["out"])
    assert last < first
    is_state = lambda node: isinstance(node, RuleState)
    states = [n for n in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(n)]
    assert [set(state.rule_states) for state in states] == [{"first/kernel", "heads"}]
    assert set(optax.tree.get(opt_state, "skipped_refreshes")) == {"first/kernel", "heads"}
    still, *_ = step(new_params, opt_state, x * jnp.nan, y)
    jax.tree.map(np.testing.assert_array_equal, still, new_params)


@NAMES
def test_low_precision_parameters(name, problem):
    params, x, y = problem
    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    new_params, opt_state, first, last = train(TRANSFORMS[name](), low, x.astype(jnp.bfloat16), y)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(new_params))
    assert last < first
    if name not in ("normuon", "sm3", "sketchy", "eva_s"):  # which have no factors
        factors = singd_optax.factors(opt_state)
        assert {leaf.dtype for leaf in jax.tree.leaves(factors)} == {jnp.dtype("float32")}

    tx = SCALES[name](grafting="sgd")
    only = {"out": gradients()["out"]}
    trees = (only, jax.tree.map(lambda g: g.astype(jnp.float16), only))
    updates, half = jit(lambda trees: [tx.update(tree, tx.init(tree))[0] for tree in trees])(trees)
    assert half["out"].dtype == jnp.float16
    error = jnp.linalg.norm(half["out"] - updates["out"]) / jnp.linalg.norm(updates["out"])
    assert error < 0.1  # one of three classes is redundant: rounding is all there is of it


def test_any_tree_is_taken():
    """Boxes, tuples, one array, and nothing that is a matrix."""
    tx = singd_optax.shampoo(0.1)
    trees = [
        {"boxed": nn.Partitioned(jnp.ones((3, 4)), ("a", "b"))},
        (jnp.ones((3, 4)), [jnp.ones(3)]),
        jnp.ones((3, 4)),
        {"empty": jnp.ones((0, 4)), "scalar": 1.0},
    ]
    for tree in trees:
        updates, _ = jit(tx.update)(tree, tx.init(tree), tree)
        assert jax.tree.structure(updates) == jax.tree.structure(tree)
    mixed = {"kernel": jnp.ones((2, 3)), "steps": jnp.ones((2, 3), jnp.int32)}
    scale = singd_optax.scale_by_caspr()
    updates, state = jit(scale.update)(mixed, scale.init(mixed))
    assert set(state.rule_states) == {"kernel"}
    np.testing.assert_array_equal(updates["steps"], mixed["steps"])


def test_accumulated_gradients(problem):
    params, x, y = problem
    tx = optax.MultiSteps(singd_optax.caspr(0.05), 2)
    whole = singd_optax.caspr(0.05)
    state = tx.init(params)
    for half in (slice(0, 32), slice(32, 64)):
        grads = jax.grad(loss_fn)(params, x[half], y[half])
        updates, state = jit(tx.update)(grads, state, params)
    expected, _ = jit(whole.update)(jax.grad(loss_fn)(params, x, y), whole.init(params), params)
    assert_close(updates, expected)


def test_errors():
    with pytest.raises(TypeError, match=r"`rule` must be a singd_optax.rules.Rule"):
        singd_optax.scale_by_rule("shampoo")
    with pytest.raises(ValueError, match="`learning_rate` must be a finite number >= 0, got -1"):
        singd_optax.shampoo(-1)
    with pytest.raises(ValueError, match="`momentum` must be a finite number >= 0 and < 1, got 1"):
        singd_optax.caspr(0.1, momentum=1)
    with pytest.raises(ValueError, match="`update_rms` must be a finite number > 0, got 0"):
        singd_optax.scale_by_shampoo(update_rms=0)
