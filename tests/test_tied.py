"""A kernel that is used twice, once as its transpose: tied embeddings."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracle import randomized

import singd_optax
from singd_optax.structures import Diagonal

VOCABULARY, WIDTH, BATCH, LENGTH = 7, 4, 3, 5

float64 = pytest.mark.usefixtures("x64")


class Tied(nn.Module):
    """Embed, a layer, attend."""

    dtype: object = jnp.float64

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(VOCABULARY, WIDTH, name="embed", param_dtype=self.dtype)
        x = jnp.tanh(nn.Dense(WIDTH, param_dtype=self.dtype)(embed(tokens)))
        return embed.attend(x)


def problem(dtype=jnp.float64, scale=1.0, model=None):
    model = model or Tied(dtype)
    tokens = jax.random.randint(jax.random.key(0), (BATCH, LENGTH + 1), 0, VOCABULARY - 1)
    params = model.init(jax.random.key(1), tokens[:, :-1])["params"]

    def loss_fn(params, tokens):
        logits = model.apply({"params": params}, tokens[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return scale * losses.mean()

    layers = singd_optax.find_layers(loss_fn, params, tokens, loss_average="batch+sequence")
    return loss_fn, params, tokens, layers


def by_hand(params, tokens):
    """(inputs, output gradients) of both uses, and of the layer between."""

    def of_offsets(offsets):
        table, dense = params["embed"]["embedding"], params["Dense_0"]
        e = table[tokens[:, :-1]] + offsets[0]
        x = jnp.tanh(e @ dense["kernel"] + dense["bias"])
        logits = x @ table.T + offsets[1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean(), x

    zeros = jnp.zeros((BATCH, LENGTH, WIDTH)), jnp.zeros((BATCH, LENGTH, VOCABULARY))
    (g_embed, g_logits), x = jax.grad(of_offsets, has_aux=True)(zeros)
    one_hot = jax.nn.one_hot(tokens[:, :-1], VOCABULARY)
    flat = lambda v: np.asarray(v).reshape(-1, v.shape[-1])
    return flat(one_hot), flat(g_embed), flat(x), flat(g_logits)


@float64
def test_each_use_on_its_own_side():
    loss_fn, params, tokens, layers = problem()
    assert set(layers) == {"embed", "Dense_0"}
    spec = layers["embed"]
    assert (spec.kind, spec.tied, spec.dims) == ("embed", True, (VOCABULARY, WIDTH))
    assert spec.structures[0] == Diagonal()
    assert "embed (tied)" in repr(layers)
    tx = singd_optax.scale_by_singd(layers)
    state = randomized(tx.init(params))
    grad_fn = jax.jit(singd_optax.value_and_grad(loss_fn, layers))
    _, grads, curvature = grad_fn(params, tokens, opt_state=state)
    plain = jax.grad(loss_fn)(params, tokens)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), grads, plain)

    ids, g_embed, x, g_logits = by_hand(params, tokens)
    count = BATCH * LENGTH
    K, C = (np.asarray(f.to_dense()) for f in singd_optax.factors(state)["embed"])
    straight, transposed = curvature["embed"], curvature["embed"].transposed
    for got, U, G in (
        (straight, ids.T @ ids / count, g_embed.T @ g_embed * count),
        (transposed, g_logits.T @ g_logits * count, x.T @ x / count),
    ):
        want = np.diag(np.diag(K.T @ U @ K))
        np.testing.assert_allclose(got.H_K.to_dense(), want, atol=1e-12)
        np.testing.assert_allclose(got.H_C.to_dense(), C.T @ G @ C, atol=1e-12)
        np.testing.assert_allclose(got.mean_U, np.trace(U) / VOCABULARY)
        np.testing.assert_allclose(got.mean_G, np.trace(G) / WIDTH)


@float64
def test_merged_uses_are_balanced():
    """Each use keeps its Kronecker product; units of the loss drop out of their proportions."""
    merged = []
    for scale in (1.0, 1e3):
        loss_fn, params, tokens, layers = problem(scale=scale)
        state = singd_optax.scale_by_singd(layers).init(params)
        grad_fn = singd_optax.value_and_grad(loss_fn, layers)
        statistics = grad_fn(params, tokens, opt_state=state)[2]["embed"]
        merged.append(statistics.merged())
        both = [statistics._replace(transposed=None), statistics.transposed]
        roots = [jnp.sqrt(use.mean_U * use.mean_G) for use in both]
        np.testing.assert_allclose(merged[-1].mean_U, sum(roots))
        np.testing.assert_allclose(merged[-1].mean_G, sum(roots))
        parts = [
            np.kron(
                (use.H_K * (r / use.mean_U)).to_dense(), (use.H_C * (r / use.mean_G)).to_dense()
            )
            for use, r in zip(both, roots, strict=True)
        ]
        for use, part in zip(both, parts, strict=True):
            whole = np.kron(use.H_K.to_dense(), use.H_C.to_dense())
            np.testing.assert_allclose(part, whole, atol=1e-12 * scale**2)
    assert [int(one.rows) for one in merged] == [2 * BATCH * LENGTH] * 2  # of both uses
    small, large = (one._replace(rows=None) for one in merged)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a * 1e3, b, rtol=1e-9), small, large)


def test_training():
    loss_fn, params, tokens, layers = problem(dtype=jnp.float32)
    tx = singd_optax.singd(0.1, layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jax.jit
    def step(params, state):
        value, grads, curvature = grad_fn(params, tokens, opt_state=state)
        updates, state = tx.update(grads, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state, value

    state, values = tx.init(params), []
    for _ in range(8):
        params, state, value = step(params, state)
        values.append(float(value))
    assert values[-1] < 0.9 * values[0]
    assert step._cache_size() == 1


@float64
def test_attend_alone_is_a_product():
    class Head(nn.Module):
        def setup(self):
            self.table = nn.Embed(VOCABULARY, WIDTH, param_dtype=float)

        def __call__(self, x):
            return self.table.attend(x)

    model = Head()
    x = jax.random.normal(jax.random.key(0), (BATCH, WIDTH))
    params = {"params": {"table": {"embedding": jnp.ones((VOCABULARY, WIDTH))}}}
    loss_fn = lambda params, x: (model.apply(params, x) ** 2).mean()
    layers = singd_optax.find_layers(loss_fn, params, x)
    spec = layers["params/table"]
    assert (spec.kind, spec.tied, spec.dims) == ("attend", False, (WIDTH, VOCABULARY))
    state = singd_optax.scale_by_singd(layers).init(params)
    *_, curvature = singd_optax.value_and_grad(loss_fn, layers)(params, x, opt_state=state)
    np.testing.assert_allclose(curvature["params/table"].H_K.to_dense(), x.T @ x / BATCH)


def test_large_vocabulary_has_no_square():
    """No array with vocabulary x vocabulary or positions x vocabulary entries, but the logits."""
    size = 3000
    model = nn.Embed(size, WIDTH)
    tokens = jnp.zeros((BATCH, 200), jnp.int32)
    params = {"embed": model.init(jax.random.key(0), tokens)["params"]}
    loss_fn = lambda p, t: (model.apply({"params": p["embed"]}, t) ** 2).mean()
    for approx in ("expand", "reduce"):
        layers = singd_optax.find_layers(
            loss_fn, params, tokens, structures="dense", kfac_approx=approx
        )
        tx = singd_optax.singd(1e-2, layers)
        grad_fn = singd_optax.value_and_grad(loss_fn, layers)

        def step(params, state, tokens, grad_fn=grad_fn, tx=tx):
            _, grads, curvature = grad_fn(params, tokens, opt_state=state)
            return tx.update(grads, state, params, curvature=curvature)

        text = str(jax.make_jaxpr(step)(params, tx.init(params), tokens))
        assert f"[{size},{size}]" not in text
        assert f"{BATCH * 200},{size}]" not in text
        assert f"200,{size}]" not in text
