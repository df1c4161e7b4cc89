"""Mini-block Fisher against blocks cut out of whole outer products, and short restatements."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import jit
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import singd_optax
from singd_optax.layers import Tiles
from singd_optax.optimizers import MiniBlockFisher
from singd_optax.sharding import spread, state_shardings

scale_by = singd_optax.scale_by_mini_block_fisher

#: A dense layer, convolutions of two dimensions, of one input channel (whose rows are positions
#: alone) and of one position, and a stack of some of one dimension.
SHAPES = {
    "conv": (2, 2, 3, 8),
    "dense": (5, 3),
    "depthwise": (2, 3, 1, 4),
    "point": (1, 1, 3, 2),
    "scan": (2, 3, 2, 3),
}
AXES = {"scan": Tiles((1, 2), (3,), positions=(1,))}


def gradients(steps=5, shapes=SHAPES, seed=0):
    rng = np.random.default_rng(seed)
    return [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(steps)]


def run(tx, trees, jit=jit):
    """The updates of each step, and the last state; one compilation."""
    update, state = jit(tx.update), tx.init(jax.tree.map(jnp.asarray, trees[0]))
    found = []
    for tree in trees:
        updates, state = update(jax.tree.map(jnp.asarray, tree), state)
        found.append(jax.tree.map(np.asarray, updates))
    assert update._cache_size() == 1
    return found, state


def as_pairs(kernel, positions):
    """(pairs, k): what is not a position, in order, and the positions."""
    return np.moveaxis(kernel, positions, range(-len(positions), 0)).reshape(
        -1, np.prod([kernel.shape[axis] for axis in positions])
    )


def test_blocks_are_those_of_the_whole_outer_product():
    """The moving average of vec(G) vec(G)ᵀ, of which each block is cut out by index."""
    with jax.enable_x64(True):
        trees = gradients()
        _, state = run(scale_by(matrix_axes=AXES, b2=0.7), trees)
        weight, whole = 0, dict.fromkeys(SHAPES, 0)
        for tree in trees:
            weight = 0.7 * weight + 0.3
            for name, G in tree.items():
                whole[name] = 0.7 * whole[name] + 0.3 * np.outer(G.ravel(), G.ravel())
        index = {name: np.arange(np.prod(shape)).reshape(shape) for name, shape in SHAPES.items()}

    def block(name, entries):
        return whole[name][np.ix_(entries.ravel(), entries.ravel())]

    own = state.rule_states
    np.testing.assert_allclose(own["dense"].moment_weight, weight)
    mean = sum(block("dense", index["dense"][:, j]) for j in range(3)) / 3
    np.testing.assert_allclose(own["dense"].S_K.to_dense(), mean, rtol=1e-10)
    for name in ("conv", "depthwise", "point"):
        (moments,) = own[name].moments
        *_, inputs, outputs = SHAPES[name]
        assert moments.shape[:2] == (outputs, inputs)
        for i, o in np.ndindex(inputs, outputs):
            want = block(name, index[name][:, :, i, o])
            np.testing.assert_allclose(moments[o, i], want, rtol=1e-10)
    (moments,) = own["scan"].moments
    for layer, i, o in np.ndindex(2, 2, 3):
        want = block("scan", index["scan"][layer, :, i, o])
        np.testing.assert_allclose(moments[layer, o, i], want, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_trajectory(mode):
    """Averages of all steps, inverses of each third, and a heavy ball in front of them."""
    trees = gradients(7)
    options = {"b2": 0.8, "damping": 0.2, "damping_mode": mode, "momentum": 0.6}
    got, _ = run(scale_by(**options, refresh_every=3, matrix_axes=AXES), trees)

    def directions(kernels, positions):
        """Of one matrix: for a dense layer all rows are positions, and columns share a block."""
        S = weight = momentum = 0
        for step, G in enumerate(kernels):
            vectors = as_pairs(G, positions)
            outer = np.einsum("pi,pj->pij", vectors, vectors)
            outer = outer.mean(0, keepdims=True) if G.ndim == 2 else outer
            S, weight = 0.8 * S + 0.2 * outer, 0.8 * weight + 0.2
            momentum = 0.6 * momentum + vectors
            if step % 3 == 0:
                mean = S / weight
                size = np.trace(mean, axis1=1, axis2=2).mean() / S.shape[-1]
                damping = 0.2 * (size if mode == "relative" else 1)
                inverse = np.linalg.inv(mean + damping * np.eye(S.shape[-1]))
            yield (inverse @ momentum[..., None])[..., 0]

    plain = {"conv": (0, 1), "dense": (0,), "depthwise": (0, 1), "point": (0, 1)}
    for name, positions in plain.items():
        for one, want in zip(got, directions([t[name] for t in trees], positions), strict=True):
            np.testing.assert_allclose(as_pairs(one[name], positions), want, rtol=1e-9)
    for layer in range(2):
        slices = [tree["scan"][layer][None] for tree in trees]  # (1, position, inputs, outputs)
        for one, want in zip(got, directions(slices, (1,)), strict=True):
            np.testing.assert_allclose(as_pairs(one["scan"][layer][None], (1,)), want, rtol=1e-9)


def test_one_position_is_the_diagonal():
    """g / (v + λ), where v is the average of squares."""
    trees = gradients(4, {"kernel": (1, 1, 3, 2)})
    got, _ = run(scale_by(b2=0.5, damping=0.3, damping_mode="absolute"), trees)
    v, weight = 0, 0
    for tree, one in zip(trees, got, strict=True):
        v, weight = 0.5 * v + 0.5 * tree["kernel"] ** 2, 0.5 * weight + 0.5
        want = tree["kernel"] / (v / weight + 0.3)
        np.testing.assert_allclose(one["kernel"], want, rtol=1e-5)


class Net(nn.Module):
    """Convolutions of one and of two dimensions, one transposed, and a dense head."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(3, (2, 2), name="first")(x))
        x = nn.tanh(nn.ConvTranspose(3, (2, 2), transpose_kernel=True, name="back")(x))
        x = nn.tanh(nn.Conv(2, (3,), name="line")(x.reshape(len(x), -1, 3)))
        return nn.Dense(2, name="head")(x.mean(1))


