"""Equal layers are kept in one stack: the same numbers, in a program that does not grow."""

import functools
import pickle

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import singd_optax
from singd_optax.layers import rule_states
from singd_optax.layers._by_path import ByPath
from singd_optax.transforms import _refreshing


class Net(nn.Module):
    """Equal layers, and some of another size."""

    depth: int = 3
    width: int = 6

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = nn.tanh(nn.Dense(self.width)(x))
        return nn.Dense(3)(x)


def problem(depth=3, width=6):
    net = Net(depth, width)
    keys = jax.random.split(jax.random.key(0), 3)
    x, y = jax.random.normal(keys[0], (32, width)), jax.random.normal(keys[1], (32, 3))
    params = jax.jit(net.init)(keys[2], x)
    return lambda params, x, y: jnp.mean((net.apply(params, x) - y) ** 2), params, x, y


def own_state(opt_state):
    (state,) = rule_states(opt_state)
    return state


def apart(opt_state):
    """The same state, no layer of it in a stack."""

    def split(node):
        if not isinstance(node, singd_optax.layers.RuleState):
            return node
        fields = ("rule_states", "size_states", "skipped_refreshes", "skipped_in_a_row")
        parts = {name: ByPath.each(dict(getattr(node, name))) for name in fields}
        return node._replace(places={}, **parts)

    is_state = lambda node: isinstance(node, singd_optax.layers.RuleState)
    return jax.tree.map(split, opt_state, is_leaf=is_state)


def trained(tx, layers, loss_fn, params, x, y, opt_state, steps=6, compilations=1):
    measures = own_state(opt_state).rule_tag.measures
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jax.jit
    def step(params, opt_state):
        if measures:
            value, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
        else:
            (value, grads), curvature = jax.value_and_grad(loss_fn)(params, x, y), None
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
        return optax.apply_updates(params, updates), opt_state, value

    values = []
    for _ in range(steps):
        params, opt_state, value = step(params, opt_state)
        values.append(float(value))
    assert step._cache_size() == compilations
    return params, opt_state, values


VARIANTS = {
    "singd": ("singd", "dense", {}),
    "diagonal": ("singd", "diagonal", {"kl_clip": 0.1}),
    "blocks": ("singd", ("block_diagonal:4", "hierarchical:2,1"), {"factor_momentum": 0.5}),
    "toeplitz": ("singd", "triltoeplitz", {}),
    "polar": ("ikfac", "dense", {"direction": "polar"}),
    "kfac": ("kfac", "dense", {"grafting": "adam"}),
    "shampoo": ("shampoo", "dense", {}),
    "inverse-free": ("inverse_free_shampoo", "dense", {}),
}


@functools.cache
def run_apart(name):
    """An optimizer, its task and state; and what training gives where no layer is in a stack."""
    method, structures, options = VARIANTS[name]
    loss_fn, params, x, y = problem()
    layers = singd_optax.find_layers(loss_fn, params, x, y, structures=structures)
    tx = getattr(singd_optax, method)(0.02, layers, refresh_every=2, **options)
    opt_state = jax.jit(tx.init)(params)
    start = (tx, layers, loss_fn, params, x, y)
    return (*start, opt_state), trained(*start, apart(opt_state))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_as_if_apart(name, large, monkeypatch):
    """At once, and one by one, as is done where layers are large."""
    (tx, layers, *task, opt_state), (want, separate, expected) = run_apart(name)
    if large:
        monkeypatch.setattr(_refreshing, "_LARGE", 0)
    groups = own_state(opt_state).rule_states.groups
    assert sorted(map(len, groups)) == [1, 3]
    got, after, values = trained(tx, layers, *task, opt_state)
    assert jax.tree.structure(after) == jax.tree.structure(opt_state)
    assert all(len(group) == 1 for group in own_state(separate).rule_states.groups)
    np.testing.assert_allclose(values, expected, rtol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, want)
    for path, own in own_state(after).rule_states.items():
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
        jax.tree.map(close, own, own_state(separate).rule_states[path])


def test_a_polar_rule_is_refreshed_as_its_own():
    """One by one where layers are large, unless the rule inside treats all of them together."""
    polar = singd_optax.rules.Polar(singd_optax.optimizers.SINGD())
    assert not polar.refreshes_jointly
    joint = type("Joint", (singd_optax.optimizers.SINGD,), {"refresh_all": lambda self, *a: {}})
    assert joint().refreshes_jointly
    assert singd_optax.rules.Polar(joint()).refreshes_jointly


def test_one_bad_layer_of_a_group():
    loss_fn, params, x, y = problem()
    layers = singd_optax.find_layers(loss_fn, params, x, y, structures="dense")
    tx = singd_optax.singd(0.02, layers, refresh_every=1)
    opt_state = tx.init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    _, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
    bad = "params/Dense_1"
    nan = jax.tree.map(lambda leaf: leaf * jnp.nan, curvature[bad].H_K)
    _, after = tx.update(
        grads, opt_state, params, curvature=curvature | {bad: curvature[bad]._replace(H_K=nan)}
    )
    state = own_state(after)
    assert {path: int(n) for path, n in state.skipped_refreshes.items()} == {
        path: int(path == bad) for path in layers
    }
    for path in layers:
        moved = jax.tree.map(
            lambda a, b: bool((a != b).any()),
            state.rule_states[path].K,
            own_state(opt_state).rule_states[path].K,
        )
        assert any(jax.tree.leaves(moved)) == (path != bad)


