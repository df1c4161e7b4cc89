"""Position weights: a batch with padding has the statistics of the batch without it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import singd_optax
from singd_optax import position_weights

pytestmark = pytest.mark.usefixtures("x64")

WIDTH, EXAMPLES, PADDED = 4, 5, 3


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return jnp.tanh(nn.Dense(WIDTH, param_dtype=float)(x)), None


class Chain(nn.Module):
    """Two blocks in a row, as a user transforms them."""

    transform: str

    @nn.compact
    def __call__(self, x):
        if self.transform == "scan":
            stack = nn.scan(
                nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=2
            )
            return stack()(x, None)[0]
        block = {"remat": nn.remat(Block), "jit": nn.jit(Block), "plain": Block}[self.transform]
        return block()(block()(x)[0])[0]


def curvature_of(model, x, mask, loss):
    params = model.init(jax.random.key(1), jnp.ones((1, WIDTH)))["params"]
    loss_fn = lambda params, x, mask: loss(lambda x: model.apply({"params": params}, x), x, mask)
    layers = singd_optax.find_layers(loss_fn, params, x, mask)
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = jax.jit(singd_optax.value_and_grad(loss_fn, layers))
    return grad_fn(params, x, mask, opt_state=state)


def masked_mean(y, mask):
    return jnp.sum(jnp.sin(y).sum(-1) * mask) / jnp.sum(mask)


def outside(apply, x, mask):
    with position_weights(mask):
        y = apply(x)
    return masked_mean(y, mask)


def one_by_one(apply, x, mask):
    def one(x, weight):
        with position_weights(weight):
            return apply(x)

    return masked_mean(jax.vmap(one)(x, mask), mask)


@pytest.mark.parametrize("loss", [outside, one_by_one])
@pytest.mark.parametrize("transform", ["plain", "remat", "jit", "scan"])
def test_padding_leaves_no_trace(transform, loss):
    x = jax.random.normal(jax.random.key(0), (EXAMPLES, WIDTH))
    padded = jnp.concatenate([x, jnp.full((PADDED, WIDTH), 7.0)])
    mask = jnp.concatenate([jnp.ones(EXAMPLES), jnp.zeros(PADDED)])
    model = Chain(transform)
    got = curvature_of(model, padded, mask, loss)
    want = curvature_of(model, x, jnp.ones(EXAMPLES), lambda apply, x, m: masked_mean(apply(x), m))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, want)


def graph_loss(apply, x, mask):
    """Messages along edges, with padding nodes and edges; the sizes tell the weights apart."""
    nodes, edges = mask
    with position_weights(nodes, edges):
        h = apply(x[0])
        m = apply(h[x[1]])
    return masked_mean(h, nodes) + masked_mean(m, edges)


def test_nodes_and_edges():
    x = jax.random.normal(jax.random.key(0), (EXAMPLES + PADDED, WIDTH))
    ends = jnp.array([0, 1, 2, 4, 3, 1, 0, 7, 7, 7])
    nodes = (jnp.arange(EXAMPLES + PADDED) < EXAMPLES).astype(float)
    edges = (jnp.arange(len(ends)) < 7).astype(float)
    model = Chain("plain")
    got = curvature_of(model, (x, ends), (nodes, edges), graph_loss)[2]
    short = (x[:EXAMPLES], ends[:7]), (nodes[:EXAMPLES], edges[:7])
    want = curvature_of(model, *short, graph_loss)[2]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, want)


def test_inner_replaces_outer_and_higher_ranks_reduce():
    """After pooling, an example counts if one of its tokens does."""
    x = jax.random.normal(jax.random.key(0), (4, 3, WIDTH))
    mask = jnp.array([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0.0]])
    model = Chain("plain")

    def loss(apply, x, mask):
        with position_weights(jnp.zeros(4)):
            with position_weights():
                y = apply(x)
            assert y.shape == x.shape
        with position_weights(mask):
            pooled = apply(x.mean(1))
        return jnp.sin(y).mean() + masked_mean(pooled, mask.any(1))

    def reference(apply, x, mask):
        pooled = apply(x.mean(1)[jnp.array([0, 1, 3])])
        return jnp.sin(apply(x)).mean() + jnp.sin(pooled).sum(-1).mean()

    got, want = (curvature_of(model, x, mask, f) for f in (loss, reference))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, want)


def test_all_padding_is_no_statistic():
    """Nothing to measure: zeros, not NaN; the optimizer skips such a refresh and counts it."""
    x = jnp.ones((4, WIDTH))

    def loss(apply, x, mask):
        with position_weights(mask):
            return jnp.sum(apply(x))

    *_, curvature = curvature_of(Chain("plain"), x, jnp.zeros(4), loss)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), curvature)


def test_errors():
    x = jnp.ones((4, 3, WIDTH))

    def of(*weights):
        def loss(apply, x, mask):
            with position_weights(*weights):
                return apply(x).sum()

        return lambda: curvature_of(Chain("plain"), x, jnp.zeros(4), loss)

    with pytest.raises(ValueError, match=r"no weight fits the outputs of Dense.*\(4, 3\).*\(5,\)"):
        of(jnp.ones(5))()
    with pytest.raises(ValueError, match="several weights fit"):
        of(jnp.ones(4), jnp.zeros(4))()
