"""Laplace posteriors: the exact posterior of linear regression, dense arithmetic, restatements."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import singd_optax
from singd_optax.curvature import (
    fit,
    from_diagonal,
    laplace,
    output_distribution,
    predict,
    tune,
)
from singd_optax.curvature._predict import Gaussian, _bridge

pytestmark = pytest.mark.usefixtures("x64")

PRIOR, NOISE = 0.7, 0.4


@functools.cache
def regression():
    """A linear model at its optimum; its posterior is Gaussian, and the curvature exact."""
    x = jax.random.normal(jax.random.key(0), (20, 3), float)
    y = x @ jnp.array([[1.0, 0.0], [-2.0, 1.0], [0.5, 0.3]]) + 0.4
    y = y + NOISE * jax.random.normal(jax.random.key(1), y.shape, float)
    rows = np.concatenate([x, np.ones((20, 1))], 1)
    precision = rows.T @ rows / NOISE**2 + PRIOR * np.eye(4)
    weights = np.linalg.solve(precision, rows.T @ np.asarray(y) / NOISE**2)
    params = {"kernel": jnp.asarray(weights[:3]), "bias": jnp.asarray(weights[3])}
    model = lambda params, x: nn.Dense(2, param_dtype=float).apply({"params": params}, x)

    def loss_fn(params, x, y):
        means = singd_optax.tag_distribution(model(params, x), "gaussian")
        return 0.5 * ((means - y) ** 2).sum(-1).mean()

    layers = singd_optax.find_layers(loss_fn, params, x, y)
    curvature = fit(loss_fn, layers, params, [(x[:9], y[:9]), (x[9:], y[9:])], fisher="ggn")
    posterior = laplace(curvature, params, prior_precision=PRIOR, noise=NOISE)
    return model, posterior, x, y, rows, precision


def test_exact_posterior():
    model, posterior, x, _, rows, precision = regression()
    covariance = np.linalg.inv(precision)
    np.testing.assert_allclose(
        posterior.variance()["kernel"], np.diag(covariance)[:3, None] * np.ones(2), rtol=1e-9
    )
    found = predict(posterior, model, x, likelihood="gaussian", chunk=7)
    variances = np.einsum("ni,ij,nj->n", rows, covariance, rows)
    np.testing.assert_allclose(found.covariance, variances[:, None, None] * np.eye(2), atol=1e-12)
    np.testing.assert_allclose(found.mean, model(posterior.mean, x))
    options = {"likelihood": "gaussian", "method": "sampled", "key": jax.random.key(0)}
    drawn = predict(posterior, model, x, samples=4000, chunk=1000, **options)
    np.testing.assert_allclose(drawn.covariance[:, 0, 0], variances, rtol=0.15)
    draws = posterior.sample(jax.random.key(0), (4000,))
    flat = np.concatenate([draws["kernel"], draws["bias"][:, None]], 1)[:, :, 1]
    assert np.linalg.norm(np.cov(flat.T) - covariance) < 0.1 * np.linalg.norm(covariance)


def log_marginal(rows, y, prior, noise):
    """Exactly: y ~ N(0, rows rowsᵀ / prior + noise² I), for each output."""
    S = rows @ rows.T / prior + noise**2 * np.eye(len(rows))
    quadratic = np.einsum("no,no->", y, np.linalg.solve(S, y))
    return -0.5 * (quadratic + y.shape[1] * np.linalg.slogdet(2 * np.pi * S)[1])


def test_exact_evidence():
    _, posterior, _, y, rows, _ = regression()
    expected = log_marginal(rows, np.asarray(y), PRIOR, NOISE)
    np.testing.assert_allclose(posterior.log_evidence(real_targets=y.size), expected, rtol=1e-9)


def test_gradients_of_the_evidence():
    """In each hyper-parameter, against differences."""
    _, posterior, *_ = regression()

    def evidence(prior, temperature, noise):
        numbers = {"prior_precision": prior, "temperature": temperature, "noise": noise}
        return dataclasses.replace(posterior, **numbers).log_evidence(real_targets=40)

    at, step = (PRIOR, 1.1, NOISE), 1e-5
    found = jax.jit(jax.grad(evidence, (0, 1, 2)))(*at)
    for place, got in enumerate(found):
        moved = [tuple(a + s * (i == place) for i, a in enumerate(at)) for s in (step, -step)]
        wanted = (evidence(*moved[0]) - evidence(*moved[1])) / (2 * step)
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_tuned_by_evidence():
    """MacKay's fixed point: the prior's precision is the effective dimension over |θ|²."""
    _, posterior, *_ = regression()
    tuned = tune(posterior)
    gamma = tuned.likelihood_curvature.effective_dimension(tuned.prior_precision)
    squares = sum(tuned.squared_distances().values())
    np.testing.assert_allclose(tuned.prior_precision, gamma / squares, rtol=1e-10)
    both = tune(posterior, what=("prior_precision", "noise"), real_targets=40)
    assert both.log_evidence(real_targets=40) > posterior.log_evidence(real_targets=40)
    residuals, gamma = (
        2 * posterior.curvature.nll,
        both.likelihood_curvature.effective_dimension(both.prior_precision),
    )
    np.testing.assert_allclose(both.noise**2, residuals / (40 - gamma), rtol=1e-10)
    assert 0 < gamma < 8


@functools.cache
def classification():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = jnp.tanh(nn.Dense(4, param_dtype=float, name="first")(x))
            x = nn.LayerNorm(param_dtype=float, name="norm")(x)
            return nn.Dense(3, param_dtype=float, name="last")(x)

    x = jax.random.normal(jax.random.key(0), (12, 5), float)
    y = jnp.arange(12) % 3
    model = lambda params, x: Net().apply({"params": params}, x)
    params = Net().init(jax.random.key(1), x)["params"]

    def loss_fn(params, x, y):
        logits = singd_optax.tag_distribution(model(params, x), "categorical")
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    layers = singd_optax.find_layers(loss_fn, params, x, y)
    curvature = fit(loss_fn, layers, params, [(x, y)], kind="ekfac", fisher="ggn")
    return model, laplace(curvature, params, prior_precision=2.0), x


@pytest.mark.parametrize("pattern", [".*", "last"])
def test_linearized_outputs(pattern):
    """J Σ Jᵀ with a dense Σ, of all layers and of the last."""
    model, whole, x = classification()
    posterior = laplace(whole.curvature.select(pattern), whole.mean, prior_precision=2.0)
    found = output_distribution(posterior, model, x, chunk=5)
    expected = np.zeros((12, 3, 3))
    jacobian = jax.jit(jax.jacobian(lambda p: model(p, x)))(posterior.mean)
    for path, block in posterior.curvature.blocks.items():
        rows = np.concatenate([jacobian[path]["kernel"], jacobian[path]["bias"][:, :, None]], 2)
        Q = np.kron(block.K.to_dense(), block.C.to_dense())
        covariance = Q / (block.values.reshape(-1) + 2.0) @ Q.T
        flat = rows.reshape(12, 3, -1)
        expected += np.einsum("nkp,pq,nlq->nkl", flat, covariance, flat)
    np.testing.assert_allclose(found.covariance, expected, atol=1e-10)
    drawn = posterior.sample(jax.random.key(0))
    moved = [not np.array_equal(drawn[p]["bias"], whole.mean[p]["bias"]) for p in ("first", "last")]
    assert moved == [pattern == ".*", True]
    np.testing.assert_array_equal(drawn["norm"]["scale"], whole.mean["norm"]["scale"])


def test_links():
    """Restated in NumPy; probit and samples agree where the variance is small."""
    rng = np.random.default_rng(0)
    m = rng.normal(size=(5, 4))
    half = rng.normal(size=(5, 4, 6))
    V = np.einsum("nip,njp->nij", half, half)
    got = _bridge(Gaussian(jnp.asarray(m), jnp.asarray(V)))
    for n in range(5):
        total, rows = V[n].sum(), V[n].sum(0)
        mean = m[n] - rows * m[n].sum() / total
        variance = np.diag(V[n] - np.outer(rows, rows) / total)
        alpha = (1 - 2 / 4 + np.exp(mean) / 16 * np.exp(-mean).sum()) / variance
        np.testing.assert_allclose(got[n], alpha / alpha.sum(), rtol=1e-9)
    model, posterior, x = classification()
    probit = predict(posterior, model, x)
    outputs = output_distribution(posterior, model, x)
    variance = np.diagonal(outputs.covariance, axis1=1, axis2=2)
    expected = np.exp(np.asarray(outputs.mean) / np.sqrt(1 + np.pi / 8 * variance))
    np.testing.assert_allclose(probit, expected / expected.sum(1, keepdims=True), rtol=1e-9)
    sharp = laplace(posterior.curvature, posterior.mean, prior_precision=1e3)
    drawn = predict(sharp, model, x, link="samples", samples=2000, key=jax.random.key(0))
    np.testing.assert_allclose(drawn, predict(sharp, model, x), atol=0.02)
    bernoulli = predict(posterior, model, x, likelihood="bernoulli")
    np.testing.assert_allclose(bernoulli / (1 - bernoulli), expected, rtol=1e-9)


def test_errors():
    model, posterior, x = classification()
    use = lambda **options: predict(posterior, model, x, **options)
    use_on = lambda inputs: predict(posterior, model, inputs)
    with pytest.raises(ValueError, match=r"`likelihood` must be one of .*got 'poisson'"):
        use(likelihood="poisson")
    with pytest.raises(ValueError, match=r"must be a random key.*Pass key="):
        use(method="sampled")
    with pytest.raises(ValueError, match=r"bridge.*is for a categorical likelihood"):
        use(link="bridge", likelihood="bernoulli")
    with pytest.raises(ValueError, match=r"must return outputs \(examples, outputs\), here"):
        predict(posterior, lambda params, x: model(params, x).sum(0), x)
    with pytest.raises(ValueError, match=r"got shape tuple"):
        predict(posterior, lambda params, x: (model(params, x), 0), x)
    with pytest.raises(ValueError, match=r"The model cannot be called .*shapes .*\(12, 3\)"):
        use_on(x[:, :3])
    with pytest.raises(ValueError, match=r"One example at a time needs"):
        use_on({"x": x, "scale": jnp.ones([])})
    with pytest.raises(ValueError, match=r"`params` do not match .*no array at 'first/kernel'"):
        laplace(posterior.curvature, {"last": posterior.mean["last"]})
    other = posterior.mean | {"last": posterior.mean["last"] | {"bias": jnp.ones(2)}}
    with pytest.raises(ValueError, match=r"`prior_mean` do not match .*'last/bias' has shape"):
        laplace(posterior.curvature, posterior.mean, prior_mean=other)
    with pytest.raises(ValueError, match=r"prior_precision.*got 0"):
        laplace(posterior.curvature, posterior.mean, prior_precision=0.0)
    with pytest.raises(TypeError, match=r"must be a singd_optax.curvature.Curvature"):
        laplace(posterior.mean, posterior.curvature)
    squares = jax.tree.map(jnp.square, posterior.mean)
    with pytest.raises(ValueError, match="has no negative log-likelihood"):
        laplace(from_diagonal(squares), posterior.mean).log_evidence()
    with pytest.raises(ValueError, match=r"no maximum in the temperature, got.*Tune 'noise'"):
        tune(posterior, what=("temperature",))
    with pytest.raises(ValueError, match=r"`real_targets` must be how many .* got 0. For class"):
        tune(posterior, what=("noise",))
    with pytest.raises(ValueError, match=r"`what` must be one of .*got 'prior'"):
        tune(posterior, what=("prior",))
