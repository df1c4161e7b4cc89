"""Priors that the evidence chooses while training: exact marginal likelihoods, and a whole run."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import jit
from flax import nnx
from scipy.optimize import minimize

import singd_optax
from singd_optax.curvature import (
    PriorState,
    add_prior,
    fit,
    from_diagonal,
    from_opt_state,
    laplace,
    prior_state,
    tune,
    tune_prior,
)

pytestmark = pytest.mark.usefixtures("x64")

N, OUTPUTS = 24, 2


class Sum(nn.Module):
    """Two linear layers, side by side."""

    @nn.compact
    def __call__(self, x):
        dense = functools.partial(nn.Dense, OUTPUTS, use_bias=False, param_dtype=float)
        return dense(name="first")(x[:, :3]) + dense(name="second")(x[:, 3:])


@functools.cache
def regression():
    """Inputs of the two layers are orthogonal, so that the curvature is exact by blocks."""
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.normal(size=(N, 8)))[0] * np.sqrt(N)
    weights = np.concatenate([2 * rng.normal(size=(3, 2)), 0.2 * rng.normal(size=(5, 2))])
    y = x @ weights + 0.5 * rng.normal(size=(N, OUTPUTS))
    params = Sum().init(jax.random.key(0), x)["params"]

    def loss_fn(params, x, y):
        means = singd_optax.tag_distribution(Sum().apply({"params": params}, x), "gaussian")
        return 0.5 * ((means - y) ** 2).sum(-1).mean()

    return loss_fn, params, x, y, singd_optax.find_layers(loss_fn, params, x, y)


def best(x, y, count):
    """Logarithms of the prior precisions (one or two) and of σ at the largest exact evidence."""

    def loss(logs):
        first, second, noise = jnp.exp(logs[0]), jnp.exp(logs[count - 1]), jnp.exp(2 * logs[-1])
        S = x[:, :3] @ x[:, :3].T / first + x[:, 3:] @ x[:, 3:].T / second + noise * jnp.eye(N)
        quadratic = jnp.einsum("no,no->", y, jnp.linalg.solve(S, y))
        return 0.5 * (quadratic + OUTPUTS * jnp.linalg.slogdet(S)[1])

    # Derivatives by differences end up to 2e-6 away, which depends on the release of SciPy.
    value_and_grad = jax.jit(jax.value_and_grad(loss))
    options = {"gtol": 1e-9}
    return minimize(value_and_grad, np.zeros(count + 1), jac=True, method="BFGS", options=options).x


@pytest.mark.parametrize("each", [False, True], ids=["one for all", "one for each"])
def test_the_exact_optimum(each):
    """Found in the training step itself, by the curvature that the optimizer has anyway."""
    loss_fn, params, x, y, layers = regression()
    prior = add_prior(layers, terms=N, prior_precision=dict.fromkeys(layers, 1.0) if each else 1.0)
    kfac = singd_optax.scale_by_kfac(layers, damping=1e-3, damping_mode="absolute")
    tx = optax.chain(prior, kfac, optax.scale(-0.5))
    grad_fn = singd_optax.value_and_grad(loss_fn, layers, fisher="ggn")

    def step(carry, _):
        params, opt_state = carry
        value, grads, statistics = grad_fn(params, x, y, opt_state=opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=statistics)
        H = from_opt_state(opt_state, layers, params, terms=N)
        what = ("prior_precision", "noise")
        opt_state = tune_prior(
            opt_state, H, params, nll=N * value, what=what, real_targets=y.size, steps=1
        )
        return (optax.apply_updates(params, updates), opt_state), None

    run = jit(lambda carry: jax.lax.scan(step, carry, None, length=120)[0])
    _, opt_state = run((params, tx.init(params)))
    found = prior_state(opt_state)
    precisions = list(found.prior_precision.values()) if each else [found.prior_precision]
    got = np.log([*precisions, found.noise])
    np.testing.assert_allclose(got, best(x, y, len(precisions)), atol=1e-6)


def test_gradient_of_the_posterior():
    """σ² / N times that of the negative log posterior; parameters without a prior have none."""
    loss_fn, params, x, y, layers = regression()
    layers = layers.without("second")
    tx = add_prior(layers, terms=N, prior_precision=3.0, noise=0.5)
    state = tx.init(params)

    def negative_log_posterior(params):
        return N * loss_fn(params, x, y) / 0.5**2 + 1.5 * jnp.sum(params["first"]["kernel"] ** 2)

    got, _ = tx.update(jax.grad(loss_fn)(params, x, y), state, params)
    want = jax.grad(negative_log_posterior)(params)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, 0.5**2 / N * other, rtol=1e-10)
    whole = add_prior(layers, terms=N, others="diagonal")
    got, _ = whole.update(jax.tree.map(jnp.zeros_like, params), whole.init(params), params)
    np.testing.assert_allclose(got["second"]["kernel"], params["second"]["kernel"] / N)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(nn.Dense(16, param_dtype=float, name="first")(x))
        return nn.Dense(3, param_dtype=float, name="last")(x)


@functools.cache
def classification():
    """Labels that inputs do not determine."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(360, 4))
    scores = 2 * x @ rng.normal(size=(4, 3)) + rng.gumbel(size=(360, 3))
    train, test = (
        (jnp.asarray(x[part]), jnp.asarray(scores.argmax(1)[part]))
        for part in (slice(60), slice(60, None))
    )

    def loss_fn(params, x, y):
        logits = singd_optax.tag_distribution(Net().apply({"params": params}, x), "categorical")
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    start = Net().init(jax.random.key(0), x)["params"]
    return loss_fn, start, train, test, singd_optax.find_layers(loss_fn, start, *train)


