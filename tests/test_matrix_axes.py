"""How arrays make matrices: by a cut, by given axes, merged, each axis by itself, in tiles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import singd_optax
from singd_optax.layers import Merged, Tiles, UpTo

RULES = ("shampoo", "caspr", "inverse_free_shampoo")


def gradients():
    rng = np.random.default_rng(0)
    return {
        "conv": jnp.asarray(rng.normal(size=(3, 3, 4, 6)), jnp.float32),
        "qkv": jnp.asarray(rng.normal(size=(8, 24)), jnp.float32),
        "bias": jnp.ones(3),
    }


def leaves_of(tree):
    return [
        ("/".join(key.key for key in path), leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def updated(tx, tree):
    return jax.jit(tx.update)(tree, tx.init(tree), tree)[0]


def scale(**options):
    return singd_optax.scale_by_shampoo(eps=1e-2, **options)


@pytest.mark.parametrize(
    ("axes", "names", "dims"),
    [
        ("cut", ["conv"], [(9, 24)]),
        (((0, 1, 2), (3,)), ["conv"], [(36, 6)]),
        (Merged(36), ["conv"], [(36, 6)]),
        (Merged(9), ["conv[0,1]", "conv[2]", "conv[3]"], [(9, 24), (4, 54), (6, 36)]),
        (Merged(1000), ["conv"], [(9, 24)]),
        ("each", [f"conv[{i}]" for i in range(4)], [(3, 72), (3, 72), (4, 54), (6, 36)]),
        (Tiles((0, 1), (3,)), ["conv"], [(9, 6)]),
        (Tiles((0, 1, 2), (3,), {3: 2, 2: 2}), ["conv"], [(18, 3)]),
    ],
)
def test_matrices(axes, names, dims):
    found = singd_optax.find_matrices(gradients(), matrix_axes={"conv": axes, "qkv": None})
    assert list(found) == names
    assert [spec.dims for spec in found.values()] == dims
    for spec in found.values():
        array = gradients()["conv"]
        (back,) = spec.from_matrix(spec.to_matrix(array))
        np.testing.assert_array_equal(back, array)
    assert [other.path for other in found.others] == ["bias", "qkv"]
    assert 0 < found.coverage < 1
    assert all(name in repr(found) for name in names)


@pytest.mark.parametrize("name", RULES)
def test_tiles_are_separate_matrices(name):
    options = {} if name == "inverse_free_shampoo" else {"eps": 1e-2}
    make = lambda **axes: getattr(singd_optax, f"scale_by_{name}")(**options, **axes)
    kernel = gradients()["qkv"]
    whole = updated(make(matrix_axes={"qkv": Tiles((0,), (1,), {1: 3})}), {"qkv": kernel})["qkv"]
    for index in range(3):
        part = slice(8 * index, 8 * (index + 1))
        alone = updated(make(), {"qkv": kernel[:, part]})["qkv"]
        np.testing.assert_allclose(whole[:, part], alone, rtol=2e-4, atol=1e-5)
    full = updated(make(matrix_axes={"qkv": Tiles((0,), (1,), {0: 1})}), {"qkv": kernel})
    np.testing.assert_allclose(full["qkv"], updated(make(), {"qkv": kernel})["qkv"], rtol=1e-4)


def test_each_axis_by_itself():
    """One root after the other, along every axis."""
    kernel = np.asarray(gradients()["conv"], float)
    want = kernel
    for axis in range(4):
        rows = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
        values, vectors = np.linalg.eigh(rows @ rows.T)
        root = vectors @ np.diag((values + 1e-2 * values.max()) ** -0.25) @ vectors.T
        want = np.moveaxis(np.tensordot(root, want, (1, axis)), 0, axis)
    got = updated(scale(matrix_axes={"conv": "each"}), gradients())["conv"]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("axes", ["each", Merged(9), Tiles((0, 1), (3,))], ids=str)
def test_complete_optimizers(name, axes):
    """With momenta and sizes of the whole parameter, and the same by layers."""
    make = getattr(singd_optax, name)
    matrix_axes = {"conv": axes}
    tree = gradients()
    found = singd_optax.find_matrices(tree, matrix_axes=matrix_axes)
    got = updated(make(0.1, matrix_axes=matrix_axes, weight_decay=0.0), tree)
    want = updated(make(0.1, found, weight_decay=0.0), tree)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, want)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))


@pytest.mark.parametrize("name", ["soap", "kl_shampoo", "psgd_kron", "normuon", "sm3"])
@pytest.mark.parametrize("axes", ["each", Merged(9)], ids=str)
def test_axes_one_after_the_other_are_of_rules_without_a_size(name, axes):
    tree = gradients()
    make = getattr(singd_optax, f"scale_by_{name}")
    found = singd_optax.find_matrices(tree, matrix_axes={"conv": axes})
    for tx in (make(matrix_axes={"conv": axes}), make(found)):
        with pytest.raises(ValueError, match=r"of 'conv', one for each axis.*or 'cut'"):
            tx.init(tree)


def test_what_is_left_out_says_so():
    found = singd_optax.find_matrices(gradients(), matrix_axes={"q.*": None})
    reasons = {other.path: other.reason for other in found.others}
    assert reasons == {"bias": "no matrix", "qkv": "left out by `matrix_axes`"}


def test_a_limit_on_sides():
    """What has a longer side is left to the fallback, by its shape alone."""
    tree = {
        "embed": jnp.ones((40, 3)),
        "position": jnp.ones((1, 9, 3)),
        "kernel": jnp.ones((3, 3, 4)),
        "bias": jnp.ones(41),
    }
    found = singd_optax.find_matrices(tree, matrix_axes={".*": UpTo(9)})
    assert {path: spec.dims for path, spec in found.items()} == {
        "kernel": (9, 4),
        "position": (9, 3),
    }
    assert {other.path: other.reason for other in found.others} == {
        "bias": "no matrix",
        "embed": "left out by `matrix_axes`",
    }
    tx = singd_optax.soap(0.1, fallback=optax.sgd(1.0), matrix_axes={".*": UpTo(9)})
    updates, _ = tx.update(tree, tx.init(tree), tree)
    np.testing.assert_array_equal(updates["embed"], -tree["embed"])
    assert (updates["kernel"] > -0.2).all()
    with pytest.raises(ValueError, match=r"`UpTo.size` must be an int >= 1, got 0"):
        singd_optax.find_matrices(tree, matrix_axes={".*": UpTo(0)})


def test_errors():
    tree = gradients()
    with pytest.raises(ValueError, match="name each axis once"):
        singd_optax.find_matrices(tree, matrix_axes={"qkv": ((0,), (2,))})
    with pytest.raises(ValueError, match="a multiple of 5"):
        singd_optax.find_matrices(tree, matrix_axes={"qkv": Tiles((0,), (1,), {1: 5})})
    with pytest.raises(ValueError, match="'cut' or 'each'"):
        singd_optax.shampoo(0.1, matrix_axes={"qkv": "all"})
    with pytest.raises(ValueError, match="nothing to precondition"):
        singd_optax.find_matrices({"bias": jnp.ones(3)})
    found = singd_optax.find_matrices(tree)
    with pytest.raises(TypeError, match="matrices from find_matrices"):
        singd_optax.singd(0.1, found)
    with pytest.raises(ValueError, match="`structures` is for optimizers without `layers`"):
        singd_optax.shampoo(0.1, found, structures="dense")
    with pytest.raises(ValueError, match="`kfac_approx` is an option of layers that are measured"):
        found.replace("qkv", kfac_approx="reduce")
    assert list(found.without("conv")) == ["qkv"]
    assert (
        found.replace("qkv", structures=("dense", "identity"))["qkv"].structures[1].eye(2).dim == 2
    )


def test_embeddings_are_left_to_the_fallback():
    """Of complete optimizers, by name, unless a pattern says how; the table shows it."""
    tree = {
        "embed": {"embedding": jnp.ones((7, 4))},
        "pos_embed": jnp.ones((5, 4)),
        "position": jnp.ones((5, 4)),
        "patch_embedding": {"kernel": jnp.ones((6, 4))},
        "head": {"kernel": jnp.ones((4, 7)), "bias": jnp.ones(7)},
    }
    kernels = ["head/kernel", "patch_embedding/kernel"]
    found = singd_optax.find_matrices(tree)
    assert sorted(found) == kernels
    assert {other.path: other.reason for other in found.others} == {
        "embed/embedding": "an embedding, by its name",
        "pos_embed": "an embedding, by its name",
        "position": "an embedding, by its name",
        "head/bias": "no matrix",
    }
    assert "an embedding, by its name" in str(found)

    def preconditioned(name="shampoo", **options):
        tx = getattr(singd_optax, name)(0.1, fallback=optax.sgd(1.0), **options)

        @jax.jit
        def first_step(tree):
            opt_state = tx.init(tree)
            return opt_state, tx.update(tree, opt_state, tree)[0]

        opt_state, updates = first_step(tree)
        (state,) = singd_optax.layers.rule_states(opt_state)
        by_fallback = [path for path, x in leaves_of(updates) if np.all(np.asarray(x) == -1)]
        assert not set(by_fallback) & set(state.rule_states)
        return sorted(state.rule_states)

    everything = sorted([*kernels, "embed/embedding", "pos_embed", "position"])
    assert preconditioned() == kernels
    assert preconditioned(matrix_axes={"pos.*": "cut"}) == sorted(
        [*kernels, "pos_embed", "position"]
    )
    assert preconditioned(matrix_axes={".*": "cut"}) == everything
    assert preconditioned("sm3") == everything
    bare = singd_optax.scale_by_shampoo()
    assert sorted(bare.init(tree).rule_states) == everything
    with pytest.raises(ValueError, match=r"nothing to precondition, as embeddings are left"):
        singd_optax.find_matrices({"embedding": jnp.ones((3, 2))})