@pytest.fixture(scope="module")
def model():
    model = Net()
    x = jax.random.normal(jax.random.key(0), (4, 3, 3, 2))
    params = jit(model.init)(jax.random.key(1), x)["params"]
    loss_fn = lambda params, x: jnp.mean((model.apply({"params": params}, x) - 1) ** 2)
    layers = singd_optax.find_layers(loss_fn, params, x)
    return params, layers, jit(jax.grad(loss_fn))(params, x)


def test_layers(model):
    """Kernels as without layers, where these are said to be convolutions; biases as diagonals."""
    params, layers, grads = model
    options = {"damping": 1e-2, "damping_mode": "absolute"}
    axes = {"line/kernel": Tiles((0, 1), (2,), positions=(0,))}
    both = scale_by(layers, **options), scale_by(**options, matrix_axes=axes)
    update = lambda grads: [tx.update(grads, tx.init(grads)) for tx in both]
    (got, state), (want, _) = jit(update)(grads)
    for name in ("first", "back", "line"):
        np.testing.assert_allclose(got[name]["kernel"], want[name]["kernel"], rtol=1e-4, atol=1e-6)
        bias = grads[name]["bias"]
        np.testing.assert_allclose(got[name]["bias"], bias / (bias**2 + 1e-2), rtol=1e-4)
        assert [part.shape[-1] for part in state.rule_states[name].blocks] == (
            [3, 1] if name == "line" else [4, 1]
        )
    G = layers["head"].to_matrix(*jax.tree.leaves(grads["head"])[::-1])
    got = layers["head"].to_matrix(*jax.tree.leaves(got["head"])[::-1])
    want = np.linalg.solve(G @ G.T / 2 + 1e-2 * np.eye(3), G)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert list(singd_optax.factors(state)) == ["head"]
    numbers = singd_optax.diagnostics.layer_diagnostics(layers, state)
    blocks = [np.linalg.norm(part) for part in state.rule_states["first"].blocks]
    np.testing.assert_allclose(numbers["first"]["norm_blocks"], np.hypot(*blocks), rtol=1e-5)
    tx = scale_by(layers, **options)
    singd_optax.training.check_opt_state(state, tx, params)


