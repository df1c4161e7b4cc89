"""Staggered refreshes are those of each matrix alone, on steps of its own."""

import itertools

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from test_soap import random_gradients

import singd_optax
from singd_optax.sharding import spread, state_shardings
from singd_optax.testing._compile import quick_jit
from singd_optax.transforms import refresh_schedule

STEPS = 8
AXES = {"stack": ((1,), (2,))}
#: The order of matrices: those of equal shape, and a stack, which has its matrices one by one.
PLACES = {"a": 0, "b": 1, "c": 2, "d": 3, "other": 4, "stack": 5}


def gradients():
    """Four equal matrices, one of another shape, and a stack of three."""
    of = lambda shape, seed: jnp.asarray(random_gradients(shape, STEPS, seed))
    found = {name: of((5, 5), seed) for seed, name in enumerate("abcd")}
    stack = jnp.stack([of((4, 4), seed) for seed in (8, 9, 10)], 1)
    return found | {"other": of((3, 3), 7), "stack": stack}


def run(tx, grads, place=None, **options):
    """Updates, and states before and after, of ``tx`` or of what ``tx`` makes for a place."""
    made = (lambda place: tx) if place is None else tx
    update = quick_jit(lambda g, state, place: made(place).update(g, state, **options))
    state = made(place).init(jax.tree.map(lambda g: g[0], grads))
    found, states = [], [state]
    for index in range(STEPS):
        now = jax.tree.map(lambda g, index=index: g[index], grads)
        updates, state = update(now, state, place)
        found.append(updates)
        states.append(state)
    assert update._cache_size() == 1
    return found, states


def steps_at(interval, count):
    return interval(count) if callable(interval) else interval


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "interval"),
    [
        ("soap", 3),
        ("shampoo", refresh_schedule(2, late=4)),
        ("inverse_free_kl_shampoo", 20),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_as_each_alone(name, interval):
    grads, scale = gradients(), getattr(singd_optax, f"scale_by_{name}")
    got, states = run(scale(refresh_every=interval, stagger=True, matrix_axes=AXES), grads)
    own = {(path,): PLACES[path] for path in ("a", "d", "other")}
    own |= {("stack", i): PLACES["stack"] + i for i in (0, 2)}

    def alone(place):
        """Refreshed on the steps of this place."""

        def every(count):
            due = (count == 0) | ((count - place) % steps_at(interval, count) == 0)
            return jnp.where(due, 1, count + 1)

        return scale(refresh_every=every)

    for key, place in own.items():
        of = lambda tree, key=key: tree[key[0]] if len(key) == 1 else tree[key[0]][key[1]]
        mine = [of(jax.tree.map(lambda g, i=i: g[i], grads)) for i in range(STEPS)]
        want, _ = run(alone, jnp.stack(mine), jnp.int32(place))
        for updates, wanted in zip(got, want, strict=True):
            np.testing.assert_allclose(of(updates), wanted, rtol=1e-7, atol=1e-9)
    due = [int(state.refresh_due) for state in states[:-1]]
    assert due == [
        count == 0 or any((count - j) % int(steps_at(interval, count)) == 0 for j in range(8))
        for count in range(STEPS)
    ]


def test_each_step_has_its_share():
    """Also with the branch taken away."""
    grads = jax.tree.map(lambda g: g.astype(jnp.float32), gradients())
    tx = singd_optax.scale_by_soap(refresh_every=4, stagger=True, matrix_axes=AXES)
    _, states = run(tx, grads, refresh=True)
    bases = [
        [
            m
            for path in PLACES
            for m in np.reshape(own[path].K.to_dense(), (-1, own[path].K.dim, own[path].K.dim))
        ]
        for own in (jax.device_get(state.rule_states) for state in states)
    ]
    for step, (old, new) in enumerate(itertools.pairwise(bases)):
        moved = [(a != b).any() for a, b in zip(old, new, strict=True)]
        assert moved == [step == 0 or (step - j) % 4 == 0 for j in range(8)]
    _, still = run(tx, grads, refresh=False)
    np.testing.assert_array_equal(still[-1].rule_states["a"].K.to_dense(), jnp.eye(5))


def test_the_program_does_not_grow_with_the_number_of_matrices():
    """One refresh of a share for each shape."""

    def lines(count):
        params = {str(index): jnp.zeros((6, 4)) for index in range(count)}
        tx = singd_optax.scale_by_soap(refresh_every=4, stagger=True)
        text = jax.jit(tx.update).lower(params, jax.eval_shape(tx.init, params)).as_text()
        return text.count("geqrf"), text.count("stablehlo.while")

    assert lines(40) == lines(8)
    assert min(lines(8)) > 0


def test_on_a_mesh():
    """A stack that is spread is refreshed as a whole, and others in turn."""
    params, batch, _ = meshes.problem()
    axes = {"blocks/.*": ((1,), (2,))}
    matrices = singd_optax.find_matrices(params, structures="dense", matrix_axes=axes)
    setup = meshes.setup("data x tensor", "Auto", "rows")
    layers = spread(matrices, setup.shardings)
    tx = singd_optax.scale_by_soap(layers, refresh_every=2, stagger=True)
    of_state = state_shardings(tx.init, params, setup.shardings, layers)
    # Where parameters are, as in a training loop.
    grads = jax.device_put(jax.jit(jax.grad(meshes.loss_fn))(params, *batch), setup.shardings)
    quick = {"compiler_options": meshes.QUICK}
    step = jax.jit(tx.update, out_shardings=(setup.shardings, of_state), **quick)
    state = jax.device_put(tx.init(params), of_state)
    before, moved = None, []
    for index in range(4):
        _, state = step(jax.tree.map(lambda g, k=index: g * (1 + k), grads), state)
        bases = {path: own.K.to_dense() for path, own in state.rule_states.items()}
        if before is not None:
            moved.append([path for path in bases if bool(jnp.any(bases[path] != before[path]))])
        before = bases
    first, second, third = sorted(bases)
    assert moved == [[second], [first, third], [second]]


def test_errors():
    with pytest.raises(TypeError, match="`stagger` must be True or False, got 1"):
        singd_optax.scale_by_soap(stagger=1)
    with pytest.raises(TypeError, match=r"singd\(\) has no option `stagger`"):
        singd_optax.singd(0.1, meshes.problem()[2], stagger=True)
    rule = singd_optax.optimizers.SINGD()
    with pytest.raises(ValueError, match="`stagger` is for rules that need gradients only, got"):
        singd_optax.scale_by_rule(rule, meshes.problem()[2], stagger=True)
