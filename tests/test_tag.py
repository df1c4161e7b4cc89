"""Products marked in plain JAX code: hand-written models, Equinox, raw parameters of a module."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracle import check, cross_entropy

import singd_optax
from singd_optax import tag

WIDTH, CLASSES, BATCH = 5, 3, 6

float64 = pytest.mark.usefixtures("x64")


def arrays(*shapes):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def data(*leading):
    (x,) = arrays((*(leading or (BATCH,)), WIDTH))
    return x, jnp.arange(x.size // WIDTH).reshape(x.shape[:-1]) % CLASSES


def flat_model(params, x):
    """All arrays in one dict, as hand-written models often have them."""
    y = tag(x @ params["w1"] + params["b1"], x, params["w1"], bias=params["b1"])
    x = jnp.tanh(y)
    return tag(x @ params["w2"], x, params["w2"])


def flat_params():
    w1, b1, w2 = arrays((WIDTH, 4), (4,), (4, CLASSES))
    return {"w1": w1, "b1": b1, "w2": w2}


@float64
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.checkpoint])
def test_hand_written(transform):
    """Closed over, the arrays are the very ones of the params, whatever the transformation."""
    params, (x, y) = flat_params(), data()
    weights = [(params["w1"], params["b1"]), (params["w2"], None)]

    def loss_fn(params, x, y):
        return cross_entropy(transform(lambda x: flat_model(params, x))(x), y)

    layers = check(loss_fn, params, (x, y), weights, (x, y), [("w1", ()), ("w2", ())])
    assert layers["w1"].kind == "tagged"
    assert layers["w1"].shapes == {"w1": (WIDTH, 4), "b1": (4,)}


@float64
def test_one_example_at_a_time():
    params, (x, y) = flat_params(), data(BATCH, 2)
    weights = [(params["w1"], params["b1"]), (params["w2"], None)]

    def loss_fn(params, x, y):
        logits = jax.vmap(jax.vmap(lambda x: flat_model(params, x)))(x)
        return cross_entropy(logits, y)

    check(loss_fn, params, (x, y), weights, (x, y), [("w1", ()), ("w2", ())])


@float64
def test_by_path_where_params_are_cast():
    params, (x, y) = flat_params(), data()
    weights = [(params["w1"], params["b1"]), (params["w2"], None)]

    def loss_fn(params, x, y):
        params = jax.tree.map(lambda p: p * 1.0, params)
        z = tag(x @ params["w1"] + params["b1"], x, "w1", bias="b1")
        z = jnp.tanh(z)
        return cross_entropy(tag(z @ params["w2"], z, "w2"), y)

    check(loss_fn, params, (x, y), weights, (x, y), [("w1", ()), ("w2", ())])


@float64
@pytest.mark.parametrize("remat", [False, True])
def test_scan_over_stacked_layers_with_holder(remat):
    depth = 3
    kernels, biases, head = arrays((depth, WIDTH, WIDTH), (depth, WIDTH), (WIDTH, CLASSES))
    params = {"blocks": {"kernel": kernels, "bias": biases}, "head": head}
    x, y = data()
    weights = [(kernels[i], biases[i]) for i in range(depth)] + [(head, None)]

    def block(x, p):
        y = x @ p["kernel"] + p["bias"]
        y = tag(y, x, p["kernel"], bias=p["bias"], holder=p)
        return jnp.tanh(y), None

    def loss_fn(params, x, y):
        x, _ = jax.lax.scan(jax.checkpoint(block) if remat else block, x, params["blocks"])
        return cross_entropy(tag(x @ params["head"], x, params["head"]), y)

    places = [("blocks/kernel", (i,)) for i in range(depth)] + [("head", ())]
    layers = check(loss_fn, params, (x, y), weights, (x, y), places)
    assert layers["blocks/kernel"].stack_shape == (depth,)


@float64
def test_transposed_kernel_by_equation():
    w1, w2 = arrays((4, WIDTH), (CLASSES, 4))
    x, y = data()

    def loss_fn(params, x, y):
        z = jnp.tanh(tag(x @ params[0].T, x, params[0], equation="ni,oi->no"))
        return cross_entropy(tag(z @ params[1].T, z, params[1], equation="ni,oi->no"), y)

    weights = [(w1.T, None), (w2.T, None)]
    layers = check(loss_fn, [w1, w2], (x, y), weights, (x, y), [("0", ()), ("1", ())])
    assert layers["0"].dims == (WIDTH, 4)


@float64
def test_raw_parameters_of_a_flax_module():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.param("w", nn.initializers.normal(), (WIDTH, WIDTH))
            gain = self.param("gain", nn.initializers.ones, (WIDTH,))
            return jnp.tanh(tag(x @ w, x, w)) * gain

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(CLASSES, param_dtype=float)(Block(name="block")(x))

    x, y = data()
    model = Net()
    params = model.init(jax.random.key(0), x)["params"]
    loss_fn = lambda p, x, y: cross_entropy(model.apply({"params": p}, x), y)
    dense = params["Dense_0"]
    weights = [(params["block"]["w"], None), (dense["kernel"], dense["bias"])]
    layers = check(loss_fn, params, (x, y), weights, (x, y), [("block/w", ()), ("Dense_0", ())])
    reasons = {path: reason for path, _, reason in layers.others}
    assert "Block" in reasons["block/gain"]


class Linear(eqx.Module):
    weight: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return tag(self.weight @ x + self.bias, x, self.weight, bias=self.bias, equation="i,oi->o")


class EquinoxNet(eqx.Module):
    layers: list
    activation: object = eqx.field(static=True)

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


@float64
def test_equinox():
    w1, b1, w2, b2 = arrays((4, WIDTH), (4,), (CLASSES, 4), (CLASSES,))
    model = EquinoxNet([Linear(w1, b1), Linear(w2, b2)], jnp.tanh)
    x, y = data()
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss_fn(params, x, y):
        return cross_entropy(jax.vmap(eqx.combine(params, static))(x), y)

    weights = [(w1.T, b1), (w2.T, b2)]
    places = [("layers/0/weight", ()), ("layers/1/weight", ())]
    layers = check(loss_fn, params, (x, y), weights, (x, y), places)
    assert layers["layers/0/weight"].dims == (WIDTH + 1, 4)


def train(loss_fn, params, batch, steps=30):
    layers = singd_optax.find_layers(loss_fn, params, *batch, strict=True)
    tx = singd_optax.singd(0.05, layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jax.jit
    def step(params, state):
        value, grads, curvature = grad_fn(params, *batch, opt_state=state)
        updates, state = tx.update(grads, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state, value

    state, values = tx.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        values.append(float(value))
    assert step._cache_size() == 1
    return values


def test_training():
    """A hand-written model, and an Equinox model, both from a loss of several nats to little."""
    x, _ = data(32)
    y = x[:, :CLASSES].argmax(1)

    def loss_fn(params, x, y):
        return cross_entropy(flat_model(params, x), y)

    values = train(loss_fn, flat_params(), (x, y))
    assert values[-1] < 0.6 * values[0]

    w1, b1, w2, b2 = arrays((16, WIDTH), (16,), (CLASSES, 16), (CLASSES,))
    model = EquinoxNet([Linear(w1, b1), Linear(w2, b2)], jnp.tanh)
    values = train(lambda m, x, y: cross_entropy(jax.vmap(m)(x), y), model, (x, y))
    assert values[-1] < 0.6 * values[0]


def test_without_effect_elsewhere():
    params, (x, _) = flat_params(), data()
    text = str(jax.make_jaxpr(flat_model)(params, x))
    assert "custom" not in text
    np.testing.assert_array_equal(flat_model(params, x), flat_model(params, x))


def test_errors():
    params, (x, y) = flat_params(), data()

    def of(loss):
        return lambda: singd_optax.find_layers(loss, params, x, y)

    with pytest.raises(ValueError, match=r"'w9'.*not one of the parameters"):
        of(lambda p, x, y: tag(x @ p["w1"], x, "w9").sum())()
    with pytest.raises(ValueError, match="not one of the arrays in `holder`"):
        of(lambda p, x, y: tag(x @ p["w1"], x, p["w1"] * 1, holder=p).sum())()
    with pytest.raises(ValueError, match="not the product"):
        of(lambda p, x, y: tag((x @ p["w1"]).sum(0), x, p["w1"]).sum())()
    with pytest.raises(ValueError, match="not the product"):  # the equation of another layout
        of(lambda p, x, y: tag(x @ p["w1"], x, p["w1"], equation="...i,oi->...o").sum())()
    with pytest.raises(TypeError, match="`equation` must be a text"):
        tag(x, x, params["w1"], equation=3)
    with pytest.raises(TypeError, match="`holder` must be the mapping"):
        tag(x, x, params["w1"], holder=3)
    with pytest.raises(ValueError, match=r"no matrix"):
        tag(x, x, params["b1"], equation="ni,i->ni")
    with pytest.raises(ValueError, match="explicit kernel"):
        tag(x, x, params["w1"], equation="ni->ni")


def test_used_as_different_matrices():
    (w,) = arrays((WIDTH, WIDTH, WIDTH))
    x, y = data()

    def loss_fn(params, x, y):
        a = tag(jnp.einsum("ni,ijk->njk", x, params["w"]), x, params["w"], equation="ni,ijk->njk")
        b = tag(jnp.einsum("ni,jik->njk", x, params["w"]), x, params["w"], equation="ni,jik->njk")
        z = tag(x @ params["v"], x, params["v"])
        return (a + b).sum() + z.sum()

    params = {"w": w, "v": w[0]}
    with pytest.warns(UserWarning, match=r"different matrices|Only 17%"):
        layers = singd_optax.find_layers(loss_fn, params, x, y)
    assert list(layers) == ["v"]
    assert "different matrices" in layers.others[0].reason


def test_a_stacked_kernel_named_by_its_path_is_refused():
    (w,) = arrays((3, WIDTH, WIDTH))
    x, _ = data()

    def loss_fn(params, x):
        body = lambda x, w: (jnp.tanh(tag(x @ w, x, "ws")), None)
        return jax.lax.scan(body, x, params["ws"])[0].sum()

    with pytest.raises(ValueError, match="pass the slice itself"):
        singd_optax.find_layers(loss_fn, {"ws": w}, x)