@pytest.mark.parametrize("structures", ["dense", "diagonal", "block_diagonal:4"])
def test_depth_adds_what_it_adds_to_adamw(structures):
    """For each further layer the update grows as AdamW's does, and not by a refresh."""

    def lines(depth):
        loss_fn, params, x, y = problem(depth)
        layers = singd_optax.find_layers(loss_fn, params, x, y, structures=structures)
        found = []
        tx = singd_optax.singd(0.02, layers)
        opt_state = tx.init(params)
        _, grads, curvature = jax.eval_shape(
            lambda: singd_optax.value_and_grad(loss_fn, layers)(params, x, y, opt_state=opt_state)
        )
        update = lambda grads, state, params, curvature: tx.update(
            grads, state, params, curvature=curvature
        )
        found.append(jax.jit(update).lower(grads, opt_state, params, curvature))
        adamw = optax.adamw(0.02)
        found.append(jax.jit(adamw.update).lower(grads, adamw.init(params), params))
        return [lowered.as_text().count("\n") for lowered in found]

    (ours, theirs), (ours_deep, theirs_deep) = lines(4), lines(12)
    assert ours_deep - ours < 1.2 * (theirs_deep - theirs)


def test_layers_that_changed_since():
    """A state is of the layers that it was made with: others are seen, in whatever place."""
    loss_fn, params, x, y = problem()
    layers = singd_optax.find_layers(loss_fn, params, x, y, structures="dense")
    opt_state = singd_optax.singd(0.02, layers).init(params)
    other = layers.replace("Dense_1", structures="diagonal")
    for act in (
        lambda: singd_optax.value_and_grad(loss_fn, other)(params, x, y, opt_state=opt_state),
        lambda: singd_optax.singd(0.02, other).update(params, opt_state, params, curvature={}),
    ):
        with pytest.raises(ValueError, match="factors of layer 'params/Dense_1'"):
            act()


def test_layers_put_on_a_mesh_since():
    loss_fn, params, x, y = problem()
    layers = singd_optax.find_layers(loss_fn, params, x, y, structures="dense")
    tx = singd_optax.singd(0.02, layers, refresh_every=2)
    _, _, want = trained(tx, layers, loss_fn, params, x, y, tx.init(params))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    replicated = jax.tree.map(lambda _: NamedSharding(mesh, P()), params)
    spread = singd_optax.sharding.spread(layers, replicated)
    own = singd_optax.singd(0.02, spread, refresh_every=2)
    placed = jax.device_put((params, tx.init(params)), NamedSharding(mesh, P()))
    # The first step gets everything whole on each device, and leaves it where it belongs.
    arguments = own, spread, loss_fn, placed[0], x, y, placed[1]
    _, after, got = trained(*arguments, compilations=2)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert own_state(after).rule_states.groups == own_state(placed[1]).rule_states.groups


def test_by_path():
    kept = ByPath((("b", "a"), ("c",)), (jnp.array([[1.0, 2], [3, 4]]), jnp.array([5.0, 6])))
    assert list(kept) == ["a", "b", "c"]
    assert len(kept) == 3
    assert "d" not in kept
    np.testing.assert_array_equal(kept["a"], [3, 4])
    np.testing.assert_array_equal(kept["c"], [5, 6])
    exchanged = kept | {"a": jnp.array([7.0, 8])}
    assert jax.tree.structure(exchanged) == jax.tree.structure(kept)
    np.testing.assert_array_equal(exchanged["a"], [7, 8])
    assert isinstance(kept | {"d": 1}, dict)
    with pytest.raises(KeyError, match="d"):
        kept["d"]
    again = pickle.loads(pickle.dumps(kept))
    assert jax.tree.structure(again) == jax.tree.structure(kept)
    shapes = jax.eval_shape(lambda: kept)
    assert shapes["a"].shape == (2,)
    np.testing.assert_array_equal(jax.jit(lambda kept: kept["b"])(kept), [1, 2])


def test_several_optimizers_seen_from_outside():
    """Under vmap there is one more axis in front, of which a slice is not that of a layer."""
    loss_fn, params, x, y = problem()
    layers = singd_optax.find_layers(loss_fn, params, x, y, structures="dense")
    tx = singd_optax.singd(0.02, layers)
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    states = jax.vmap(tx.init)(several)
    pairs = singd_optax.factors(states)
    assert {path: pair.K.entries.shape for path, pair in pairs.items()} == {
        path: (2, spec.fan_in, spec.fan_in) for path, spec in layers.items()
    }


def test_files_do_not_depend_on_groups():
    loss_fn, params, x, y = problem()
    layers = singd_optax.find_layers(loss_fn, params, x, y, structures="dense")
    tx = singd_optax.singd(0.02, layers)
    _, opt_state, _ = trained(tx, layers, loss_fn, params, x, y, tx.init(params))
    written = flax.serialization.to_bytes(apart(opt_state)._replace())
    fields = flax.serialization.msgpack_restore(written)
    whole = flax.serialization.to_state_dict(opt_state)
    assert jax.tree.structure(
        fields["inner_states"]["preconditioned"]["inner_state"]["0"]["rule_states"]
    ) == jax.tree.structure(
        whole["inner_states"]["preconditioned"]["inner_state"]["0"]["rule_states"]
    )
    restored = flax.serialization.from_bytes(
        tx.init(params), flax.serialization.to_bytes(opt_state)
    )
    jax.tree.map(np.testing.assert_array_equal, restored, opt_state)
    other = singd_optax.find_layers(loss_fn, params, x, y, structures="dense").without("Dense_0")
    with pytest.raises(ValueError, match="checkpoint is of the layers"):
        flax.serialization.from_bytes(
            singd_optax.singd(0.02, other).init(params), flax.serialization.to_bytes(opt_state)
        )
