"""Structures against dense arithmetic, and against the reference's recorded numbers."""

from pathlib import Path

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singd_optax.structures import (
    STRUCTURES,
    BlockDiagonal,
    BlockDiagonalMatrix,
    Dense,
    Diagonal,
    Hierarchical,
    TriangularLowRank,
    TriangularToeplitz,
    parse_structure,
    stochastic_round,
)
from singd_optax.testing import (
    check_no_hidden_density,
    draw_structures,
    largest_array,
    structure_cases,
)
from singd_optax.testing._compile import quick_jit

REGISTERED = [example for entry in STRUCTURES for example in entry.examples]
STRUCTURED = [structure for structure in REGISTERED if structure != Dense()]
CASES = [case for structure in REGISTERED for case in structure_cases(structure)]
GOLDEN = Path(__file__).parent / "golden" / "structures.npz"
GOLDEN_NAMES = [
    "dense", "diagonal", "block3diagonal", "block30diagonal", "hierarchical2_3",
    "hierarchical15_15", "trilbottomrightdiag", "triltopleftdiag", "triubottomrightdiag",
    "triutopleftdiag", "triltoeplitz", "triutoeplitz",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conformance(case):
    case.check()


@pytest.mark.parametrize("structure", REGISTERED, ids=str)
@pytest.mark.parametrize("name", ["matmul", "transpose_matmul"])
def test_transposed_products_in_low_precision(structure, name):
    """Fully optimized: XLA on CPUs lost the promotion where it merged a product with its turn."""
    matrix = structure.eye(64, jnp.bfloat16)
    x = jnp.ones((64, 48), jnp.bfloat16)
    turned = jax.jit(lambda matrix, x: jnp.swapaxes(getattr(matrix, name)(x), -1, -2))
    np.testing.assert_allclose(turned(matrix, x), np.ones((48, 64)), rtol=1e-5)


def test_kit_catches_a_wrong_structure(monkeypatch):
    case = next(structure_cases(Diagonal(), dims=(5,), dtypes=("float32",), modes=("jit",)))
    matrix_type = type(Diagonal().eye(1))
    monkeypatch.setattr(matrix_type, "average_trace", lambda self: self.diagonal.sum(-1))
    with pytest.raises(AssertionError, match="average_trace"):
        case.check()


def test_kit_catches_blocks_taken_for_symmetric(monkeypatch):
    monkeypatch.setattr(BlockDiagonalMatrix, "transpose_matmul", BlockDiagonalMatrix.matmul)
    case = next(structure_cases(BlockDiagonal(2), dims=(5,), dtypes=("float32",), modes=("jit",)))
    with pytest.raises(AssertionError, match="transpose_matmul"):
        case.check()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dim", [1, 2, 5, 10, 33])
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden(name, dim):
    with np.load(GOLDEN, allow_pickle=False) as archive:
        wanted = ("sym1", "sym2", "X", f"{name}/")
        z = {
            key.removeprefix(f"{dim}/"): archive[key]
            for key in archive
            if key.startswith(tuple(f"{dim}/{start}" for start in wanted))
        }
    structure = parse_structure(name)
    sym1, sym2, x = (jnp.asarray(z[k]) for k in ("sym1", "sym2", "X"))

    def results(sym1, sym2, x):
        first = structure.project(sym1)
        A = first @ structure.project(sym2)
        return {
            "project_sym1": first.to_dense(),
            "sym1_times_sym2": A.to_dense(),
            "times_X": A @ x,
            "transpose_times_X": A.transpose_matmul(x),
            "gram_X": A.gram(x.T).to_dense(),
            "gram": A.gram().to_dense(),
            "average_trace": A.average_trace(),
            "max_abs": A.max_abs(),
            "frobenius": A.frobenius_norm(),
        }

    got = quick_jit(results)(sym1, sym2, x)
    for key, value in got.items():
        np.testing.assert_allclose(value, z[f"{name}/{key}"], rtol=0, atol=1e-10, err_msg=key)


@pytest.mark.parametrize("structure", REGISTERED, ids=repr)
def test_serialization_and_key_paths(structure):
    A = structure.eye(5, jnp.float32, (2,))
    restored = flax.serialization.from_bytes(A * 0, flax.serialization.to_bytes(A))
    assert type(restored) is type(A)
    np.testing.assert_array_equal(restored.to_dense(), A.to_dense())
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(A)]
    assert all(path.startswith(".") for path in paths)


@pytest.mark.parametrize("structure", REGISTERED, ids=repr)
def test_projection_keeps_the_trace(structure):
    square = jax.random.normal(jax.random.key(0), (3, 7, 7))
    symmetric = square + square.mT
    trace = jnp.trace(symmetric, axis1=1, axis2=2)
    np.testing.assert_allclose(structure.project(symmetric).average_trace() * 7, trace, rtol=1e-5)


def test_structures_do_not_mix():
    with pytest.raises(TypeError):
        Dense().eye(3) + Diagonal().eye(3)
    with pytest.raises(TypeError):
        Dense().eye(3) @ Diagonal().eye(3)


