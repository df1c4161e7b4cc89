"""Structures against dense arithmetic, and against the reference's recorded numbers."""

from pathlib import Path

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singd_optax.structures import (
    STRUCTURES,
    Dense,
    Diagonal,
    parse_structure,
    parse_structures,
    stochastic_round,
)
from singd_optax.testing import structure_cases

REGISTERED = [parse_structure(name) for name in sorted(STRUCTURES)]
CASES = [case for structure in REGISTERED for case in structure_cases(structure)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conformance(case):
    case.check()


def test_kit_catches_a_wrong_structure(monkeypatch):
    case = next(structure_cases(Diagonal(), dims=(5,), dtypes=("float32",), modes=("eager",)))
    matrix_type = type(Diagonal().eye(1))
    monkeypatch.setattr(matrix_type, "average_trace", lambda self: self.diagonal.sum(-1))
    with pytest.raises(AssertionError, match="average_trace"):
        case.check()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dim", [1, 2, 5, 10, 33])
@pytest.mark.parametrize("name", sorted(STRUCTURES))
def test_golden(name, dim):
    file = Path(__file__).parent / "golden" / "structures.npz"
    with np.load(file, allow_pickle=False) as archive:
        prefix = f"{dim}/"
        z = {k.removeprefix(prefix): archive[k] for k in archive if k.startswith(prefix)}
    structure = parse_structure(name)
    sym1, sym2, x = (jnp.asarray(z[k]) for k in ("sym1", "sym2", "X"))
    first = structure.project(sym1)
    A = first @ structure.project(sym2)
    got = {
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


@pytest.mark.parametrize(
    ("argument", "error", "words"),
    [
        ("dens", ValueError, ["'dens'", "'dense'", "'diagonal'"]),
        (3, TypeError, ["3", "int", "Dense()"]),
        (None, TypeError, ["None"]),
    ],
)
def test_unknown_structure(argument, error, words):
    with pytest.raises(error) as caught:
        parse_structure(argument)
    assert all(word in str(caught.value) for word in words)


def test_pairs():
    assert parse_structures("diagonal") == (Diagonal(), Diagonal())
    assert parse_structures(["dense", Diagonal()]) == (Dense(), Diagonal())
    with pytest.raises(ValueError, match="pair"):
        parse_structures(("dense", "dense", "dense"))


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
