"""Arguments of the wrong kind, however they are spelt, get their message before anything runs."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import ALIASES, GRADIENT_ALIASES, TRANSFORMATIONS, Passing, jit, loss_fn, problem

import singd_optax
from singd_optax._validate import check_weights
from singd_optax.measures._sampling import largest_divisor

RECIPES = ALIASES + GRADIENT_ALIASES


def make(name, *args, **options):
    _, layers, *_ = problem()
    args = args or (0.1,)
    return getattr(singd_optax, name)(
        *args, *(() if name in GRADIENT_ALIASES else (layers,)), **options
    )


def spellings(number):
    return [kind(number) for kind in (float, np.float32, np.float64, np.array, jnp.float32)]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("value", [*spellings(np.nan), *spellings(-1.0), *spellings(np.inf)])
def test_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match="`learning_rate` must be a finite number >= 0, got"):
        make(name, value)
    with pytest.raises(ValueError, match="`weight_decay` must be a finite number"):
        make(name, weight_decay=value)
    if name in ALIASES:
        options = ("damping", "factor_learning_rate", "momentum")
        # MKOR's inverses need no damping.
        for option in options[name == "mkor" :]:
            with pytest.raises(ValueError, match=f"`{option}` must be a finite number"):
                make(name, **{option: value})


NO_NUMBERS = [True, np.True_, jnp.asarray(True), "x", np.array([0.1, 0.2]), 1j, jnp.ones((1,))]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number(value):
    for option in ("damping", "weight_decay"):
        with pytest.raises(TypeError, match=f"`{option}` must be a number or an optax schedule"):
            make("singd", **{option: value})
    with pytest.raises(TypeError, match="`learning_rate` must be a number or an optax schedule"):
        make("shampoo", value)


def test_scalars_of_all_libraries_are_numbers():
    for value in spellings(0.5):
        tx = make("singd", value, damping=value, momentum=value, update_rms=value)
        tx.init(problem()[0])


INTERVALS = [0, -3, np.int64(-3), jnp.int32(0), 2**70, np.array(0)]
NO_INTERVALS = [0.5, np.float64(0.5), jnp.float32(2), True, "x", None, np.array([1, 2])]


@pytest.mark.parametrize("value", INTERVALS + NO_INTERVALS, ids=repr)
def test_intervals(value):
    error = TypeError if any(value is other for other in NO_INTERVALS) else ValueError
    for name in RECIPES:
        with pytest.raises(error, match="`refresh_every` must be an int >= 1 or a schedule"):
            make(name, refresh_every=value)
    _, layers, *_ = problem()
    with pytest.raises(error, match="`every_k_schedule` must be an int >= 1"):
        singd_optax.training.MultiSteps(make("singd"), value, layers)
    with pytest.raises(error, match="`early_steps` must be an int >= 1, got"):
        singd_optax.refresh_schedule(value)


def test_schedules_of_numbers_out_of_range():
    for value in (*spellings(np.nan), *spellings(-3.0)):
        with pytest.raises(ValueError, match="`late` must be a finite number > 0"):
            singd_optax.damping_schedule(value)


@pytest.mark.parametrize("name", ["singd", "kfac", "shampoo", "inverse_free_shampoo"])
def test_schedules_of_intervals(name):
    """What a schedule returns is checked where it is known; where it is traced, 0 counts as 1."""
    params, *_ = problem()
    grads = {"w": jnp.ones((3, 2))}

    def used(schedule):
        tx = make(name, refresh_every=schedule)
        if name in ALIASES:
            return tx.init(params)
        return tx.update(grads, tx.init(grads), grads)

    for schedule in (lambda step: 0, lambda step: step, lambda step: np.int64(-1)):
        with pytest.raises(ValueError, match=r"`refresh_every\(step\)` must be an int >= 1, got"):
            used(schedule)
    for schedule in (lambda step: 0.5, optax.constant_schedule(2.0), lambda step: step * 1.5):
        with pytest.raises(TypeError, match=r"(?s)`refresh_every\(step\)`.*round it"):
            used(schedule)
    for schedule in (lambda step: "x", lambda step: jnp.ones(2, int), lambda step: lambda: 1):
        with pytest.raises(TypeError, match=r"`refresh_every\(step\)`"):
            used(schedule)
    tx = make("shampoo", refresh_every=lambda step: step)
    state = jit(lambda: tx.init(grads))()
    _, state = jit(tx.update)(grads, state, grads)
    assert not np.allclose(singd_optax.factors(state)["w"].K.to_dense(), np.eye(3))
    for schedule in (lambda step: 2.0, lambda step: step * 1.5):  # known by its dtype
        with pytest.raises(TypeError, match="round it"):
            jax.eval_shape(make("singd", refresh_every=schedule).init, params)


@pytest.mark.parametrize("name", RECIPES)
def test_fallbacks_masks_precisions(name):
    with pytest.raises(TypeError, match=r"`fallback`.*not called: write adamw\(learning_rate\)"):
        make(name, fallback=optax.adamw)
    with pytest.raises(TypeError, match="`fallback` must be None or an optax transformation"):
        make(name, fallback=0.1)
    for mask in ("kernel", 1, {"first": "no"}, [0.5], np.ones(3)):
        with pytest.raises(TypeError, match="`mask` must be None, a function of params, or a tree"):
            make(name, mask=mask)
    make(name, mask=True)
    for precision in ("x", 3, ["high"], np.ones(2)):
        with pytest.raises(ValueError, match=r"`precision` must be one that jax\.numpy\.einsum"):
            make(name, precision=precision)
    with pytest.raises(ValueError, match="Did you mean 'highest'"):
        make(name, precision="hihgest")
    for precision in (None, "high", "default", jax.lax.Precision.HIGH, "bfloat16"):
        make(name, precision=precision)


@pytest.mark.parametrize("name", [*ALIASES, "inverse_free_shampoo", "scale_by_singd"])
def test_seeds(name):
    args = () if name != "scale_by_singd" else (problem()[1],)
    build = lambda seed: (
        make(name, seed=seed) if not args else singd_optax.scale_by_singd(*args, seed=seed)
    )
    for seed in ("x", None, 1.5, True, np.float32(1), np.array([1, 2]), jnp.float32(2)):
        with pytest.raises(TypeError, match=r"`seed` must be an int from 0 to 2\*\*32 - 1"):
            build(seed)
    for seed in (-1, 2**32, 2**70, np.int64(-5), jnp.int32(-1)):
        with pytest.raises(ValueError, match=r"`seed` must be an int from 0 to 2\*\*32 - 1"):
            build(seed)
    for seed in (0, 2**32 - 1, np.int64(7), jnp.int32(3)):
        build(seed)


def test_flags():
    for value in ("no", 1, None, np.ones(1)):
        with pytest.raises(TypeError, match="`nesterov` must be True or False"):
            make("singd", nesterov=value)


@pytest.mark.parametrize("act", ["replace", "without"])
def test_patterns_of_layers(act):
    _, layers, *_ = problem()
    options = {"structures": "dense"} if act == "replace" else {}
    call = lambda pattern: getattr(layers, act)(pattern, **options)
    with pytest.raises(ValueError, match=r"`pattern` must be a regular.*re\.escape\('\['\)"):
        call("[")
    for pattern in (None, 3, b"first", ["first"]):
        with pytest.raises(TypeError, match="`pattern` must be a regular expression on a path"):
            call(pattern)
    with pytest.raises(ValueError, match=r"'frist'\. Did you mean 'first'"):
        call("frist")
    assert call(re.compile("first")) == call("first")


def test_options_of_layers():
    _, layers, *_ = problem()
    for pattern in ("first", "no such layer"):
        with pytest.raises(ValueError, match=r"got 'structure'\. Did you mean 'structures'"):
            layers.replace(pattern, structure="dense")
    with pytest.raises(ValueError, match="Did you mean 'expand'"):
        layers.replace("first", kfac_approx="expnd")


@pytest.mark.parametrize("key", ["[", None, 3])
def test_patterns_of_matrices(key):
    error = ValueError if key == "[" else TypeError
    for name in GRADIENT_ALIASES:
        with pytest.raises(error, match="`matrix_axes key` must be a regular expression"):
            make(name, matrix_axes={key: None})
    with pytest.raises(error, match="`matrix_axes key`"):
        singd_optax.scale_by_rule(Passing(), matrix_axes={key: ((0,), (1,))})


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize("params", [None, {}, [], (), {"a": {}}], ids=repr)
def test_no_parameters(name, params):
    tx = TRANSFORMATIONS[name](problem()[1])
    with pytest.raises(ValueError, match=r"`params` have no parameters: got.*tx\.init\(params\)"):
        tx.init(params)


@functools.cache
def gradients():
    params, _, x, y = problem()
    return jit(jax.grad(loss_fn))(params, x, y)


@pytest.mark.parametrize("name", RECIPES)
def test_gradients_of_another_shape_that_broadcasts(name):
    """A forgotten axis, in kernels, in biases, and in what is no layer."""
    params, layers, x, y = problem()
    tx, curvature = make(name), {}
    opt_state = tx.init(params)
    grads = gradients()
    if name in ALIASES:
        grad_fn = singd_optax.value_and_grad(loss_fn, layers)
        shapes = jax.eval_shape(lambda state: grad_fn(params, x, y, opt_state=state)[2], opt_state)
        curvature = {"curvature": jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)}
    for path in (("first", "kernel"), ("first", "bias"), ("norm", "scale"), ("second", "kernel")):
        for change in (lambda g: g[..., :1], lambda g: g[..., None], lambda g: jnp.float32(0.0)):
            bad = jax.tree.map(lambda g: g, grads)
            bad[path[0]][path[1]] = change(grads[path[0]][path[1]])
            match = rf"`updates` do not match `params`: the gradient of '{'/'.join(path)}' has"
            with pytest.raises(ValueError, match=match):
                tx.update(bad, opt_state, params, **curvature)
            with pytest.raises(ValueError, match=match):
                jax.eval_shape(lambda g: tx.update(g, opt_state, params, **curvature), bad)
    for missing in ("first", "norm"):
        fewer = {key: value for key, value in grads.items() if key != missing}
        with pytest.raises(ValueError, match=f"no array at '{missing}/"):
            tx.update(fewer, opt_state, params, **curvature)
        with pytest.raises(ValueError, match=f"no array at '{missing}/"):
            tx.update(grads, opt_state, fewer, **curvature)


@pytest.mark.parametrize("fraction", [5e-324, 1e-300, 1e-9, 0.1, np.float32(0.5), jnp.float32(1)])
def test_small_fractions(fraction):
    """Of the positions there are, one is left."""
    params, _, x, y = problem()
    layers = singd_optax.find_layers(loss_fn, params, x, y, curvature_fraction=fraction)
    assert isinstance(hash(layers), int)
    opt_state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    shapes = jax.eval_shape(lambda: grad_fn(params, x, y, opt_state=opt_state)[2])
    assert set(shapes) == set(layers)


def test_largest_divisor():
    for size in range(1, 40):
        for limit in (*range(45), 10**30):
            slow = max(k for k in range(1, size + 1) if size % k == 0 and k <= max(limit, 1))
            assert largest_divisor(size, limit) == slow


def test_weights():
    for bad in (-np.ones(3), np.array([1, np.nan]), jnp.full(2, jnp.inf)):
        with pytest.raises(ValueError, match="`weights` must be finite and not negative"):
            check_weights("weights", bad)
    for bad in ("x", None, [1, "x"], np.array(["a"])):
        with pytest.raises(TypeError, match="`weights` must be an array of numbers"):
            check_weights("weights", bad)
    check_weights("weights", jnp.array([True, False]))
    jax.eval_shape(lambda w: check_weights("weights", w), jnp.ones(3))


def test_placeholders_and_boxes_are_parameters():
    params, layers, *_ = problem()
    tx = singd_optax.singd(0.1, layers)
    optax.tree.map_params(tx, lambda leaf: leaf, tx.init(params))
    boxed = nn.Dense(4, kernel_init=nn.with_partitioning(nn.initializers.ones, ("a", None)))
    tree = boxed.init(jax.random.key(0), jnp.ones((2, 3)))["params"]
    tx = singd_optax.shampoo(0.1)
    tx.update(tree, tx.init(tree), tree)
