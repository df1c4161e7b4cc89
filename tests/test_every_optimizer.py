"""What works for one optimizer works for all, whatever it learns from."""

import functools

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import optax
import pytest
from contract import CURVATURE, VECTORS, assert_close, jit, loss_fn, make_step, problem
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import singd_optax
from singd_optax.layers import measured_states, rule_states
from singd_optax.sharding import spread, state_shardings
from singd_optax.training import MultiSteps, check_opt_state, check_refreshes

#: Of which each meets one size of updates.
RELATIVES = ("sketchy", "jorge", "tnt", "eva_s", "normuon", "sm3")

#: Names of the package, and those with options.
NAMES = (
    *("singd", "ikfac", "kfac", "shampoo", "caspr", "inverse_free_shampoo"),
    *CURVATURE,
    *("soap", "kl_shampoo", "kl_soap", "psgd_kron", "inverse_free_kl_shampoo", "splus"),
    *RELATIVES,
    *("polar singd", "soft ikfac", "polar kfac", "soft inverse_free_shampoo"),
)
DIRECTIONS = {
    "": {},
    "polar": {"direction": "polar"},
    "soft": {"direction": "polar", "softness": 0.5},
}
SIZES = {"update_rms": 0.3, "kl_clip": 1e-3, "grafting": "adam"}
EPS = {"shampoo": {"eps": 0.03}, "caspr": {"eps": 0.03}}

everything = pytest.mark.parametrize("name", NAMES)


def optimizer(name, layers=None, **options):
    kind, _, own = name.rpartition(" ")
    options = EPS.get(name, {}) | DIRECTIONS[kind] | options
    return getattr(singd_optax, own)(0.05, layers or layers_of(name), **options)


def layers_of(name):
    """Kernels alone for half of the optimizers that need gradients only."""
    params, layers, *_ = problem()
    return singd_optax.find_matrices(params, structures="dense") if name == "caspr" else layers


gradient = jit(jax.grad(loss_fn))


@functools.cache
def trained(name):
    """After three steps params, gradients, updates and state; and params after the first."""
    params, layers, x, y = problem()
    tx = optimizer(name)
    step = make_step(tx, layers)
    opt_state = tx.init(params)
    after = []
    for _ in range(3):
        before = params
        params, opt_state, _ = step(params, opt_state, x, y)
        after.append(params)
    updates = jax.tree.map(np.subtract, params, before)
    return tx, params, gradient(before, x, y), updates, opt_state, after[0]


@everything
def test_looked_into(name):
    tx, params, grads, updates, opt_state, _ = trained(name)
    layers = layers_of(name)
    of_factors = {"norm_K", "condition_C"}
    if name in VECTORS:
        of_factors = {f"norm_{VECTORS[name]}"}
        with pytest.raises(ValueError, match="keep vectors"):
            singd_optax.factors(opt_state)
    else:
        found = singd_optax.factors(opt_state)
        assert set(found) == set(layers)
        for path, (K, C) in found.items():
            assert (K.dim, C.dim) == layers[path].dims
    numbers = singd_optax.diagnostics.layer_diagnostics(
        layers, opt_state, grads=grads, updates=updates
    )
    for path in layers:
        assert of_factors | {"update_rms", "gradient_rms"} <= set(numbers[path])
        assert float(numbers[path]["alignment"]) > 0
        assert int(numbers[path]["skipped_refreshes"]) == 0
    flat = singd_optax.diagnostics.metrics(layers, opt_state)
    assert all(np.isfinite(float(value)) for value in flat.values())
    table = singd_optax.diagnostics.summary(opt_state)
    assert all(path in table for path in layers)
    assert check_refreshes(opt_state) == []
    check_opt_state(opt_state, tx, params)


@everything
def test_a_damaged_state_is_seen(name):
    tx, params, *_, opt_state, _ = trained(name)

    def damage(node):
        path = next(iter(node.rule_states))
        own = node.rule_states[path]
        field = VECTORS.get(name, "K")
        broken = own._replace(**{field: getattr(own, field) * jnp.nan})
        return node._replace(rule_states=node.rule_states | {path: broken})

    is_state = lambda node: isinstance(node, singd_optax.layers.RuleState)
    damaged = jax.tree.map(
        lambda node: damage(node) if is_state(node) else node, opt_state, is_leaf=is_state
    )
    with pytest.raises(ValueError, match=r"_?[KC]( beside the factors)? is not finite"):
        check_opt_state(damaged, tx, params)
    other = optimizer("singd" if "kfac" in name else "kfac", problem()[1])
    with pytest.raises(ValueError, match="not one of this optimizer"):
        check_opt_state(other.init(params), tx, params)


