"""String forms, arguments and the choice of structures."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import singd_optax
from singd_optax.structures import (
    STRUCTURES,
    Auto,
    BlockDiagonal,
    Dense,
    Diagonal,
    Hierarchical,
    TriangularLowRank,
    TriangularToeplitz,
    parse_structure,
    parse_structures,
)


@pytest.mark.parametrize(
    ("name", "structure"),
    [
        ("dense", Dense()),
        ("diagonal", Diagonal()),
        ("block_diagonal:32", BlockDiagonal(32)),
        ("block7diagonal", BlockDiagonal(7, balanced=False)),
        ("hierarchical:15,3", Hierarchical(15, 3)),
        ("hierarchical15_3", Hierarchical(15, 3)),
        ("lower_triangular:4", TriangularLowRank(4)),
        ("lower_triangular:4,top_left", TriangularLowRank(4, diagonal="top_left")),
        ("upper_triangular:4", TriangularLowRank(4, lower=False)),
        ("upper_triangular:4,top_left", TriangularLowRank(4, lower=False, diagonal="top_left")),
        ("trilbottomrightdiag", TriangularLowRank(1)),
        ("triltopleftdiag", TriangularLowRank(1, diagonal="top_left")),
        ("triubottomrightdiag", TriangularLowRank(1, lower=False)),
        ("triutopleftdiag", TriangularLowRank(1, lower=False, diagonal="top_left")),
        ("lower_toeplitz", TriangularToeplitz()),
        ("triltoeplitz", TriangularToeplitz(lower=True)),
        ("upper_toeplitz", TriangularToeplitz(lower=False)),
        ("triutoeplitz", TriangularToeplitz(lower=False)),
        ("auto", Auto()),
        ("auto:512", Auto(max_dense_dim=512)),
    ],
)
def test_names(name, structure):
    assert parse_structure(name) == structure
    assert parse_structure(structure) is structure


def test_every_registered_form_parses():
    for entry in STRUCTURES:
        for form in entry.forms | entry.aliases:
            assert isinstance(
                parse_structure(form.replace("N", "3")), singd_optax.structures.Structure
            )


@pytest.mark.parametrize(
    ("argument", "error", "words"),
    [
        ("dens", ValueError, ["'dens'", "mean 'dense'", "'diagonal'", "'hierarchical:N,N'"]),
        ("blockdiagonal:32", ValueError, ["mean 'block_diagonal:32'"]),
        ("hierarchical:4", ValueError, ["mean 'hierarchical:4,N'"]),
        ("toeplitz", ValueError, ["toeplitz'?"]),
        ("block_diagonal:N", ValueError, ["a number for each N"]),
        ("block_diagonal:-3", ValueError, ["mean 'block_diagonal:3'"]),
        ("block_diagonal:0", ValueError, ["`block_size`", "got 0"]),
        ("hierarchical:3,0", ValueError, ["`k2`", "got 0"]),
        (3, TypeError, ["3", "int", "Dense()"]),
        (None, TypeError, ["None"]),
    ],
)
def test_unknown_structure(argument, error, words):
    with pytest.raises(error) as caught:
        parse_structure(argument)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("construct", "error", "words"),
    [
        (lambda: BlockDiagonal(0), ValueError, "`block_size` must be an int >= 1, got 0"),
        (
            lambda: BlockDiagonal(2.0),
            TypeError,
            "`block_size` must be an int >= 1, got 2.0 of type",
        ),
        (lambda: BlockDiagonal(True), TypeError, "got True of type bool"),
        (lambda: Hierarchical(3, -1), ValueError, "`k2` must be an int >= 1, got -1"),
        (lambda: TriangularLowRank(0), ValueError, "`rank` must be an int >= 1, got 0"),
        (lambda: TriangularLowRank(1, lower="no"), TypeError, "`lower` must be True or False"),
        (
            lambda: TriangularLowRank(1, diagonal="left"),
            ValueError,
            "`diagonal` must be one of 'bottom_right', 'top_left', got 'left'",
        ),
        (lambda: TriangularToeplitz(lower=1), TypeError, "`lower` must be True or False, got 1"),
        (lambda: Auto(max_dense_dim=0), ValueError, "`max_dense_dim` must be an int >= 1"),
        (lambda: Auto(otherwise="diagonal"), TypeError, "`otherwise` must be a singd_optax"),
    ],
)
def test_arguments_are_checked(construct, error, words):
    with pytest.raises(error, match=re.escape(words)):
        construct()


def test_pairs():
    assert parse_structures("diagonal") == (Diagonal(), Diagonal())
    assert parse_structures(["dense", Diagonal()]) == (Dense(), Diagonal())
    with pytest.raises(ValueError, match="pair"):
        parse_structures(("dense", "dense", "dense"))


def test_auto_chooses_by_dim():
    auto = Auto(max_dense_dim=8, otherwise=Auto(max_dense_dim=16, otherwise=Diagonal()))
    assert auto.resolve(8) == Dense()
    assert auto.resolve(17) == Diagonal()
    assert Diagonal().resolve(3) == Diagonal()
    for dim in (8, 17):
        matrices = [
            auto.eye(dim),
            auto.zeros(dim),
            auto.project(jnp.eye(dim)),
            auto.project_gram(jnp.ones((2, dim))),
            auto.from_dense(jnp.eye(dim)),
        ]
        assert {matrix.structure for matrix in matrices} == {auto.resolve(dim)}


def test_auto_is_resolved_when_layers_are_found():
    model = nn.Sequential([nn.Dense(2000), nn.Dense(4)])
    x = jax.ShapeDtypeStruct((8, 5), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]

    def loss_fn(params, x):
        return model.apply({"params": params}, x).sum()

    layers = singd_optax.find_layers(loss_fn, params, x, structures="auto")
    wide = Auto().otherwise
    assert layers["layers_0"].structures == (Dense(), wide)
    assert layers["layers_1"].structures == (wide, Dense())
    assert "2001 BlockDiagonal(block_size=256)" in repr(layers)
    assert "Auto" not in repr(layers)
    layers = layers.replace("layers_1", structures=(Auto(max_dense_dim=2001), "auto:3"))
    assert layers["layers_1"].structures == (Dense(), wide)
    assert layers.replace("layers", structures="auto")["layers_1"].structures == (wide, Dense())
