"""Haiku and Equinox models as they are, their layers tagged from outside."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
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


# What a user writes for Haiku: apply the model in hk.intercept_methods(tagging).


def tagging(next_fun, args, kwargs, context):
    y, module = next_fun(*args, **kwargs), context.module
    if context.method_name != "__call__" or not isinstance(module, hk.Linear | hk.Conv2D):
        return y
    own = {path.rpartition("/")[2]: value for path, value in module.params_dict().items()}
    like = None
    if isinstance(module, hk.Conv2D):
        like = nn.Conv(y.shape[-1], module.kernel_shape, module.stride, module.padding)
    return tag(y, args[0], own["w"], bias=own.get("b"), like=like)


# What a user writes for Equinox: apply tagged(model) in place of the model.


class Tagged(eqx.Module):
    layer: eqx.nn.Linear

    def __call__(self, x, *, key=None):
        y, layer = self.layer(x, key=key), self.layer
        return tag(y, x, layer.weight, bias=layer.bias, equation="i,oi->o")


def tagged(model):
    is_linear = lambda node: isinstance(node, eqx.nn.Linear)
    wrap = lambda node: Tagged(node) if is_linear(node) else node
    return jax.tree.map(wrap, model, is_leaf=is_linear)


class TaggedConv(eqx.Module):
    """Channels first, and a kernel of (outputs, inputs, rows, columns): moved as Flax has them."""

    layer: eqx.nn.Conv2d

    def __call__(self, x):
        y, layer = self.layer(x), self.layer
        like = nn.Conv(layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
        last = lambda array: jnp.moveaxis(array, 0, -1)
        y = tag(last(y), last(x), layer.weight.transpose(2, 3, 1, 0), like=like)
        return jnp.moveaxis(y, -1, 0)


def data(*leading):
    x = jax.random.normal(jax.random.key(1), (BATCH, *leading, WIDTH))
    return x, jnp.arange(x.size // WIDTH).reshape(x.shape[:-1]) % CLASSES


def exact(tree):
    return jax.tree.map(lambda p: p.astype(float) if eqx.is_inexact_array(p) else p, tree)


def haiku(network, x):
    model = hk.without_apply_rng(hk.transform(network))
    params = exact(model.init(jax.random.key(0), x))

    def apply(params, x):
        with hk.intercept_methods(tagging):
            return model.apply(params, x)

    return params, apply


@float64
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.checkpoint])
def test_haiku(transform):
    x, y = data(4)
    params, apply = haiku(lambda x: hk.nets.MLP([4, CLASSES], activation=jnp.tanh)(x), x)
    loss_fn = lambda params, x, y: cross_entropy(transform(apply)(params, x), y)
    names = [f"mlp/~/linear_{i}" for i in range(2)]
    weights = [(params[name]["w"], params[name]["b"]) for name in names]
    layers = check(loss_fn, params, (x, y), weights, (x, y), [(f"{n}/w", ()) for n in names])
    assert layers.coverage == 1


def measured(loss_fn, params, *args):
    layers = singd_optax.find_layers(loss_fn, params, *args)
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    return layers, jax.jit(lambda p: grad_fn(p, *args, opt_state=state))(params)[2]


@float64
def test_convolutions():
    """The same statistics as those of Flax's convolution with the same kernel."""
    x = jax.random.normal(jax.random.key(1), (BATCH, 6, 6, 2))
    loss = lambda y: jnp.sum(jnp.sin(y)) / BATCH
    params, apply = haiku(lambda x: hk.Conv2D(4, 3, stride=2)(x), x)
    layers, got = measured(lambda p, x: loss(apply(p, x)), params, x)
    assert layers["conv2_d/w"].kind == "conv"
    own = {"kernel": params["conv2_d"]["w"], "bias": params["conv2_d"]["b"]}
    conv = nn.Conv(4, (3, 3), strides=2)
    _, want = measured(lambda p, x: loss(conv.apply({"params": p}, x)), own, x)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12)
    jax.tree.map(close, got["conv2_d/w"], want[""])

    model = exact(eqx.nn.Conv2d(2, 4, 3, padding=1, use_bias=False, key=jax.random.key(0)))
    first = x.transpose(0, 3, 1, 2)
    layers, got = measured(lambda m, x: loss(jax.vmap(TaggedConv(m))(x)), model, first)
    own = {"kernel": model.weight.transpose(2, 3, 1, 0)}
    conv = nn.Conv(4, (3, 3), use_bias=False)
    _, want = measured(lambda p, x: loss(conv.apply({"params": p}, x)), own, x)
    jax.tree.map(close, got["weight"], want[""])