def test_less_overfitting():
    """The evidence rises, and what is held out gains."""
    loss_fn, start, train, test, layers = classification()
    prior = add_prior(layers, terms=60, prior_precision=dict.fromkeys(layers, 0.1))
    plain = singd_optax.kfac(1e-2, layers, weight_decay=0.0)
    tx = optax.chain(prior, plain)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers, fisher="ggn")

    def epoch(tx, params, opt_state):
        def step(carry, _):
            params, opt_state = carry
            _, grads, statistics = grad_fn(params, *train, opt_state=opt_state)
            updates, opt_state = tx.update(grads, opt_state, params, curvature=statistics)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, opt_state), None, length=30)[0]

    @jit
    def with_prior(params, opt_state):
        params, opt_state = epoch(tx, params, opt_state)
        H = from_opt_state(opt_state, layers, params, terms=60)
        opt_state = tune_prior(opt_state, H, params)
        posterior = laplace(H, params, **prior_state(opt_state)._asdict())
        evidence = posterior.log_evidence(60 * loss_fn(params, *train))
        return params, opt_state, evidence

    params, opt_state, evidences = start, tx.init(start), []
    for _ in range(8):
        params, opt_state, evidence = with_prior(params, opt_state)
        evidences.append(float(evidence))
    assert with_prior._cache_size() == 1
    assert evidences == sorted(evidences)
    assert evidences[-1] > -60 * np.log(3)  # better than knowing nothing
    without, state = start, plain.init(start)
    run = jit(functools.partial(epoch, plain))
    for _ in range(8):
        without, state = run(without, state)
    assert loss_fn(params, *test) < loss_fn(without, *test) - 0.4
    assert loss_fn(without, *train) < loss_fn(params, *train)


