"""Fisher flavours: exact columns against explicit Jacobians, samples against their mean."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import singd_optax

EXAMPLES, POSITIONS, OUTPUTS = 3, 2, 3


class Net(nn.Module):
    dtype: object = jnp.float64

    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(nn.Dense(4, param_dtype=self.dtype)(x))
        return nn.Dense(OUTPUTS, param_dtype=self.dtype)(x)


def log_likelihood(distribution, z, y):
    if distribution == "categorical":
        return optax.softmax_cross_entropy(z, y)
    if distribution == "bernoulli":
        return optax.sigmoid_binary_cross_entropy(z, y).sum(-1)
    return ((z - y) ** 2).sum(-1)


def problem(distribution, shape, loss_average="batch", weights=None, dtype=jnp.float64):
    model = Net(dtype)
    x = jax.random.normal(jax.random.key(0), (*shape, 5), dtype)
    y = jax.nn.one_hot(jnp.arange(x.size // 5).reshape(shape) % OUTPUTS, OUTPUTS, dtype=dtype)
    params = model.init(jax.random.key(1), x)["params"]
    count = {"batch": shape[0], "batch+sequence": np.prod(shape), None: 1}[loss_average]

    def loss_fn(params, x, y):
        with singd_optax.position_weights(*([] if weights is None else [weights])):
            z = model.apply({"params": params}, x)
            z = singd_optax.tag_distribution(z, distribution, standard_deviation=0.5**0.5)
        losses = log_likelihood(distribution, z, y)
        if weights is None:
            return losses.sum() / count
        return (losses * weights).sum() / weights.sum()

    layers = singd_optax.find_layers(loss_fn, params, x, y, loss_average=loss_average)
    return model, loss_fn, params, (x, y), layers


def grad(loss_fn, layers, params, data, count=0, **options):
    state = singd_optax.scale_by_singd(layers, refresh_every=2).init(params)
    state = state._replace(rule_count=jnp.asarray(count))
    grad_fn = singd_optax.value_and_grad(loss_fn, layers, **options)
    return jax.jit(lambda params, state: grad_fn(params, *data, opt_state=state)), state


def output_moment(model, params, x, distribution):
    """G of the last layer's and the first layer's outputs, summed over positions, by Jacobians."""

    def outputs(offset, last):
        first = nn.Dense(4, param_dtype=jnp.float64).apply({"params": params["Dense_0"]}, x)
        hidden = jnp.tanh(first + offset)
        return (
            nn.Dense(OUTPUTS, param_dtype=jnp.float64).apply({"params": params["Dense_1"]}, hidden)
            + last
        )

    lead = x.shape[:-1]
    zeros = jnp.zeros((*lead, 4)), jnp.zeros((*lead, OUTPUTS))
    z = outputs(*zeros)
    y = jnp.zeros_like(z).at[..., 0].set(1)
    hessian = jax.hessian(lambda z: log_likelihood(distribution, z, y).sum())(z)
    n = z.size
    H = np.asarray(hessian).reshape(n, n)
    for jacobian in jax.jacobian(outputs, (0, 1))(*zeros):
        J = np.asarray(jacobian).reshape(n, -1, jacobian.shape[-1])
        # Σ over this layer's positions of the diagonal blocks of Jᵀ H J.
        yield sum(J[:, p].T @ H @ J[:, p] for p in range(J.shape[1]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss_average", ["batch", "batch+sequence", None])
@pytest.mark.parametrize("distribution", ["categorical", "bernoulli", "gaussian"])
def test_ggn_is_exact(distribution, loss_average):
    shape = (EXAMPLES, POSITIONS)
    model, loss_fn, params, (x, y), layers = problem(distribution, shape, loss_average)
    step, state = grad(loss_fn, layers, params, (x, y), fisher="ggn")
    value, grads, curvature = step(params, state)
    plain = jax.value_and_grad(loss_fn)(params, x, y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), (value, grads), plain)
    scale = {"batch": EXAMPLES, "batch+sequence": EXAMPLES * POSITIONS, None: 1}[loss_average]
    rows = (x, jnp.tanh(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]))
    for path, G, a in zip(layers, output_moment(model, params, x, distribution), rows, strict=True):
        got = curvature[path]
        np.testing.assert_allclose(got.H_C.to_dense(), G / scale, atol=1e-12)
        np.testing.assert_allclose(got.mean_G, np.trace(G) / scale / len(G))
        a = np.append(a.reshape(-1, a.shape[-1]), np.ones((EXAMPLES * POSITIONS, 1)), 1)
        np.testing.assert_allclose(got.H_K.to_dense(), a.T @ a / len(a), atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("distribution", ["categorical", "bernoulli", "gaussian"])
def test_samples_have_the_exact_mean(distribution):
    _, loss_fn, params, data, layers = problem(distribution, (EXAMPLES,))
    step, state = grad(loss_fn, layers, params, data, fisher="ggn")
    *_, exact = step(params, state)
    sampled, _ = grad(loss_fn, layers, params, data, fisher="mc")
    states = jax.vmap(lambda i: state._replace(rule_count=i))(jnp.arange(4000))
    draw = jax.jit(lambda states: jax.lax.map(lambda s: sampled(params, s)[2], states))
    draws = draw(states)
    for path in layers:
        got = np.asarray(draws[path].H_C.to_dense())
        error = (got.mean(0) - exact[path].H_C.to_dense()) / (got.std(0) / len(got) ** 0.5 + 1e-12)
        assert np.abs(error).max() < 4.5
        np.testing.assert_allclose(draws[path].H_K.to_dense()[7], exact[path].H_K.to_dense())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("fisher", ["mc", "ggn"])
def test_padding_does_not_count(fisher):
    """Examples behind a zero weight may be anything, or not be there at all."""
    shape = (EXAMPLES, POSITIONS)
    _, _, params, (x, y), _ = problem("categorical", shape)
    x, y = x.at[-1].set(x[0]), y.at[-1].set(y[0])
    weights = jnp.ones(shape).at[-1].set(0)
    _, loss_fn, _, _, layers = problem("categorical", shape, "batch+sequence", weights)
    step, state = grad(loss_fn, layers, params, (x, y), fisher="ggn")
    *_, padded = step(params, state)
    _, short_loss, _, _, _ = problem("categorical", (EXAMPLES - 1, POSITIONS), "batch+sequence")
    step, state = grad(short_loss, layers, params, (x[:-1], y[:-1]), fisher="ggn")
    *_, short = step(params, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), padded, short)
    if fisher == "mc":
        step, state = grad(loss_fn, layers, params, (x, y), fisher="mc")
        *_, a = step(params, state)
        *_, b = jax.jit(
            lambda p, s: singd_optax.value_and_grad(loss_fn, layers, fisher="mc")(
                p, x.at[-1].set(9.0), y, opt_state=s
            )
        )(params, state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), a, b)


def test_extra_pass_on_refresh_steps_only():
    """Compiled with the flag known: no statistics and no second pass when it is off."""
    _, loss_fn, params, data, layers = problem("categorical", (64,), dtype=jnp.float32)

    def products(due, **options):
        step, state = grad(loss_fn, layers, params, data, **options)
        state = state._replace(refresh_due=due)
        text = jax.jit(lambda params: step(params, state)).lower(params).compile().as_text()
        return text.count(" dot(")

    off, on = (products(np.asarray(due), fisher="mc") for due in (False, True))
    plain = jax.jit(lambda p: jax.value_and_grad(loss_fn)(p, *data)).lower(params).compile()
    assert off == plain.as_text().count(" dot(")
    # One more product than with the loss's own gradients: back through the second layer. The
    # statistics are formed once, and kernels are differentiated for once.
    assert on == products(np.asarray(True)) + 1 > off + 1


def test_trains_under_one_compilation_with_aux():
    _, loss_fn, params, (x, y), layers = problem("categorical", (8,), dtype=jnp.float32)
    tx = singd_optax.singd(3e-2, layers)
    grad_fn = singd_optax.value_and_grad(
        lambda p, x, y: (loss_fn(p, x, y), {"x": x}), layers, has_aux=True, fisher="mc", seed=3
    )

    @jax.jit
    def step(params, state):
        (value, aux), grads, curvature = grad_fn(params, x, y, opt_state=state)
        updates, state = tx.update(grads, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state, value, aux

    state, values = tx.init(params), []
    for _ in range(20):
        params, state, value, aux = step(params, state)
        values.append(float(value))
    assert values[-1] < 0.9 * values[0]
    np.testing.assert_array_equal(aux["x"], x)
    assert step._cache_size() == 1


def test_errors():
    _, loss_fn, params, data, layers = problem("categorical", (4,), dtype=jnp.float32)
    with pytest.raises(ValueError, match=r"`fisher` must be one of 'empirical', 'mc', 'ggn'"):
        singd_optax.value_and_grad(loss_fn, layers, fisher="exact")
    state = singd_optax.scale_by_singd(layers).init(params)
    model = Net(jnp.float32)
    untagged = singd_optax.value_and_grad(
        lambda p, x, y: model.apply({"params": p}, x).sum(), layers, fisher="mc"
    )
    with pytest.raises(ValueError, match="tag_distribution"):
        untagged(params, *data, opt_state=state)
    with pytest.raises(ValueError, match=r"'categorical', 'bernoulli', 'gaussian', got 'poisson'"):
        singd_optax.tag_distribution(data[0], "poisson")
    with pytest.raises(ValueError, match="standard_deviation"):
        singd_optax.tag_distribution(data[0], "gaussian", standard_deviation=0.0)
    mixed = layers.replace("Dense_0", loss_average=None)
    with pytest.raises(ValueError, match="one loss_average"):
        singd_optax.value_and_grad(loss_fn, mixed, fisher="mc")(params, *data, opt_state=state)


def network():
    model = nn.Sequential(
        [nn.Dense(4, param_dtype=float), jnp.tanh, nn.Dense(3, param_dtype=float)]
    )
    x, y = jax.random.normal(jax.random.key(0), (6, 5)), jnp.arange(6) % 3
    return model, model.init(jax.random.key(1), x)["params"], x, y


def mean_cross_entropy(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def fisher_of(loss, params, x, y, fisher):
    layers = singd_optax.find_layers(loss, params, x, y, structures="dense")
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss, layers, fisher=fisher, seed=3)
    step = jax.jit(lambda p, s, x, y: grad_fn(p, x, y, opt_state=s))
    value, grads, curvature = step(params, state, x, y)
    return value, grads, dict(curvature)


def assert_close(got, want):
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, got, want)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("fisher", ["mc", "ggn"])
@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_predictions_named_inside_of_jit_and_checkpoint(wrap, fisher):
    model, params, x, y = network()
    apply = lambda p, x: singd_optax.tag_distribution(model.apply({"params": p}, x))
    inside = wrap(apply)
    want = fisher_of(lambda p, x, y: mean_cross_entropy(apply(p, x), y), params, x, y, fisher)
    got = fisher_of(lambda p, x, y: mean_cross_entropy(inside(p, x), y), params, x, y, fisher)
    assert_close(got, want)


def test_predictions_named_inside_of_vmap_and_scan_are_refused():
    model, params, x, y = network()
    apply = lambda p, x: singd_optax.tag_distribution(model.apply({"params": p}, x))
    by_vmap = lambda p, x, y: mean_cross_entropy(jax.vmap(lambda z: apply(p, z))(x), y)
    by_scan = lambda p, x, y: mean_cross_entropy(jax.lax.map(lambda z: apply(p, z), x), y)
    for loss in (by_vmap, by_scan):
        with pytest.raises(ValueError, match=r"called inside of jax\.lax\.scan or jax\.vmap"):
            singd_optax.find_layers(loss, params, x, y)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("fisher", ["mc", "ggn"])
def test_nnx_has_it_too(fisher):
    """The same labels are drawn, so that statistics are Linen's; so with position weights."""
    linen, params, x, y = network()
    weights = jnp.array([1.0, 1, 1, 1, 0, 0])

    class Net(nnx.Module):
        def __init__(self):
            self.a = nnx.Linear(5, 4, rngs=nnx.Rngs(0), param_dtype=float)
            self.b = nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=float)
            for mine, theirs in ((self.a, "layers_0"), (self.b, "layers_2")):
                mine.kernel[...] = params[theirs]["kernel"]

        def __call__(self, x):
            return self.b(jnp.tanh(self.a(x)))

    def loss(apply):
        def of(model, x, y):
            with singd_optax.position_weights(weights):
                logits = singd_optax.tag_distribution(apply(model, x))
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return (losses * weights).sum() / weights.sum()

        return of

    want = fisher_of(loss(lambda p, x: linen.apply({"params": p}, x)), params, x, y, fisher)
    model, of_model = Net(), loss(lambda model, x: model(x))
    layers = singd_optax.nnx.find_layers(of_model, model, x, y, structures="dense")
    optimizer = nnx.Optimizer(model, singd_optax.scale_by_singd(layers), wrt=nnx.Param)
    grad_fn = singd_optax.nnx.value_and_grad(of_model, layers, fisher=fisher, seed=3)
    value, _, curvature = grad_fn(model, x, y, optimizer=optimizer)
    assert_close(value, want[0])
    assert_close(curvature["a"], want[2]["layers_0"])
    assert_close(curvature["b"], want[2]["layers_2"])