def test_golden_has_no_other_names():
    with np.load(GOLDEN, allow_pickle=False) as archive:
        recorded = {key.split("/")[1] for key in archive if key.count("/") == 2}
    assert recorded == set(GOLDEN_NAMES)


@pytest.mark.parametrize("structure", REGISTERED, ids=repr)
@pytest.mark.parametrize("dim", [2, 7])
def test_from_dense_reads_products(structure, dim):
    random = np.random.default_rng(dim)
    squares = jnp.asarray(random.normal(size=(2, 3, dim, dim)), jnp.float32)

    @quick_jit
    def write_and_read(first, second):
        factors = (structure.project(square + square.mT) for square in (first, second))
        A = (next(factors) @ next(factors)).astype(jnp.bfloat16)
        return A, structure.from_dense(A.to_dense())

    A, again = write_and_read(*squares)
    assert again.structure == structure
    jax.tree.map(np.testing.assert_array_equal, again, A)


@pytest.mark.parametrize("structure", STRUCTURED, ids=repr)
def test_no_hidden_density(structure):
    check_no_hidden_density(structure)


def test_density_is_seen_in_calls_and_loops():
    outer = jax.jit(lambda x: (x[:, None] * x).sum())
    assert (
        largest_array(lambda x: jax.lax.scan(lambda c, y: (c, outer(x)), 0.0, x), jnp.ones(9)) == 81
    )
    with pytest.raises(AssertionError, match=r"Dense\(\)"):
        check_no_hidden_density(Dense(), dim=64)


LARGER = [
    Dense(),
    Diagonal(),
    BlockDiagonal(32),
    Hierarchical(16, 16),
    *(TriangularLowRank(16, lower=low, diagonal=d) for low in (True, False)
      for d in ("bottom_right", "top_left")),
    TriangularToeplitz(),
    TriangularToeplitz(lower=False),
]  # fmt: skip


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("structure", LARGER, ids=repr)
def test_bfloat16_loses_no_more_than_the_rounding_of_its_inputs(structure):
    dim, n = 300, 400
    random = np.random.default_rng(0)
    square = random.normal(size=(2, dim, dim)) / dim**0.5
    exact = [structure.project(jnp.asarray(m + m.T)).add_identity(1.0) for m in square]
    x = jnp.asarray(random.normal(size=(dim, n)))

    def results(A, B, x):
        return {
            "multiply": A @ B,
            "matmul": A @ x,
            "transpose_matmul": A.transpose_matmul(x),
            "gram": A.gram(),
            "gram of few rows": A.gram(x.T[:9]),
            "gram of many rows": A.gram(x.T),
            "project_gram": structure.project_gram(x.T),
        }

    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (*exact, x))
    got = jax.jit(results)(*rounded)
    reference = quick_jit(results)
    of_rounded = reference(*jax.tree.map(lambda leaf: leaf.astype(jnp.float64), rounded))
    of_exact = reference(*exact, x)
    for name, value in got.items():
        leaves = zip(*map(jax.tree.leaves, (value, of_rounded[name], of_exact[name])), strict=True)
        for leaf, same_inputs, exact_inputs in leaves:
            assert leaf.dtype == jnp.float32
            size = jnp.abs(exact_inputs).max()
            # Accumulation, and products within, lose what float32 loses, and not bfloat16's 4e-3.
            assert jnp.abs(leaf - same_inputs).max() <= 5e-6 * size, name
            # So that what is left is the inputs' rounding, of 2^-9 each, four in a gram of rows.
            rounding = jnp.abs(same_inputs - exact_inputs).max()
            assert jnp.abs(leaf - exact_inputs).max() <= rounding + 5e-6 * size, name
            assert rounding <= 4 * 2.0**-9 * size, name


def test_pictures():
    pytest.importorskip("matplotlib")
    figure = draw_structures()
    titles = [axis.get_title() for axis in figure.axes]
    assert sum(bool(title) for title in titles) == len(REGISTERED)
    assert "24 of 576 numbers" in titles[1]
    assert len(draw_structures(["auto"], dim=8).axes) == 1
    with pytest.raises(ValueError, match="empty"):
        draw_structures([])


def test_stochastic_rounding_keeps_small_steps_and_special_values():
    x = jnp.full(4096, 1.0)
    step = 2.0**-12
    nearest, kept = x.astype(jnp.bfloat16), x.astype(jnp.bfloat16)
    for i in range(256):
        nearest = (nearest.astype(jnp.float32) + step).astype(jnp.bfloat16)
        kept = stochastic_round(kept.astype(jnp.float32) + step, jnp.bfloat16, jax.random.key(i))
    assert float(nearest.astype(jnp.float32).mean()) == 1.0  # all steps lost
    np.testing.assert_allclose(kept.astype(jnp.float32).mean(), 1 + 256 * step, rtol=2e-3)
    special = jnp.array([0.0, -0.0, jnp.inf, -jnp.inf, jnp.nan, 1.5, -3.0])
    rounded = stochastic_round(special, jnp.bfloat16, jax.random.key(0)).astype(jnp.float32)
    np.testing.assert_array_equal(rounded, special)