def exact_spectrum(params, x):
    """Eigenvalues of the Gauss-Newton matrix of the whole network, and the flat parameters."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    outputs = lambda flat: Net().apply({"params": unravel(flat)}, x)
    p = jax.nn.softmax(outputs(flat))
    roots = (jnp.eye(3) - p[:, :, None]) * jnp.sqrt(p)[:, None, :]
    rows = jnp.einsum("nck,ncp->nkp", roots, jax.jacobian(outputs)(flat)).reshape(-1, flat.size)
    return jnp.maximum(jnp.linalg.eigvalsh(rows.T @ rows), 0), flat


def test_after_training_without_a_prior():
    """A wide prior is what the evidence of the exact matrix wants there, too."""
    loss_fn, params, train, _, layers = classification()
    tx = optax.adam(1e-2)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss_fn)(params, *train), state)
        return (optax.apply_updates(params, updates), state), None

    run = jit(lambda carry: jax.lax.scan(step, carry, None, length=2000)[0])
    params, _ = run((params, tx.init(params)))
    spectrum, flat = jit(exact_spectrum)(params, train[0])
    # The evidence depends on the eigenvalues and on the length of the parameters alone.
    whole = laplace(
        from_diagonal({"w": spectrum}),
        {"w": jnp.full_like(flat, jnp.linalg.norm(flat) / np.sqrt(flat.size))},
    )
    exact = tune(whole).prior_precision
    H = fit(loss_fn, layers, params, [train], kind="ekfac", fisher="ggn")
    np.testing.assert_allclose(H.trace(), spectrum.sum())
    found = tune(laplace(H, params)).prior_precision
    assert exact < found < 2 * exact  # blocks count more as determined
    assert found < 0.1  # and about 1 where it is tuned in turns with training


def test_nnx():
    """In an ``nnx.Optimizer``, with `fit`: the numbers of Linen."""
    loss_fn, params, x, y, layers = regression()

    class Model(nnx.Module):
        def __init__(self):
            options = {"use_bias": False, "param_dtype": float, "rngs": nnx.Rngs(0)}
            self.first = nnx.Linear(3, OUTPUTS, **options)
            self.second = nnx.Linear(5, OUTPUTS, **options)

        def __call__(self, x):
            return self.first(x[:, :3]) + self.second(x[:, 3:])

    model = Model()
    for name in ("first", "second"):
        getattr(model, name).kernel = nnx.Param(params[name]["kernel"])

    def loss_of_model(model, x, y):
        means = singd_optax.tag_distribution(model(x), "gaussian")
        return 0.5 * ((means - y) ** 2).sum(-1).mean()

    found = singd_optax.nnx.find_layers(loss_of_model, model, x, y)
    make = lambda layers: optax.chain(
        add_prior(layers, terms=N, prior_precision=dict.fromkeys(layers, 1.0)), optax.sgd(0.1)
    )
    optimizer = nnx.Optimizer(model, make(found), wrt=nnx.Param)
    H = fit(loss_of_model, found, model, [(x, y)], fisher="ggn")
    own = nnx.state(model, nnx.Param)
    optimizer.opt_state = tune_prior(optimizer.opt_state, H, own)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(loss_of_model)(model, x, y))

    step(model, optimizer)
    tx = make(layers)
    H = fit(loss_fn, layers, params, [(x, y)], fisher="ggn")
    opt_state = tune_prior(tx.init(params), H, params)
    updates, _ = tx.update(jax.grad(loss_fn)(params, x, y), opt_state, params)
    want = optax.apply_updates(params, updates)
    got = prior_state(optimizer.opt_state).prior_precision
    for path, number in prior_state(opt_state).prior_precision.items():
        np.testing.assert_allclose(got[path], number, rtol=1e-10)
        np.testing.assert_allclose(getattr(model, path).kernel[...], want[path]["kernel"])


def test_errors():
    loss_fn, params, x, y, layers = regression()
    with pytest.raises(TypeError, match="must be the Layers that find_layers returned"):
        add_prior(params, terms=N)
    with pytest.raises(ValueError, match=r"prior_precision.*got 0"):
        add_prior(layers, terms=N, prior_precision=0.0)
    with pytest.raises(ValueError, match=r"terms.*got -1"):
        add_prior(layers, terms=-1)
    with pytest.raises(ValueError, match=r"one for each block, got one that differs in \['first'"):
        add_prior(layers, terms=N, prior_precision={"frst": 1.0, "second": 1.0}).init(params)
    tx = add_prior(layers, terms=N)
    with pytest.raises(ValueError, match=r"do not match `layers`: no array at 'second/kernel'"):
        tx.init({"first": params["first"]})
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"needs the parameters, got None. Call tx.update"):
        tx.update(params, state)
    H = fit(loss_fn, layers, params, [(x, y)], fisher="ggn")
    with pytest.raises(ValueError, match=r"one PriorState, got 0. Make the optimizer as"):
        tune_prior(optax.sgd(0.1).init(params), H, params)
    with pytest.raises(ValueError, match=r"one PriorState, got 2"):
        tune_prior((state, state), H, params)
    of_first = PriorState({"first": jnp.ones([])}, jnp.ones([]))
    with pytest.raises(ValueError, match=r"one for each block, got one that differs in \['second'"):
        tune_prior(of_first, H, params)
