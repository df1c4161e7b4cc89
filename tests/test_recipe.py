"""What makes the recipe robust: no scale, bounded steps, a sample of positions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import jit

import singd_optax
from singd_optax.measures._sampling import starts, strides, thin
from singd_optax.optimizers import SINGD
from singd_optax.rules._inverse_free import bounded_step
from singd_optax.structures import Dense, DenseMatrix, Diagonal

pytestmark = pytest.mark.usefixtures("x64")
X = np.random.default_rng(0).normal(size=(24, 5))
Y = np.sin(X @ np.arange(5.0) / 3)[:, None]
MODEL = nn.Sequential([nn.Dense(6, param_dtype=float), nn.tanh, nn.Dense(1, param_dtype=float)])
DRAW = np.random.default_rng(1).normal
PARAMS = {
    "params": {
        "layers_0": {"kernel": DRAW(size=(5, 6)) / 2, "bias": np.zeros(6)},
        "layers_2": {"kernel": DRAW(size=(6, 1)) / 2, "bias": np.zeros(1)},
    }
}


def loss_fn(params, x, y, scale=1.0):
    return scale * jnp.mean((MODEL.apply(params, x) - y) ** 2)


def train(scales, steps=12, dtype="float64", **options):
    """Parameters, state and unscaled losses after steps on losses times ``scales``."""
    layers = singd_optax.find_layers(loss_fn, PARAMS, X, Y, factor_dtype=dtype)
    tx = singd_optax.singd(0.05, layers, refresh_every=2, **options)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jit
    def step(params, opt_state, scale):
        value, grads, curvature = grad_fn(params, X, Y, scale, opt_state=opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
        return optax.apply_updates(params, updates), opt_state, value / scale

    carry, values = (PARAMS, tx.init(PARAMS)), []
    for i in range(steps):
        scale = scales(i) if callable(scales) else scales
        *carry, value = step(*carry, scale)
        values.append(float(value))
    return *carry, values


@pytest.mark.parametrize("scale", [1e3, 1e-3])
def test_scale_of_the_loss_drops_out(scale):
    want, _, _ = train(1.0)
    got, opt_state, _ = train(scale)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9), got, want)
    assert set(singd_optax.factors(opt_state)) == {"params/layers_0", "params/layers_2"}


@pytest.mark.parametrize("options", [{}, {"factor_momentum": 0.9}, {"factor_learning_rate": 1.0}])
def test_one_spike_does_not_destroy_the_factors(options):
    _, calm, _ = train(1.0, steps=30, **options)
    _, spiked, _ = train(lambda i: 1e4 if i == 10 else 1.0, steps=30, **options)
    for path, pair in singd_optax.factors(spiked).items():
        for factor, other in zip(pair, singd_optax.factors(calm)[path], strict=True):
            values = np.linalg.svd(factor.to_dense(), compute_uv=False)
            usual = np.linalg.svd(other.to_dense(), compute_uv=False)
            assert values.max() < 100 * usual.max()
            assert values.min() > usual.min() / 100
    skipped = optax.tree.get(spiked, "skipped_refreshes").values()
    assert all(int(count) == 0 for count in skipped)


@pytest.mark.parametrize("step_size", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e12])
def test_steps_leave_factors_invertible(step_size, size):
    rows = jax.random.normal(jax.random.key(0), (9, 7), jnp.float64)
    direction = DenseMatrix(size * rows.T @ rows).add_identity(-0.5)
    factor, kept = bounded_step(
        Dense().eye(7, jnp.float64), direction, step_size, "spectral", "highest"
    )
    values = np.linalg.eigvalsh(factor.to_dense())
    assert values.min() > 0.05
    assert values.max() < 2.5
    assert np.linalg.norm(kept.to_dense(), 2) <= 1 + 1e-6


def test_cached_products_change_nothing():
    (want, plain, _), (got, cached, _) = (train(1.0, cache_products=flag) for flag in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), got, want)
    for own in optax.tree.get(plain, "rule_states").values():
        assert (own.product_K, own.product_C) == (None, None)
    for own in optax.tree.get(cached, "rule_states").values():
        for factor, product in ((own.K, own.product_K), (own.C, own.product_C)):
            dense = factor.to_dense()
            np.testing.assert_allclose(product.to_dense(), dense @ dense.T, rtol=1e-10)


def test_products_of_other_factors_are_not_kept():
    layers = singd_optax.find_layers(
        loss_fn, PARAMS, X, Y, structures=(Dense(), Diagonal()), factor_dtype=("bfloat16", None)
    )
    opt_state = singd_optax.singd(0.1, layers).init(PARAMS)
    for own in optax.tree.get(opt_state, "rule_states").values():
        assert (own.product_K, own.product_C) == (None, None)
        assert (own.m_K, own.m_C) == (None, None)  # none is needed at momentum 0


def test_momentum_takes_memory_if_it_may_be_used():
    layers = singd_optax.find_layers(loss_fn, PARAMS, X, Y)
    spec = layers["params/layers_0"]
    for momentum in (0.5, jnp.float32(0), lambda step: 0.0):
        rule = SINGD(damping=0.1, factor_learning_rate=0.1, factor_momentum=momentum)
        assert isinstance(rule.init(spec).m_K, DenseMatrix)


class Everything(nn.Module):
    """An embedding, tokens, pixels and a vector for each example."""

    @nn.compact
    def __call__(self, tokens, images):
        x = nn.Dense(3, name="tokens")(nn.Embed(7, 4, name="embed")(tokens))
        pixels = nn.Conv(2, (2, 2), name="pixels")(images)
        both = jnp.concatenate([nn.tanh(x).mean(1), pixels.mean((1, 2))], axis=-1)
        return nn.Dense(2, name="vectors")(both)


@pytest.mark.parametrize("approx", ["expand", "reduce"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_fraction_of_the_positions_is_unbiased(approx, weighted):
    """The mean over all starts is the statistics of all positions."""
    tokens = jax.random.randint(jax.random.key(0), (8, 6), 0, 7)
    images = jax.random.normal(jax.random.key(1), (8, 4, 4, 1))
    weights = (jnp.arange(6) < jnp.arange(1, 9)[:, None]).astype(float)
    model = Everything()
    params = model.init(jax.random.key(2), tokens, images)

    def loss_fn(params, tokens, images):
        if not weighted:
            return jnp.mean(model.apply(params, tokens, images) ** 2)
        x = params["params"]
        with singd_optax.position_weights(weights):
            h = nn.Embed(7, 4).apply({"params": x["embed"]}, tokens)
            h = nn.Dense(3).apply({"params": x["tokens"]}, h)
        return jnp.mean(jnp.sum(h * weights[..., None], 1) ** 2)

    def measure(fraction, counts):
        layers = singd_optax.find_layers(
            loss_fn, params, tokens, images, kfac_approx=approx, curvature_fraction=fraction
        )
        tx = singd_optax.scale_by_singd(layers)
        grad_fn = jit(singd_optax.value_and_grad(loss_fn, layers))
        state = tx.init(params)
        found = []
        for count in counts:
            now = state._replace(rule_count=jnp.int32(count))
            measured = grad_fn(params, tokens, images, opt_state=now)[2]
            found.append({path: one._replace(measured_at=None) for path, one in measured.items()})
        return found

    (want,), counts, found = measure(1.0, [0]), range(40), measure(0.5, range(40))
    for path, whole in want.items():
        # Two starts: the draws of each, then the mean of both.
        thinned = (
            (1 if path in ("params/tokens", "params/embed") and approx == "expand" else 0, 2),
        )
        drawn = [int(starts(thinned, jnp.int32(count + 1))[0]) for count in counts]
        assert set(drawn) == {0, 1}
        halves = [found[drawn.index(start)][path] for start in (0, 1)]
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
        mean = mean._replace(rows=2 * mean.rows)  # each half counts what it is of
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), mean, whole
        )
        again = found[len(drawn) - 1 - drawn[::-1].index(0)][path]
        jax.tree.map(np.testing.assert_array_equal, again, halves[0])
        assert not np.allclose(halves[0].H_C.to_dense(), whole.H_C.to_dense(), rtol=1e-3)


def test_strides():
    layers = singd_optax.find_layers(loss_fn, PARAMS, X, Y, curvature_fraction=0.1)
    spec = layers["params/layers_0"]
    operation = singd_optax.layers._product.Product()
    assert strides(spec, operation, (24,)) == ((0, 8),)
    assert strides(spec, operation, (16, 65)) == ((1, 5), (0, 2))
    assert strides(spec, operation, (11, 13)) == ()
    x = jnp.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(thin(x, ((0, 2),), [jnp.int32(1)]), x[1::2])


@pytest.mark.parametrize(
    ("options", "match"),
    [({"curvature_fraction": 0.0}, "curvature_fraction"), ({"curvature_fraction": 2}, "<= 1")],
)
def test_wrong_fractions(options, match):
    with pytest.raises(ValueError, match=match):
        singd_optax.find_layers(loss_fn, PARAMS, X, Y, **options)


def test_wrong_starts():
    layers = singd_optax.find_layers(loss_fn, PARAMS, X, Y)
    with pytest.raises(ValueError, match=r"factor_init.*'identity'.*'statistics'"):
        singd_optax.scale_by_singd(layers, factor_init="zeros")
    with pytest.raises((TypeError, ValueError), match="cache_products"):
        singd_optax.singd(0.1, layers, cache_products="yes")


def test_whitens_little_at_first_and_more_later():
    """Full whitening by the first statistics would make noise as large as what is not."""

    def spread(steps, **options):
        _, opt_state, _ = train(1.0, steps=steps, **options)
        _, C = singd_optax.factors(opt_state)["params/layers_0"]
        return np.linalg.cond(C.to_dense())

    falling = singd_optax.damping_schedule()
    assert 1 < spread(8, damping=falling) < 0.9 * spread(8, damping=0.03)
    assert spread(8, damping=falling) < 0.5 * spread(40, damping=falling)
