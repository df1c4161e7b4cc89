"""Shampoo against explicit inverse roots, and the roots themselves."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_soap import on_four_devices

import singd_optax
from singd_optax.layers._matrices import matrix_specs
from singd_optax.layers._tree import Leaves
from singd_optax.optimizers import Shampoo
from singd_optax.rules import inverse_root
from singd_optax.structures import BlockDiagonal
from singd_optax.testing._compile import quick_jit

METHODS = ("eigh", "newton")


def spectrum_matrix(values, seed=0):
    dim = values.shape[-1]
    square = np.random.default_rng(seed).normal(size=(*values.shape[:-1], dim, dim))
    vectors = np.linalg.qr(square)[0]
    return (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def numpy_root(matrix, root, ridge):
    values, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
    values = np.maximum(values, 0) + ridge * values[..., -1:]
    return (vectors * values[..., None, :] ** (-1 / root)) @ np.swapaxes(vectors, -1, -2)


def relative_error(got, want):
    return np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(want)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("root", [1, 2, 3, 4])
@pytest.mark.parametrize("method", METHODS)
def test_roots_are_exact_in_float64(method, root):
    matrix = spectrum_matrix(np.geomspace(1e-3, 10, 12) * np.array([1.0, 1e-20, 1e20])[:, None])
    got, good = quick_jit(lambda m: inverse_root(m, root, ridge=1e-9, method=method))(matrix)
    assert good.all()
    for one, wanted in zip(got, numpy_root(matrix, root, 1e-9), strict=True):
        assert relative_error(one, wanted) < 1e-9
        np.testing.assert_allclose(one, one.T, rtol=0, atol=1e-12 * np.abs(one).max())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rank", [1, 40])
@pytest.mark.parametrize("method", METHODS)
def test_roots_of_singular_matrices_in_float32(method, rank):
    """Gradients of few examples: all eigenvalues but a few are zero, up to the ridge."""
    rows = np.random.default_rng(0).normal(size=(rank, 40))
    matrix = rows.T @ rows
    root_of = quick_jit(lambda matrix: inverse_root(matrix, 4, ridge=1e-6, method=method))
    got, good = root_of(jnp.asarray(matrix, jnp.float32))
    assert good
    # What float32 makes of zeros, 1e-7 λ_max, is next to the ridge.
    assert relative_error(got, numpy_root(matrix, 4, 1e-6)) < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_bad_matrices_are_reported(method):
    bad = jnp.stack([jnp.eye(3), jnp.full((3, 3), jnp.nan), jnp.zeros((3, 3)), 4 * jnp.eye(3)])
    root, good = quick_jit(lambda bad: inverse_root(bad, 2, ridge=0.0, method=method))(bad)
    np.testing.assert_array_equal(good, [True, False, False, True])
    np.testing.assert_allclose(root[0], jnp.eye(3), atol=1e-5)
    np.testing.assert_allclose(root[3], jnp.eye(3) / 2, atol=1e-5)


def compiled(tx):
    return quick_jit(tx.init), quick_jit(tx.update)


def random_gradients(shape, steps, dtype=np.float64):
    return np.random.default_rng(1).normal(size=(steps, *shape)).astype(dtype)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("b2", [0.9, None])
def test_exact_against_explicit_roots(b2, method):
    eps = 1e-4
    gradients = random_gradients((5, 7), 6)
    init, update = compiled(singd_optax.scale_by_shampoo(b2=b2, eps=eps, root_method=method))
    state = init(jnp.asarray(gradients[0]))
    L, R, weight = np.zeros((5, 5)), np.zeros((7, 7)), 0.0
    for gradient in gradients:
        updates, state = update(jnp.asarray(gradient), state)
        decay, fresh = (1, 1) if b2 is None else (b2, 1 - b2)
        L, R = decay * L + fresh * gradient @ gradient.T, decay * R + fresh * gradient.T @ gradient
        weight = 1 if b2 is None else decay * weight + fresh
        want = numpy_root(L / weight, 4, eps) @ gradient @ numpy_root(R / weight, 4, eps)
        # Newton's λ_max, and so its ridge, is by power iteration.
        assert relative_error(updates, want) < (1e-10 if method == "eigh" else 1e-3)
    moments = state.rule_states[""]
    np.testing.assert_allclose(moments.L.to_dense(), L, rtol=1e-10)
    np.testing.assert_allclose(moments.R.to_dense(), R, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_blocks_have_moments_of_their_own():
    gradients = random_gradients((5, 3), 3)
    init, update = compiled(
        singd_optax.scale_by_shampoo(b2=None, eps=1e-6, structures="block2diagonal")
    )
    state = init(jnp.asarray(gradients[0]))
    for gradient in gradients:
        updates, state = update(jnp.asarray(gradient), state)
    L, R = sum(g @ g.T for g in gradients), sum(g.T @ g for g in gradients)

    def blocks(matrix):
        result = np.zeros_like(matrix)
        for start in range(0, len(matrix), 2):
            part = slice(start, start + 2)
            result[part, part] = numpy_root(matrix[part, part], 4, 1e-6)
        return result

    np.testing.assert_allclose(updates, blocks(L) @ gradients[-1] @ blocks(R), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_other_roots_and_the_interval():
    gradients = random_gradients((4, 4), 5)
    tx = singd_optax.scale_by_shampoo(b2=None, eps=1e-6, root=2, refresh_every=2)
    init, update = compiled(tx)
    state = init(jnp.asarray(gradients[0]))
    L = R = 0
    for step, gradient in enumerate(gradients):
        updates, state = update(jnp.asarray(gradient), state)
        L, R = L + gradient @ gradient.T, R + gradient.T @ gradient
        if step % 2 == 0:
            A, B = numpy_root(L, 2, 1e-6), numpy_root(R, 2, 1e-6)
        np.testing.assert_allclose(updates, A @ gradient @ B, rtol=1e-8)


@pytest.mark.usefixtures("x64")
def test_kernels_are_merged_and_stacks_kept_apart():
    params = {
        "conv": jnp.asarray(random_gradients((3, 3, 2, 5), 1)[0]),
        "stack": jnp.asarray(random_gradients((4, 6, 2), 1)[0]),
        "out": jnp.asarray(random_gradients((2, 3, 6), 1)[0]),
    }
    axes = {"stack": ((2,), (0,))}
    specs = matrix_specs(Leaves(params), structures="dense", matrix_axes=axes)
    assert {path: spec.dims for path, spec in specs.items()} == {
        "conv": (9, 10),
        "out": (6, 6),
        "stack": (2, 4),
    }
    for path, spec in specs.items():
        matrix = spec.to_matrix(params[path])
        np.testing.assert_array_equal(*spec.from_matrix(matrix), params[path])
    init, update = compiled(singd_optax.scale_by_shampoo(matrix_axes=axes))
    updates, _ = update(params, init(params))
    for path in ("conv", "out"):
        matrix = params[path].reshape(specs[path].dims)
        alone, _ = update(matrix, init(matrix))
        np.testing.assert_allclose(updates[path].reshape(alone.shape), alone, rtol=1e-10)
    for index in range(6):
        layer = params["stack"][:, index].T
        alone, _ = update(layer, init(layer))
        np.testing.assert_allclose(updates["stack"][:, index].T, alone, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("grafting", "reference"),
    [
        ("sgd", optax.identity()),
        ("rmsprop", optax.scale_by_adam(b1=0.0)),
        ("adam", optax.scale_by_adam()),
    ],
)
def test_grafting(grafting, reference):
    gradients = jnp.asarray(random_gradients((4, 6), 4))
    plain, grafted = (singd_optax.scale_by_shampoo(grafting=kind) for kind in (None, grafting))
    inits, steps = zip(*map(compiled, (plain, grafted, reference)), strict=True)
    states = [init(gradients[0]) for init in inits]
    for gradient in gradients:
        (own, states[0]), (updates, states[1]), (step, states[2]) = (
            update(gradient, state) for update, state in zip(steps, states, strict=True)
        )
        want = own * jnp.linalg.norm(step) / jnp.linalg.norm(own)
        np.testing.assert_allclose(updates, want, rtol=1e-7)


@pytest.mark.usefixtures("x64")
def test_one_sided():
    """The square root on the side that has a factor: (E[G Gᵀ])^(-1/2) G, as ASGO has it."""
    gradients = random_gradients((4, 6), 5)
    options = {"structures": ("dense", "identity"), "root": 2, "b2": 0.8, "eps": 1e-9}
    init, update = compiled(singd_optax.scale_by_shampoo(**options))
    state, L = init(jnp.asarray(gradients[0])), 0
    for count, gradient in enumerate(gradients, 1):
        updates, state = update(jnp.asarray(gradient), state)
        L = 0.8 * L + 0.2 * gradient @ gradient.T
        want = numpy_root(L / (1 - 0.8**count), 2, 1e-9) @ gradient
        np.testing.assert_allclose(updates, want, rtol=1e-8)
    assert not jax.tree.leaves(state.rule_states[""].C)


@pytest.mark.usefixtures("x64")
def test_without_memory_it_is_muon():
    """With b2 = 0 the step is the polar factor, by both sides or by one."""
    gradient = jnp.asarray(random_gradients((4, 4), 1)[0])
    U, _, V = np.linalg.svd(gradient)
    for options in ({}, {"structures": ("dense", "identity"), "root": 2}):
        init, update = compiled(singd_optax.scale_by_shampoo(b2=0.0, eps=0.0, **options))
        updates, _ = update(gradient, init(gradient))
        np.testing.assert_allclose(updates, U @ V, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_no_root_is_taken_on_two_devices(method):
    """Of six matrices on four devices: two on each, of which two are idle work."""
    text, got, want = on_four_devices(singd_optax.scale_by_shampoo, root_method=method)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3), got, want)
    if method == "eigh":
        calls = re.findall(r"= \(?f32\[([\d,]+)\][^=]*custom-call\(.*lapack_ssyevd", text)
        assert calls
        assert {int(np.prod([int(n) for n in call.split(",")])) for call in calls} == {36}
        assert re.findall(r'known_trip_count":{"n":"(\d+)"', text) == ["2"]
    else:
        products = re.findall(r"= f32\[([\d,]+)\]\S* dot\(", text)
        stacks = [[int(n) for n in shape.split(",")] for shape in products if shape.endswith("6,6")]
        assert {math.prod(shape[:-2]) for shape in stacks} == {2}


def test_a_failed_root_keeps_the_old_one_and_is_counted():
    good = jnp.asarray(random_gradients((4, 3), 1, np.float32)[0])
    init, update = compiled(singd_optax.scale_by_shampoo(structures=BlockDiagonal(2)))
    _, state = update(good, init(good))
    bad = good.at[2:].multiply(1e30)  # finite, but its square is not
    _, poisoned = update(bad, state)
    assert int(poisoned.skipped_refreshes[""]) == 1
    old, new = (s.rule_states[""].K.blocks for s in (state, poisoned))
    np.testing.assert_array_equal(new, old)
    moments = ([s.rule_states[""].L, s.rule_states[""].R] for s in (state, poisoned))
    jax.tree.map(np.testing.assert_array_equal, *moments)  # it would never leave them again

    rule = Shampoo(root_method="newton")
    spec = matrix_specs(Leaves(good), structures="block_diagonal:2")[""]
    own = state.rule_states[""]
    indefinite = own.L.replace(blocks=own.L.blocks.at[1].set(jnp.diag(jnp.array([1.0, -1]))))
    own = own._replace(L=indefinite * 2)
    count = jnp.zeros([], int)
    refresh = quick_jit(lambda own: rule.refresh(spec, own, None, good, count, None))
    (A, *_), right = refresh(own)
    assert not right
    np.testing.assert_array_equal(A.blocks[1], old[1])
    assert np.abs(A.blocks[0] - old[0]).max() > 1e-3


def test_memory_is_that_of_blocks():
    params = {"wide": jnp.zeros((4096, 64))}
    state = jax.eval_shape(singd_optax.scale_by_shampoo(structures=BlockDiagonal(512)).init, params)
    shapes = {leaf.shape for leaf in jax.tree.leaves(singd_optax.factors(state))}
    assert shapes == {(8, 512, 512), (1, 64, 64)}


def test_errors():
    scale = singd_optax.scale_by_shampoo
    with pytest.raises(ValueError, match="`b2` must be a finite number >= 0 and < 1, got 1"):
        scale(b2=1.0)
    with pytest.raises(ValueError, match="`root` must be an int >= 1, got 0"):
        scale(root=0)
    with pytest.raises(ValueError, match="`root_method` must be one of 'eigh', 'newton', got 'qr'"):
        scale(root_method="qr")
    with pytest.raises(ValueError, match="`grafting` must be one of 'sgd', 'rmsprop', 'adam'"):
        scale(grafting="adamw")
    with pytest.raises(TypeError, match="`block_size` must be an int"):
        scale(structures=BlockDiagonal(2.5))
    with pytest.raises(ValueError, match="`refresh_every` must be an int >= 1"):
        scale(refresh_every=0)
    with pytest.raises(TypeError, match="`matrix_axes` must be None or a dict"):
        scale(matrix_axes=[1])
    with pytest.raises(ValueError, match=r"do not fit 'w' of shape \(3, 4\): name each axis once"):
        scale(matrix_axes={"w": ((0,), (2,))}).init({"w": jnp.ones((3, 4))})
    with pytest.raises(ValueError, match=r"or Identity.*got Diagonal"):
        singd_optax.scale_by_rule(Shampoo(), structures="diagonal").init(jnp.ones((2, 2)))
    tx = scale()
    with pytest.raises(ValueError, match=r"matrices at \['b'\], the optimizer state is of \['a'\]"):
        tx.update({"b": jnp.ones((2, 2))}, tx.init({"a": jnp.ones((2, 2))}))
    with pytest.raises(ValueError, match=r"'a'.* 2 x 2 .* 3 x 3 "):
        tx.update({"a": jnp.ones((2, 3))}, tx.init({"a": jnp.ones((2, 2))}))