@everything
def test_sizes(name):
    """Each size of updates: these are finite, of that size, and lower the loss."""
    params, layers, x, y = problem()
    sizes = SIZES
    if name in RELATIVES:
        chosen = list(SIZES)[RELATIVES.index(name) % len(SIZES)]
        sizes = {chosen: SIZES[chosen]}
    fixed = {"momentum": 0.0, "weight_decay": 0.0}
    optimizers = {size: optimizer(name, **{size: own}, **fixed) for size, own in sizes.items()}
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jit
    def step(params, x, y):
        states, extra = {size: tx.init(params) for size, tx in optimizers.items()}, {}
        if any(map(measured_states, states.values())):
            opt_state = next(iter(states.values()))
            value, grads, extra["curvature"] = grad_fn(params, x, y, opt_state=opt_state)
        else:
            value, grads = jax.value_and_grad(loss_fn)(params, x, y)
        found = {}
        for size, tx in optimizers.items():
            updates, _ = tx.update(grads, states[size], params, **extra)
            found[size] = updates, loss_fn(optax.apply_updates(params, updates), x, y)
        return value, found

    value, found = step(params, x, y)
    for size, (updates, after) in found.items():
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(updates)]
        assert all(np.isfinite(leaf).all() and (leaf != 0).any() for leaf in leaves), size
        assert after < value, size
        if size == "update_rms":
            kernel = np.asarray(updates["second"]["kernel"])  # which has no bias
            np.testing.assert_allclose(np.sqrt(np.mean(kernel**2)), 0.05 * 0.3, rtol=1e-4)


@everything
def test_momentum_of_zero_keeps_nothing_and_dtypes_hold(name):
    params, *_ = problem()
    (none,) = rule_states(optimizer(name, momentum=0.0).init(params))
    assert none.rule_momentum is None
    (narrow,) = rule_states(optimizer(name, accumulator_dtype="bfloat16").init(params))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(narrow.rule_momentum)} == {"bfloat16"}


@everything
def test_accumulated(name):
    """Four micro-batches make the step of the whole batch."""
    params, layers, x, y = problem()
    tx = optimizer(name)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    several = MultiSteps(tx, 4, layers_of(name))
    state = several.init(params)
    is_measured = bool(measured_states(state))

    @jit
    def micro(state, x, y):
        extra = {}
        if is_measured:
            _, grads, extra["curvature"] = grad_fn(params, x, y, opt_state=state)
        else:
            grads = jax.grad(loss_fn)(params, x, y)
        return several.update(grads, state, params, **extra)

    for rows in range(0, 32, 8):
        updates, state = micro(state, x[rows : rows + 8], y[rows : rows + 8])
    assert_close(optax.apply_updates(params, updates), trained(name)[-1], 2e-3, 1e-5)


@everything
def test_on_a_mesh(name):
    """Spread, and sharded as placed, with the numbers of one device."""
    params, layers, x, y = problem()
    mesh = meshes.make_mesh({"data": 2}, "Auto")
    shardings = jax.tree.map(lambda _: NamedSharding(mesh, P()), params)
    placed, measured = (spread(own, shardings) for own in (layers_of(name), layers))
    tx = optimizer(name, placed)
    of_state = state_shardings(tx.init, params, shardings, placed)
    opt_state = jit(tx.init, out_shardings=of_state)(params)
    (state,) = rule_states(opt_state)
    own = getattr(state.rule_states[next(iter(placed))], VECTORS.get(name, "K"))
    own = own if name in VECTORS else own.entries
    even = own.shape[-1] % 2 == 0
    assert own.sharding.is_fully_replicated != even
    step = make_step(tx, measured, out_shardings=(shardings, of_state, None))
    got = step(jax.device_put(params, shardings), opt_state, x, y)
    assert_close(got[0], trained(name)[-1], 1e-3, 1e-5)
