"""``curvature_fraction="auto"``: all of few positions, and enough of many."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import singd_optax
from singd_optax.layers._convolution import Convolution
from singd_optax.layers._product import Product
from singd_optax.layers._spec import LEAST_EXAMPLES, LEAST_ROWS, ROWS_PER_DIM
from singd_optax.measures._sampling import strides

WIDE = 1024


def found(features=4, inputs=3, **options):
    model = nn.Dense(features)
    x = jax.ShapeDtypeStruct((8, 5, inputs), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    loss_fn = lambda params, x: model.apply(params, x).sum()
    return singd_optax.find_layers(loss_fn, params, x, **options)


def spec_of(**options):
    return found(curvature_fraction="auto", **options)["params"]


def left(leading, thinned):
    strided = dict(thinned)
    return [size // strided.get(axis, 1) for axis, size in enumerate(leading)]


@pytest.mark.parametrize("approx", ["expand", "reduce"])
@pytest.mark.parametrize("features", [1, 3, WIDE])
@pytest.mark.parametrize(
    "leading",
    [(), (1,), (4095,), (2**20,), (16, 64), (64, 63), (64, 8192), (4096, 127), (512, 8, 8), (3, 1)],
)
def test_enough_is_left(approx, features, leading):
    spec = spec_of(features=features, kfac_approx=approx)
    assert spec.enough_rows == max(LEAST_ROWS, ROWS_PER_DIM * max(features, 4))
    thinned = strides(spec, Product(), leading)
    kept = left(leading, thinned)
    rows, all_rows = kept, leading
    if approx == "reduce":
        rows, all_rows = kept[:1], leading[:1]
    assert math.prod(rows) >= min(spec.enough_rows, math.prod(all_rows))
    if leading:
        assert kept[0] >= min(LEAST_EXAMPLES, leading[0])
    # Nothing is left out where there is little.
    if math.prod(all_rows) < 2 * spec.enough_rows:
        assert thinned == ()


def test_many_positions_are_thinned():
    spec = spec_of(features=WIDE)
    assert strides(spec, Product(), (64, 8192)) == ((1, 64),)
    assert strides(spec, Product(), (2**20,)) == ((0, 128),)
    assert strides(spec, Product(), (2**15, 64)) == ((1, 64), (0, 4))


def test_some_images_are_left():
    """The pixels of one image are too much alike to be as many rows as there are."""
    spec = spec_of()
    window = Convolution((3, 3), ((0, 0), (0, 0)), (1, 1), (1, 1), (1, 1))
    assert strides(spec, window, (2 * LEAST_EXAMPLES, 64, 64)) == ((0, 2),)
    assert strides(spec, window, (LEAST_EXAMPLES, 64, 64)) == ()


def test_options_and_table():
    layers = found()
    assert layers["params"].curvature_fraction == "auto"
    same = layers.replace("params", curvature_fraction="auto")
    assert same["params"] == spec_of()
    assert same["params"].with_options(curvature_fraction=0.25).curvature_fraction == 0.25
    assert hash(same) == hash(found(curvature_fraction="auto"))
    assert f"of {LEAST_ROWS} rows or more" in repr(same)
    assert ", of" not in repr(layers.replace("params", curvature_fraction=1.0))
    assert "of 0.125 of it" in repr(layers.replace("params", curvature_fraction=1 / 8))
    with pytest.raises(ValueError, match=r"'auto', got 'atuo'\. Did you mean 'auto'"):
        layers.replace("params", curvature_fraction="atuo")
    with pytest.raises(ValueError, match="`curvature_fraction`"):
        found(curvature_fraction="all")


def measured(fraction, size):
    model = nn.Dense(3)
    x = jax.random.normal(jax.random.key(0), (size, 4))
    params = model.init(jax.random.key(1), x)
    loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
    layers = singd_optax.find_layers(loss_fn, params, x, curvature_fraction=fraction)
    opt_state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = jax.jit(singd_optax.value_and_grad(loss_fn, layers))
    statistics = grad_fn(params, x, opt_state=opt_state)[2]["params"]
    # Those at hand count, not those that they stand for.
    thinned = fraction == "auto" and size >= 2 * LEAST_ROWS
    assert int(statistics.rows) == (LEAST_ROWS if thinned else size)
    return np.asarray(statistics.H_K.to_dense()), np.asarray(statistics.H_C.to_dense())


def test_statistics_of_few_rows_are_of_all_and_of_many_are_near():
    for auto, whole in zip(measured("auto", 4095), measured(1.0, 4095), strict=True):
        np.testing.assert_array_equal(auto, whole)
    for auto, whole in zip(measured("auto", 2**15), measured(1.0, 2**15), strict=True):
        assert not np.array_equal(auto, whole)
        np.testing.assert_allclose(auto, whole, atol=0.25 * np.abs(whole).max())
