"""How matrices are cut into blocks, and what a bias's row changes."""

import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import singd_optax
from singd_optax.layers._table import factor_bytes
from singd_optax.structures import Auto, BlockDiagonal, Dense, parse_structure
from singd_optax.structures._block_sizes import balanced_blocks, full_blocks_first, spare_rows


@pytest.mark.parametrize("k", [1, 2, 3, 7, 8, 32, 256])
def test_balanced_sizes(k):
    for dim in (*range(1, 300), 769, 1025, 1601, 2049, 4097, 50257):
        groups = balanced_blocks(dim, k)
        sizes = [size for _, size in groups]
        spare = spare_rows(k)
        assert spare == (k >= 8)
        fewest = max(-(-(dim - spare) // k), 1)
        assert sum(count * size for count, size in groups) == dim
        assert all(count > 0 and 0 < size <= k + spare for count, size in groups)
        assert sum(count * max(size - k, 0) for count, size in groups) <= 1
        assert max(sizes) - min(sizes) == len(groups) - 1 <= 1
        # No block is less than half of what was asked for, and equal ones are found if there are.
        assert dim < k or 2 * (min(sizes) + 1) > k
        equal = [n for n in range(fewest, dim + 1) if dim % n == 0 and 4 * dim >= 3 * k * n]
        if equal:
            assert groups == [(equal[0], dim // equal[0])]
        else:
            assert sum(count for count, _ in groups) == fewest


def test_sizes_of_the_reference():
    assert full_blocks_first(1025, 256) == [(4, 256), (1, 1)]
    assert full_blocks_first(5, 8) == [(1, 5)]
    ours, theirs = parse_structure("block_diagonal:256"), parse_structure("block256diagonal")
    assert ours.eye(1025).blocks.shape == (5, 205, 205)
    assert ours.eye(1025).rest is None
    assert theirs.eye(1025, batch_shape=(2,)).rest.shape == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("structure", "products"), [("block_diagonal:8", 1), ("block8diagonal", 2)]
)
def test_operations_with_a_bias(structure, products):
    """Of 34 inputs and a bias: five blocks of seven, or four of eight and one of three."""
    factor = parse_structure(structure).eye(35)
    text = str(jax.make_jaxpr(lambda factor, x: factor @ x)(factor, jnp.ones((35, 3))))
    assert text.count("dot_general[") == products


def test_names_hashes_and_copies():
    ours, theirs = BlockDiagonal(32), BlockDiagonal(32, balanced=False)
    assert ours != theirs
    assert len({ours, theirs, BlockDiagonal(32)}) == 2
    assert repr(ours) == "BlockDiagonal(block_size=32)"
    assert repr(theirs) == "BlockDiagonal(block_size=32, balanced=False)"
    assert parse_structure("block32diagonal") == theirs
    for structure in (ours, theirs):
        assert eval(repr(structure)) == structure
        assert pickle.loads(pickle.dumps(structure)) == structure
        matrix = structure.eye(97)
        assert (matrix @ matrix).gram(jnp.ones((3, 97))).structure == structure
        leaves, treedef = jax.tree.flatten(matrix)
        assert jax.tree.unflatten(treedef, leaves).structure == structure
    with pytest.raises(TypeError):
        ours.eye(97) @ theirs.eye(97)
    with pytest.raises(TypeError, match="`balanced` must be True or False, got 1"):
        BlockDiagonal(32, balanced=1)


@pytest.mark.parametrize("dim", [1, 2, 7, 33, 97])
def test_entries_are_those_of_the_blocks(dim):
    structure = BlockDiagonal(8)
    square = np.random.default_rng(dim).normal(size=(dim, dim))
    symmetric = square + square.T
    which = np.repeat(
        np.arange(dim),
        (sizes := [s for n, s in balanced_blocks(dim, 8) for _ in range(n)])
        + [0] * (dim - len(sizes)),
    )
    expected = np.where(which[:, None] == which, symmetric, 0)
    found = structure.project(jnp.asarray(symmetric, jnp.float32))
    np.testing.assert_allclose(found.to_dense(), expected, rtol=1e-6)
    assert found.nbytes == factor_bytes(structure, dim, "float32") == 4 * np.sum(np.square(sizes))


def layers_of(features, use_bias, structures):
    model = nn.Dense(3, use_bias=use_bias)
    x = jax.ShapeDtypeStruct((8, features), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    loss_fn = lambda params, x: model.apply(params, x).sum()
    return singd_optax.find_layers(loss_fn, params, x, structures=structures)["params"]


def test_auto_does_not_count_the_bias():
    for features, use_bias, expected in [
        (8, False, Dense()),
        (8, True, Dense()),
        (9, False, BlockDiagonal(256)),
        (9, True, BlockDiagonal(256)),
    ]:
        spec = layers_of(features, use_bias, "auto:8")
        assert spec.structures == (expected, Dense()), (features, use_bias)
        again = spec.with_options(structures=(Auto(max_dense_dim=7), "auto:2"))
        assert again.structures == (BlockDiagonal(256), BlockDiagonal(256))
    nested = Auto(max_dense_dim=2, otherwise=Auto(max_dense_dim=8))
    assert layers_of(8, True, nested).structures == (Dense(), Dense())
    assert nested.resolve(9) == BlockDiagonal(256)


@pytest.mark.parametrize("name", ["singd", "kfac", "shampoo"])
def test_two_sizes_train(name):
    """Factors of two sizes of blocks: refreshed, inverted, rooted, one step after the other."""
    model = nn.Dense(7)
    x = jax.random.normal(jax.random.key(0), (16, 6))
    params = model.init(jax.random.key(1), x)
    loss_fn = lambda params, x: jnp.mean((model.apply(params, x) - 1) ** 2)
    if name == "shampoo":
        tx = singd_optax.shampoo(0.05, structures="block_diagonal:4")
        grad_fn = lambda params, x, opt_state: (*jax.value_and_grad(loss_fn)(params, x), None)
    else:
        layers = singd_optax.find_layers(loss_fn, params, x, structures="block_diagonal:4")
        assert layers["params"].structures[0].eye(7).rest.shape == (1, 4, 4)
        tx = getattr(singd_optax, name)(0.05, layers)
        grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jax.jit
    def step(params, opt_state):
        value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
        extra = {} if curvature is None else {"curvature": curvature}
        updates, opt_state = tx.update(grads, opt_state, params, **extra)
        return jax.tree.map(jnp.add, params, updates), opt_state, value

    opt_state, values = tx.init(params), []
    for _ in range(8):
        params, opt_state, value = step(params, opt_state)
        values.append(float(value))
    assert values[-1] < 0.8 * values[0]