def test_which_arrays_are_convolutions():
    tree = {
        "conv": jnp.ones((3, 3, 4, 36)),
        "volume": jnp.ones((2, 2, 2, 4, 5)),
        "attention": jnp.ones((4, 2, 8)),
        "patches": jnp.ones((16, 16, 3, 8)),
        "same size": jnp.ones((36, 36)),
        "experts": jnp.ones((2, 4, 6, 3)),
    }
    axes = {"experts": ((2,), (3,)), "volume": ((0, 1, 2, 3), (4,))}
    found = singd_optax.find_matrices(tree, matrix_axes=axes)
    assert [path for path, spec in found.items() if spec.window is not None] == ["conv"]
    state = scale_by(matrix_axes=axes).init(tree)
    assert state.rule_states["conv"].blocks[0].shape == (36, 4, 9, 9)
    assert state.rule_states["same size"].K.dim == state.rule_states["volume"].K.dim + 4 == 36
    assert state.rule_states["experts"].K.batch_shape == (2, 4)


def test_equal_kernels_share_a_stack_and_are_apart():
    """Two of one shape, and a dense one of their size, are as each by itself; in an ensemble."""
    shapes = {"a": (3, 3, 2, 4), "b": (3, 3, 2, 4), "dense": (18, 4)}
    trees = gradients(3, shapes)
    tx = singd_optax.mini_block_fisher(0.1, weight_decay=0.0)

    def train(scale, trees):
        def step(state, tree):
            tree = jax.tree.map(lambda g: g * scale, tree)
            updates, state = tx.update(tree, state, tree)
            return state, updates

        state = tx.init(jax.tree.map(lambda g: g[0], trees))
        updates = jax.lax.scan(step, state, trees)[1]
        return jax.tree.map(lambda u: u[-1], updates)

    first = jax.tree.map(jnp.float32, trees[0])
    trees = jax.tree.map(lambda *g: jnp.stack([jnp.float32(one) for one in g]), *trees)
    together = jit(jax.vmap(train, in_axes=(0, None)))(jnp.array([1.0, 2.0]), trees)
    each = jit(lambda trees: {name: train(2.0, {name: own})[name] for name, own in trees.items()})
    for name, alone in each(trees).items():
        np.testing.assert_allclose(together[name][1], alone, rtol=2e-3, atol=1e-5)
    paths = tx.init(first)[0]["preconditioned"].inner_state[0].rule_states.groups
    assert paths == (("a", "b"), ("dense",))


def test_decompositions_are_no_batches_on_cpus():
    """Two of them on two threads can wait for ever: of a group of three, one is taken at a time."""
    tree = {name: jnp.ones((5, 7)) for name in "abc"} | {"conv": jnp.ones((3, 3, 2, 4))}
    tx = scale_by()
    text = jit(tx.update).lower(tree, tx.init(tree)).compile().as_text()
    calls = [line for line in text.splitlines() if "potrf" in line and "custom-call" in line]
    assert len(calls) == 1
    assert re.search(r"f32\[(1,)?5,5\]", calls[0])
    assert "f32[3,5,5]" not in calls[0]


def test_narrow_blocks_follow_wide_ones():
    trees = jax.tree.map(np.float32, gradients(4))
    wide, _ = run(scale_by(damping=1.0), trees)
    narrow, state = run(scale_by(damping=1.0, factor_dtype="bfloat16"), trees)
    own = state.rule_states["conv"]
    assert (own.blocks[0].dtype, own.moments[0].dtype) == (jnp.bfloat16, jnp.float32)
    for name in SHAPES:
        np.testing.assert_allclose(
            narrow[-1][name], wide[-1][name], atol=0.02 * np.abs(wide[-1][name]).max()
        )


