"""Influence, penalties and pruning: dense inverses, leaving out for real, and brute force."""

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
    influence,
    quadratic_penalty,
    remove,
    saliency,
    self_influence,
)

pytestmark = pytest.mark.usefixtures("x64")

DAMPING = 0.5


class Net(nn.Module):
    """Tokens to logits of each position."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(4, 3, param_dtype=float, name="table")(tokens)
        x = nn.LayerNorm(param_dtype=float, name="norm")(jnp.cumsum(x, 1))
        return nn.Dense(4, param_dtype=float, name="head")(x)


def losses_fn(params, tokens):
    logits = Net().apply({"params": params}, tokens)
    logits = singd_optax.tag_distribution(logits)
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens)


@functools.cache
def problem():
    tokens = jax.random.randint(jax.random.key(0), (7, 5), 0, 4)
    params = Net().init(jax.random.key(1), tokens)["params"]
    loss_fn = lambda params, tokens: losses_fn(params, tokens).mean()
    layers = singd_optax.find_layers(loss_fn, params, tokens, loss_average="batch+sequence")
    batches = [(tokens[:4],), (tokens[4:],)]
    curvature = fit(loss_fn, layers, params, batches, kind="ekfac", fisher="empirical")
    return params, tokens, curvature


def dense_scores(params, tokens, curvature):
    """(queries, examples, positions) by explicit gradients and a dense inverse."""
    gradients = jax.jit(jax.jacobian(losses_fn))(params, tokens)
    total = 0
    for path, names in (("table", ["embedding"]), ("head", ["kernel", "bias"])):
        block = curvature[path]
        parts = [gradients[path][name] for name in names]
        parts = [p if p.ndim == 4 else p[:, :, None] for p in parts]
        rows = np.concatenate(parts, 2).reshape(7, 5, -1)
        Q = np.kron(block.K.to_dense(), block.C.to_dense())
        inverse = Q / (np.asarray(block.values).reshape(-1) + DAMPING) @ Q.T
        total = total + np.einsum("qp,pr,ntr->qnt", rows.sum(1), inverse, rows)
    return total


def test_scores():
    """Forward and reverse, any chunks, of positions and of examples, with low rank and without."""
    params, tokens, curvature = problem()
    expected = dense_scores(params, tokens, curvature)
    batches, queries = [(tokens[:4],), (tokens[4:],)], [(tokens[:3],), (tokens[3:],)]
    use = functools.partial(influence, damping=DAMPING)
    found = use(losses_fn, params, curvature, batches, queries, query_chunk=2)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    sums = lambda params, tokens: losses_fn(params, tokens).sum(1)
    # Rank 4 is that of every layer: nothing is lost.
    for options in ({"mode": "reverse"}, {"query_rank": 4}):
        found = use(sums, params, curvature, batches, queries, **options)
        np.testing.assert_allclose(found, expected.sum(2), atol=1e-10)
    one = use(sums, params, curvature, iter(batches), queries, query_rank=1)
    assert one.shape == (7, 7)
    assert np.corrcoef(one.reshape(-1), expected.sum(2).reshape(-1))[0, 1] > 0.5
    own = self_influence(sums, params, curvature, batches, damping=DAMPING)
    np.testing.assert_allclose(own, np.diag(expected.sum(2)), atol=1e-10)


def test_leaving_out_for_real():
    """Ridge regression: a score over 1 - leverage is the change that retraining makes."""
    x = jax.random.normal(jax.random.key(0), (10, 3), float)
    y = x @ jnp.array([1.0, -1.0, 2.0]) + jax.random.normal(jax.random.key(1), (10,), float)
    solve = lambda keep: np.linalg.solve(
        (x * keep[:, None]).T @ x + DAMPING * np.eye(3), (x * keep[:, None]).T @ y
    )
    weights = solve(np.ones(10))
    params = {"params": {"kernel": jnp.asarray(weights)[:, None]}}
    model = nn.Dense(1, use_bias=False, param_dtype=float)
    losses = lambda p, x, y: 0.5 * (model.apply(p, x)[:, 0] - y) ** 2

    def mean_loss(p, x, y):
        means = singd_optax.tag_distribution(model.apply(p, x), "gaussian")
        return 0.5 * ((means[:, 0] - y) ** 2).mean()

    layers = singd_optax.find_layers(mean_loss, params, x, y)
    curvature = fit(mean_loss, layers, params, [(x, y)], fisher="ggn")
    scores = influence(losses, params, curvature, [(x, y)], [(x, y)], damping=DAMPING)
    inverse = np.linalg.inv(x.T @ x + DAMPING * np.eye(3))
    leverage = np.einsum("ni,ij,nj->n", x, inverse, x)
    gradients = np.asarray((x @ weights - y)[:, None] * x)
    for t in range(10):
        moved = solve(np.ones(10) - np.eye(10)[t]) - weights
        np.testing.assert_allclose(scores[:, t] / (1 - leverage[t]), gradients @ moved, rtol=1e-8)


def test_penalty():
    params, _, curvature = problem()
    moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
    penalty = quadratic_penalty(curvature, params, strength=3.0)
    off = jax.tree.map(jnp.subtract, moved, params)
    gradient = jax.grad(penalty)(moved)
    for one, other in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(curvature.matvec(off)), strict=True
    ):
        np.testing.assert_allclose(one, 3 * other, atol=1e-10)
    np.testing.assert_allclose(penalty(moved), 1.5 * curvature.quadratic(off))


@pytest.mark.parametrize("group", ["inputs", "outputs", "entries"])
def test_what_can_be_removed(group):
    """The minimum of the quadratic over all other entries, with these at zero."""
    params, _, curvature = problem()
    block = curvature["head"]
    Q = np.kron(block.K.to_dense(), block.C.to_dense())
    H = Q * (np.asarray(block.values).reshape(-1) + DAMPING) @ Q.T
    w = np.concatenate([params["head"]["kernel"], params["head"]["bias"][None]])
    found = saliency(curvature, params, damping=DAMPING, group=group)["head"]
    places = np.arange(w.size).reshape(w.shape)
    groups = {"inputs": places, "outputs": places.T, "entries": places.reshape(-1, 1)}[group]
    for index, gone in enumerate(groups):
        rest = np.setdiff1d(places, gone)
        off = np.zeros(w.size)
        off[gone] = -w.reshape(-1)[gone]
        off[rest] = -np.linalg.solve(H[np.ix_(rest, rest)], H[np.ix_(rest, gone)] @ off[gone])
        np.testing.assert_allclose(found.reshape(-1)[index], 0.5 * off @ H @ off, rtol=1e-8)
        if group != "entries":
            new = remove(curvature, params, "head", index, damping=DAMPING, group=group)
            got = np.concatenate([new["head"]["kernel"], new["head"]["bias"][None]])
            np.testing.assert_allclose(got - w, off.reshape(w.shape), atol=1e-10)
            assert not got.reshape(-1)[gone].any()


def test_errors():
    params, tokens, curvature = problem()
    data = [(tokens,)]
    use = lambda losses=losses_fn, train=data, query=data, **options: influence(
        losses, params, curvature, train, query, **({"damping": DAMPING} | options)
    )
    with pytest.raises(ValueError, match=r"no batch in `train_batches`.*a new iterator for each"):
        use(train=iter([]))
    with pytest.raises(ValueError, match=r"no batch in `query_batches` .*got list. Pass a list"):
        use(query=[])
    with pytest.raises(ValueError, match=r"no batch in `batches`"):
        self_influence(losses_fn, params, curvature, [], damping=DAMPING)
    with pytest.raises(ValueError, match=r"must return the loss of each example, \(7,\)"):
        use(lambda params, tokens: losses_fn(params, tokens).mean())
    with pytest.raises(ValueError, match=r"got shape .7, 5.\. Take no mean.*use mode='forward'"):
        use(mode="reverse")
    with pytest.raises(ValueError, match="cannot be called with a batch"):
        use(query=[(tokens, tokens)])
    with pytest.raises(ValueError, match=r"loss of each example.*\(7, 5, 1\)"):
        use(train=[(tokens,), (tokens[..., None],)])  # the second alone
    with pytest.raises(ValueError, match=r"loss of each example, \(7,\).*got shape tuple"):
        use(lambda params, tokens: (losses_fn(params, tokens), 0))
    scaled = lambda params, tokens, scale: losses_fn(params, tokens) * scale
    with pytest.raises(ValueError, match=r"One example at a time needs.*got arrays of shapes"):
        self_influence(scaled, params, curvature, [(tokens, jnp.ones([]))], damping=DAMPING)
    with pytest.raises(ValueError, match=r"`params` do not match .*no array at 'head/kernel'"):
        influence(losses_fn, {"table": params["table"]}, curvature, data, data, damping=DAMPING)
    with pytest.raises(ValueError, match=r"`mode` must be one of .*got 'backward'"):
        use(mode="backward")
    singular = from_diagonal({"w": jnp.zeros(2)})
    with pytest.raises(ValueError, match="is singular"):
        self_influence(losses_fn, {"w": jnp.ones(2)}, singular, data, damping=0.0)
    with pytest.raises(ValueError, match="`index` must be from 0 to 3"):
        remove(curvature, params, "head", 4, damping=1.0)