@float64
@pytest.mark.parametrize("transform", [lambda f: f, eqx.filter_jit, eqx.filter_checkpoint])
def test_equinox(transform):
    x, y = data(4)
    model = exact(eqx.nn.MLP(WIDTH, CLASSES, 4, 1, jnp.tanh, key=jax.random.key(0)))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss_fn(params, x, y):
        model = tagged(eqx.combine(params, static))
        apply = lambda x: jax.vmap(lambda x: jax.vmap(lambda x: model(x))(x))(x)
        return cross_entropy(transform(apply)(x), y)

    weights = [(layer.weight.T, layer.bias) for layer in model.layers]
    places = [(f"layers/{i}/weight", ()) for i in range(2)]
    layers = check(loss_fn, params, (x, y), weights, (x, y), places)
    assert layers.coverage == 1


class Attentive(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    mlp: eqx.nn.MLP

    def __init__(self, key):
        self.attention = eqx.nn.MultiheadAttention(1, WIDTH, key=key)
        self.mlp = eqx.nn.MLP(WIDTH, CLASSES, 8, 1, key=key)

    def __call__(self, x):
        return self.mlp((x + self.attention(x, x, x)).mean(0))


def attentive():
    params, static = eqx.partition(Attentive(jax.random.key(0)), eqx.is_inexact_array)
    return params, lambda params, x: jax.vmap(tagged(eqx.combine(params, static)))(x)


def convolutional():
    def network(x):
        x = jax.nn.relu(hk.Conv2D(4, (2, 3))(x[..., None]))
        return hk.nets.MLP([8, CLASSES])(hk.Flatten()(x))

    return haiku(network, data(4)[0])


@pytest.mark.parametrize("model", [attentive, convolutional])
def test_training(model):
    params, apply = model()
    x, _ = data(4)
    y = x.mean(1)[:, :CLASSES].argmax(1)
    loss_fn = lambda params: cross_entropy(apply(params, x), y)
    layers = singd_optax.find_layers(loss_fn, params, strict=True)
    assert layers.coverage == 1
    tx = singd_optax.singd(0.05, layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jax.jit
    def step(params, state):
        value, grads, curvature = grad_fn(params, opt_state=state)
        updates, state = tx.update(grads, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state, value

    state, values = tx.init(params), []
    for _ in range(15):
        params, state, value = step(params, state)
        values.append(float(value))
    assert values[-1] < 0.7 * values[0]


def test_errors():
    x, w = jnp.ones((BATCH, 6, 6, 2)), jnp.ones((3, 3, 2, 4))
    with pytest.raises(ValueError, match="`equation` or `like`"):
        tag(x, x, w, equation="i,oi->o", like=nn.Conv(4, (3, 3)))
    with pytest.raises(TypeError, match="a Flax Linen module"):
        tag(x, x, w, like=nn.Conv)
    with pytest.raises(ValueError, match="not a kind of layer"):
        tag(x, x, w, like=nn.LayerNorm())
    find = lambda y: singd_optax.find_layers(
        lambda w: tag(y, x, w, like=nn.Conv(4, (3, 3))).sum(), w
    )
    with pytest.raises(ValueError, match=r"not the product of Conv"):
        find(jnp.ones((BATCH, 4, 4, 4)))