def test_channels_that_are_dead_and_steps_that_are_lost():
    """Finite blocks for what has no gradient; a step of NaN, or one that overflows, is skipped."""
    shapes = {"conv": (2, 2, 2, 3), "dead": (2, 2, 1, 3)}
    trees = jax.tree.map(np.float32, gradients(4, shapes))
    for tree in trees:
        tree["conv"][:, :, 1, 2] = 0
        tree["dead"][:] = 0
    trees[2] = {name: g * (np.nan if name == "conv" else 1) for name, g in trees[2].items()}
    trees[3] = {name: g * 1e25 for name, g in trees[3].items()}
    tx = scale_by(update_rms=0.2)
    update = jit(tx.update)
    got, state = run(tx, trees, lambda _: update)
    _, before = run(tx, trees[:2], lambda _: update)
    jax.tree.map(np.testing.assert_array_equal, *(s.rule_states["conv"] for s in (state, before)))
    assert {path: int(n) for path, n in state.skipped_refreshes.items()} == {"conv": 2, "dead": 0}
    assert not got[1]["conv"][:, :, 1, 2].any()
    np.testing.assert_array_equal(
        state.rule_states["dead"].blocks[0], np.eye(4)[None, None] + np.zeros((3, 1, 1, 1))
    )
    np.testing.assert_allclose(np.sqrt((got[1]["conv"] ** 2).mean()), 0.2, rtol=1e-4)
    assert not any(one["dead"].any() for one in got)
    assert not got[3]["conv"].any()


@pytest.mark.parametrize("by_layers", [True, False])
def test_blocks_are_spread_over_a_mesh(by_layers, model):
    """By their outputs; with the directions of one device."""
    if by_layers:
        params, layers, grads = model
    else:
        grads = jax.tree.map(jnp.float32, gradients(1, {"conv": (2, 2, 3, 8), "dense": (8, 4)})[0])
        params, layers = grads, singd_optax.find_matrices(grads)
    axes = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((4,), ("data",), axes, devices=jax.devices()[:4])
    where = lambda x: P(None, None, None, "data") if x.shape[-1] % 4 == 0 and x.ndim == 4 else P()
    shardings = jax.tree.map(lambda x: NamedSharding(mesh, where(x)), params)
    placed = spread(layers, shardings)
    tx = scale_by(placed, momentum=0.9)
    of_state = state_shardings(tx.init, params, shardings, placed)
    if not by_layers:
        (found,) = singd_optax.layers.rule_states(of_state)
        assert found.rule_states["conv"].blocks[0].spec[0] == "data"
        assert found.rule_states["conv"].moments[0].spec[0] == "data"
    state = jit(tx.init, out_shardings=of_state)(params)
    update = jit(tx.update, out_shardings=(shardings, of_state))
    alone = scale_by(layers, momentum=0.9)
    kept, update_alone = alone.init(params), jit(alone.update)
    for _ in range(2):
        got, state = update(jax.device_put(grads, shardings), state)
        want, kept = update_alone(grads, kept)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), got, want)


def test_errors():
    for options, match in (
        ({"damping": 0.0}, "`damping` must be a finite number > 0, got 0"),
        ({"b2": 1.0}, "`b2` must be a finite number >= 0 and < 1, got 1"),
        ({"damping_mode": "trace"}, "`damping_mode` must be .*'relative'"),
    ):
        with pytest.raises(ValueError, match=match):
            MiniBlockFisher(**options)
    kernel = jnp.ones((3, 4, 2))
    with pytest.raises(ValueError, match=r"must be 'dense', 'diagonal' or 'block_diagonal:k'"):
        scale_by(structures="lower_toeplitz").init(kernel)
    with pytest.raises(ValueError, match="one for each axis"):
        scale_by(matrix_axes={"": "each"}).init(kernel)
    for positions, match in (
        ((2, 2), "name each axis once"),
        ((0, 1), "which are"),
        (0, "a tuple"),
    ):
        axes = {"": Tiles((0, 1), (2,), {1: 2}, positions)}
        with pytest.raises(ValueError, match=match):
            scale_by(matrix_axes=axes).init(kernel)
