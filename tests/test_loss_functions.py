"""What losses do: to their params, with derivatives inside, with several uses of a kernel.

Statistics are compared with those of a loss that does none of it, or with explicit ones.
"""

import collections
import contextlib
import functools
import re
import threading
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec
from test_capture import Plain, Stacked, cross_entropy, data, init

import singd_optax

pytestmark = pytest.mark.usefixtures("x64")


def statistics(loss_fn, params, *args, layers=None, **options):
    """The layers that are found, and their statistics, of a jitted step."""
    if layers is None:
        layers = singd_optax.find_layers(loss_fn, params, *args, structures="dense", **options)
    tx = singd_optax.scale_by_singd(layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jax.jit
    def run(params, *args):
        _, grads, curvature = grad_fn(params, *args, opt_state=tx.init(params))
        return grads, jax.grad(loss_fn)(params, *args), dict(curvature)

    grads, want, curvature = run(params, *args)
    assert_same(grads, want)
    return layers, curvature


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), got, want)


@functools.cache
def problem(name):
    """Parameters, a batch and the loss of one of the models."""
    model = MODELS[name]
    x, y = data(6)
    return init(model, x), (x, y), base(model)


@functools.cache
def wanted(name, layers):
    """Parameters -> the statistics of this model's loss, compiled once."""
    params, batch, loss = problem(name)
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss, layers)
    return jax.jit(lambda params: dict(grad_fn(params, *batch, opt_state=state)[2]))


@contextlib.contextmanager
def warned(match):
    """One of the warnings says this; others may be of the share of parameters."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    texts = [str(warning.message) for warning in seen]
    assert any(re.search(match, text) for text in texts), texts
    assert all(re.search(match, text) or text.startswith("Only ") for text in texts), texts


def base(model):
    return lambda params, x, y: cross_entropy(model.apply({"params": params}, x), y)


def quantized(w):
    step = jnp.max(jnp.abs(w)) / 7 + 1e-8
    return w + jax.lax.stop_gradient(jnp.round(w / step) * step - w)


def standardized(w):
    return (w - w.mean(-2, keepdims=True)) / (w.std(-2, keepdims=True) + 1) if w.ndim > 1 else w


def masks(params):
    return jax.tree.map(lambda w: jnp.asarray(np.arange(w.size).reshape(w.shape) % 3 > 0), params)


def shardings(params):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), params)


def unravelled(params):
    flat, unravel = ravel_pytree(params)
    return unravel(flat * 1.5)


def in_lanes(loss):
    """The loss of one model, written as that of a stack of one, by a tree of in_axes."""

    def of(params, x, y):
        stacked = jax.tree.map(lambda w: w[None], params)
        axes = jax.tree.map(lambda _: 0, params)
        return jax.vmap(loss, (axes, None, None))(stacked, x, y).mean()

    return of


KEY = jax.random.PRNGKey(7)

CHANGES = {
    "scaled": lambda p: jax.tree.map(lambda w: 0.5 * w, p),
    "quantized": lambda p: jax.tree.map(quantized, p),
    "noise": lambda p: jax.tree.map(lambda w: w + jax.random.normal(KEY, w.shape), p),
    "standardized": lambda p: jax.tree.map(standardized, p),
    "masked": lambda p: jax.tree.map(jnp.multiply, p, masks(p)),
    "selected": lambda p: jax.tree.map(lambda m, w: jnp.where(m, w, 0), masks(p), p),
    "sharded": lambda p: jax.lax.with_sharding_constraint(p, shardings(p)),
    "unravelled": unravelled,
    "other keys": lambda p: collections.defaultdict(dict, jax.tree.map(lambda w: w, p)),
}

MODELS = {
    "plain": Plain(),
    "remat": Plain(nn.remat),
    "jit": Plain(nn.jit),
    "scan": Stacked(),
    "scan last": Stacked(-1, remat=True),
}


@pytest.mark.parametrize(
    ("change", "model"),
    [(change, model) for change in CHANGES for model in ("plain", "scan")]
    + [("masked", model) for model in ("remat", "jit", "scan last")],
)
def test_what_a_loss_does_to_its_params_does_not_touch_statistics(change, model):
    params, batch, loss = problem(model)
    change = CHANGES[change]
    layers, got = statistics(lambda p, x, y: loss(change(p), x, y), params, *batch)
    assert layers.coverage == 1
    assert_same(got, wanted(model, layers)(dict(change(params))))


@pytest.mark.parametrize("model", ["plain", "scan"])
def test_params_paired_with_other_trees(model):
    """Anchors, trees of axes, and shardings of an inner jit leave statistics as they are."""
    params, (x, y), loss = problem(model)
    layers = singd_optax.find_layers(loss, params, x, y, structures="dense")
    want = wanted(model, layers)(params)
    anchor = jax.tree.map(lambda w: w + 1, params)

    def anchored(p, x, y):
        gaps = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), p, anchor)
        return loss(p, x, y) + sum(jax.tree.leaves(gaps))

    def placed(p, x, y):
        return jax.jit(loss, in_shardings=(shardings(params), None, None))(p, x, y)

    for other in (anchored, placed, in_lanes(loss)):
        found, got = statistics(other, params, x, y)
        assert list(found) == list(layers)
        assert_same(got, want)


class Scanned(nn.Module):
    """One block, for jax.lax.scan by hand."""

    @nn.compact
    def __call__(self, x):
        return jnp.tanh(nn.Dense(4, param_dtype=jnp.float64)(x))


def by_hand(how):
    """A stack of blocks over which the loss goes by itself."""
    block = Scanned()
    apply = lambda p, x: block.apply({"params": p}, x)
    jitted = jax.jit(apply)

    def loss(params, x):
        if how == "scan":
            x, _ = jax.lax.scan(lambda x, p: (apply(p, x), None), x, params)
        elif how == "unrolled":
            for i in range(3):
                x = apply(jax.tree.map(lambda w, i=i: w[i], params), x)
        elif how == "one jit":
            for i in range(3):
                x = jitted(jax.tree.map(lambda w, i=i: w[i], params), x)
        else:
            x = jax.vmap(apply)(params, jnp.stack([x] * 3)).sum(0)
        return jnp.mean(x**2)

    return loss


@pytest.mark.parametrize("how", ["scan", "unrolled", "one jit"])
def test_stacks_by_hand(how):
    x, _ = data(6)
    params = jax.vmap(lambda key: Scanned().init(key, x)["params"])(
        jax.random.split(jax.random.key(3), 3)
    )
    layers, got = statistics(by_hand(how), params, x)
    assert layers["Dense_0"].stack_shape == (3,)
    _, want = statistics(by_hand("scan"), params, x, layers=layers if how == "scan" else None)
    assert_same(got, want)
    rows = np.concatenate([x, np.ones((6, 1))], axis=1)
    np.testing.assert_allclose(got["Dense_0"].H_K.to_dense()[0], rows.T @ rows / 6, rtol=1e-9)


def test_one_jitted_function_for_several_layers():
    """It is traced once, and applied to layers of equal shapes: each has its own statistics."""
    block, (x, _) = Scanned(), data(6)
    keys = jax.random.split(jax.random.key(3), 3)
    params = {f"b{i}": block.init(key, x)["params"] for i, key in enumerate(keys)}

    def loss(apply):
        def of(params, x):
            for i in range(3):
                x = apply({"params": params[f"b{i}"]}, x)
            return jnp.mean(x**2)

        return of

    layers, got = statistics(loss(jax.jit(block.apply)), params, x)
    assert len(layers) == 3
    _, want = statistics(loss(block.apply), params, x)
    assert_same(got, want)


@pytest.mark.parametrize("change", ["scaled", "masked", "cast", "penalty"])
def test_what_cannot_travel_is_refused_with_the_remedy(change):
    """A loop by hand over params that are changed as a whole: nothing can ride there."""
    x, _ = data(6)
    params = jax.vmap(lambda key: Scanned().init(key, x)["params"])(
        jax.random.split(jax.random.key(3), 3)
    )
    params = {"blocks": params, "head": jnp.ones((4, 2))}
    loop, changes = (
        by_hand("scan"),
        {
            **CHANGES,
            "cast": lambda p: jax.tree.map(lambda w: w.astype(jnp.float32), p),
            "penalty": lambda p: p,
        },
    )

    def loss(p, x):
        q = changes[change](p)
        penalty = sum(jnp.sum(w**2) for w in jax.tree.leaves(q)) if change == "penalty" else 0
        head = singd_optax.tag(x @ q["head"], x, q["head"])
        x = x.astype(q["head"].dtype)
        return loop(q["blocks"], x) + jnp.mean(head**2) + penalty

    with warned(r"(?s)blocks/Dense_0/kernel.*plain_params"):
        layers = singd_optax.find_layers(loss, params, x)
    assert list(layers) == ["head"]
    with pytest.raises(ValueError, match="plain_params"):
        singd_optax.find_layers(loss, params, x, strict=True)


def gradient_network(kind):
    """u(params, z) for one example, as Linen, or tagged by hand."""
    if kind == "linen":
        model = nn.Sequential([nn.Dense(4), jnp.tanh, nn.Dense(1)])
        return lambda p, z: model.apply({"params": p}, z)[..., 0]

    def tagged(p, z):
        for name, act in (("layers_0", jnp.tanh), ("layers_2", lambda h: h)):
            w, b = p[name]["kernel"], p[name]["bias"]
            z = act(singd_optax.tag(z @ w + b, z, w, bias=b))
        return z[..., 0]

    return tagged


@pytest.mark.parametrize("kind", ["linen", "tag"])
@pytest.mark.parametrize("inner", ["grad", "jacrev", "vjp"])
def test_derivatives_with_respect_to_inputs(inner, kind):
    """Forces: the output gradients are those of the whole loss, to the first layer's outputs."""
    x, forces = jax.random.normal(jax.random.key(0), (6, 5)), jnp.ones((6, 5))
    first, last = (nn.Dense(size, param_dtype=float) for size in (4, 1))
    model = nn.Sequential([first, jnp.tanh, last])
    params = model.init(jax.random.key(1), x)["params"]
    u = gradient_network(kind)
    by_vjp = lambda f: lambda z: jax.vjp(f, z)[1](jnp.ones(()))[0]
    derivative = by_vjp if inner == "vjp" else getattr(jax, inner)

    def loss(p, x):
        return jnp.mean(jnp.sum((jax.vmap(derivative(lambda z: u(p, z)))(x) - forces) ** 2, -1))

    W1, b1 = params["layers_0"]["kernel"], params["layers_0"]["bias"]
    W2 = params["layers_2"]["kernel"]

    def perturbed(e):
        f = lambda z, e: (jnp.tanh(z @ W1 + b1 + e) @ W2)[0]
        return jnp.mean(jnp.sum((jax.vmap(jax.grad(f))(x, e) - forces) ** 2, -1))

    g = jax.grad(perturbed)(jnp.zeros((6, 4)))
    _, got = statistics(loss, params, x)
    name = "layers_0" if kind == "linen" else "layers_0/kernel"
    np.testing.assert_allclose(got[name].H_C.to_dense(), 6 * g.T @ g, rtol=1e-9, atol=1e-14)
    rows = np.concatenate([x, np.ones((6, 1))], axis=1)
    np.testing.assert_allclose(got[name].H_K.to_dense(), rows.T @ rows / 6, rtol=1e-9)


@pytest.mark.parametrize("inner", ["jacfwd", "hessian", "jvp"])
def test_derivatives_in_forward_mode_are_refused(inner):
    x = jax.random.normal(jax.random.key(0), (6, 5))
    model = nn.Sequential([nn.Dense(4), jnp.tanh, nn.Dense(1)])
    params = {"u": model.init(jax.random.key(1), x)["params"], "v": jnp.ones((5, 2))}

    def loss(p, x):
        u = lambda z: model.apply({"params": p["u"]}, z)[..., 0]
        derivative = {
            "jacfwd": lambda z: jax.jacfwd(u)(z),
            "hessian": lambda z: jnp.diag(jax.hessian(u)(z)),
            "jvp": lambda z: jax.jvp(u, (z,), (jnp.ones_like(z),))[1],
        }[inner]
        other = singd_optax.tag(x @ p["v"], x, p["v"])
        return jnp.mean(jax.vmap(derivative)(x) ** 2) + jnp.mean(other**2)

    with warned(r"(?s)u/layers_0/kernel: .*forward mode.*jacrev"):
        layers = singd_optax.find_layers(loss, params, x)
    assert list(layers) == ["v"]
    statistics(loss, params, x, layers=layers)


def test_derivatives_with_respect_to_params():
    """MAML and gradient penalties: each use counts, with the gradient of the whole loss."""
    x = jax.random.normal(jax.random.key(0), (6, 5))
    model = nn.Dense(3, use_bias=False, param_dtype=float)
    params = model.init(jax.random.key(1), x)["params"]
    apply = lambda p, x: model.apply({"params": p}, x)
    fit = lambda p, x: jnp.mean(apply(p, x) ** 2)

    def maml(p, x):
        fast = jax.tree.map(lambda a, b: a - 0.1 * b, p, jax.grad(fit)(p, x[:3]))
        return fit(fast, x[3:])

    def explicit(e1, e2):
        inner = lambda w: jnp.mean((x[:3] @ w + e1) ** 2)
        fast = params["kernel"] - 0.1 * jax.grad(inner)(params["kernel"])
        return jnp.mean((x[3:] @ fast + e2) ** 2)

    g1, g2 = jax.grad(explicit, (0, 1))(jnp.zeros((3, 3)), jnp.zeros((3, 3)))
    layers, got = statistics(maml, params, x)
    assert layers[""].is_mapped
    want = 3 * (g1.T @ g1 + g2.T @ g2)
    np.testing.assert_allclose(got[""].H_C.to_dense(), want, rtol=1e-9, atol=1e-15)
    rows = [np.asarray(part) for part in (x[:3], x[3:])]
    want = sum(a.T @ a / 3 for a in rows)
    np.testing.assert_allclose(got[""].H_K.to_dense(), want, rtol=1e-9)

    penalized = lambda p, x: fit(p, x) + 0.1 * optax.global_norm(jax.grad(fit)(p, x))
    _, got = statistics(penalized, params, x)
    np.testing.assert_allclose(got[""].H_K.to_dense(), 2 * x.T @ x / 6, rtol=1e-9)


@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
@pytest.mark.parametrize("closes_over", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_vmap_around_the_gradient_function(size, closes_over, kfac_approx):
    x, y = data(6, 2)
    model = Plain()
    params = init(model, x)
    loss = base(model)
    layers = singd_optax.find_layers(loss, params, x, y, kfac_approx=kfac_approx)
    state = singd_optax.scale_by_singd(layers).init(params)

    def one(batch):
        if closes_over:
            grad_fn = singd_optax.value_and_grad(lambda p: loss(p, *batch), layers)
            return grad_fn(params, opt_state=state)
        return singd_optax.value_and_grad(loss, layers)(params, *batch, opt_state=state)

    batches = jax.tree.map(lambda a: a.reshape(6 // size, size, *a.shape[1:]), (x, y))
    both = lambda batches: (jax.vmap(one)(batches), jax.lax.map(one, batches))
    is_eager = closes_over and size == 1 and kfac_approx == "expand"
    lanes, steps = (both if is_eager else jax.jit(both))(batches)
    for got, want in zip(lanes[:2], steps[:2], strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), got, want)
    assert_same(dict(lanes[2]), dict(steps[2]))


class Language(nn.Module):
    how: str

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(7, 4, name="embed", param_dtype=float)
        h = nn.Dense(4, name="up", param_dtype=float)(embed(tokens))
        if self.how == "attend":
            return embed.attend(h)
        logits = h @ embed.embedding.T
        if self.how == "tag":
            return singd_optax.tag(logits, h, embed.embedding, equation="...i,oi->...o")
        return logits


def test_a_kernel_that_is_also_used_raw():
    tokens = jnp.arange(6) % 7

    def loss(how):
        def of(p, t):
            logits = Language(how).apply({"params": p}, t)
            return optax.softmax_cross_entropy_with_integer_labels(logits, (t + 1) % 7).mean()

        return of

    params = Language("attend").init(jax.random.key(0), tokens)["params"]
    layers, want = statistics(loss("attend"), params, tokens)
    assert layers["embed"].tied
    with warned(r"(?s)embed/embedding: .*outside of the calls.*attend"):
        found = singd_optax.find_layers(loss("raw"), params, tokens)
    assert list(found) == ["up"]
    with pytest.raises(ValueError, match=r"embed/embedding.*outside of the calls"):
        singd_optax.find_layers(loss("raw"), params, tokens, strict=True)
    layers, got = statistics(loss("tag"), params, tokens)
    (tied,) = (spec for spec in layers.values() if spec.kernel_path == "embed/embedding")
    assert tied.tied
    assert_same({"embed": got[tied.path]}, {"embed": want["embed"]})


class Raw(nn.Module):
    """A Dense layer whose kernel the model also uses in another way."""

    how: str

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(4, use_bias=False, name="a", param_dtype=float)
        y = jnp.tanh(layer(x))
        w = layer.variables["params"]["kernel"]
        match self.how:
            case "product":
                y = y @ w.T @ jnp.ones((5, 4))
            case "einsum":
                y = jnp.einsum("ni,oi->no", y, w) @ jnp.ones((5, 4))
            case "gather":
                y = y + w[jnp.argmax(x, -1)]
            case "gate":
                y = y * w[:1]
            case "with the data":
                y = y + x @ jnp.tanh(w)
            case "entry by entry":
                y = y + jnp.sum(x[:, :, None] * w, axis=1)
            case "in a branch":
                y = jax.lax.cond(x.sum() > 0, lambda y: y @ w.T, lambda y: y @ w.T * 2, y)
                y = y @ jnp.ones((5, 4))
            case "in a loop":
                y, _ = jax.lax.scan(lambda y, _: (jnp.tanh(y @ w.T @ w), None), y, None, length=2)
            case "in a custom function":
                f = jax.custom_vjp(lambda y, w: y @ w.T @ w)
                f.defvjp(lambda y, w: (f(y, w), (y, w)), lambda r, g: (g, r[1]))
                y = f(y, w)
        return nn.Dense(3, name="b", param_dtype=float)(y)


@pytest.mark.parametrize(
    "how",
    [
        "product",
        "einsum",
        "gather",
        "gate",
        "with the data",
        "entry by entry",
        "in a branch",
        "in a loop",
        "in a custom function",
    ],
)
@pytest.mark.parametrize("outer", ["plain", "jit", "remat"])
def test_other_uses_are_refused(how, outer):
    x = jax.random.normal(jax.random.key(0), (6, 5))
    params = Raw("none").init(jax.random.key(1), x)["params"]
    model = {"plain": Raw, "jit": nn.jit(Raw), "remat": nn.remat(Raw)}[outer](how)
    loss = lambda p, x: jnp.mean(model.apply({"params": p}, x) ** 2)
    with warned(r"(?s)a/kernel: .*outside of the calls"):
        layers = singd_optax.find_layers(loss, params, x)
    assert list(layers) == ["b"]


@pytest.mark.parametrize(
    "how", ["penalty", "anchor", "spectral", "orthogonal", "stopped", "metric"]
)
def test_uses_that_are_no_part_of_the_network(how):
    """Penalties add to gradients of parameters; what no gradient flows through, adds to none."""
    x = jax.random.normal(jax.random.key(0), (6, 5))
    model = Raw("none")
    params = model.init(jax.random.key(1), x)["params"]

    def loss(p, x):
        y = model.apply({"params": p}, x)
        w = p["a"]["kernel"]
        more = {
            "penalty": jnp.sum(jnp.abs(w)),
            "anchor": jnp.sum((w - x[:5, :4]) ** 2 * jnp.abs(x[:5, :4])),
            "spectral": jnp.linalg.norm(w @ jnp.tanh(w.T @ w[:, 0])),
            "orthogonal": jnp.sum((w.T @ w - jnp.eye(4)) ** 2),
            "stopped": jnp.mean(jax.lax.stop_gradient(x @ w) ** 2),
            "metric": jnp.argmax(x @ w).astype(float) * 0,
        }[how]
        return jnp.mean(y**2) + more

    layers, got = statistics(loss, params, x)
    _, want = statistics(lambda p, x: jnp.mean(model.apply({"params": p}, x) ** 2), params, x)
    assert list(layers) == ["a", "b"]
    assert_same(got, want)


def test_targets_and_teachers_are_not_measured():
    x = jax.random.normal(jax.random.key(0), (6, 5))
    w = {"w": jax.random.normal(jax.random.key(1), (5, 3))}
    net = lambda p, x: singd_optax.tag(x @ p["w"], x, p["w"])
    old = jax.tree.map(jnp.zeros_like, w)
    target = lambda p, t, x: jnp.mean((net(p, x) - net(t, x)) ** 2)
    stopped = lambda p, t, x: jnp.mean((net(p, x) - net(jax.lax.stop_gradient(p), x + 1)) ** 2)
    closed = lambda p, t, x: jnp.mean((net(p, x) - net({"w": jnp.ones((5, 3))}, x)) ** 2)
    for loss in (target, stopped, closed):
        layers, got = statistics(loss, w, old, x)
        assert list(layers) == ["w"]
        np.testing.assert_allclose(got["w"].H_K.to_dense(), x.T @ x / 6, rtol=1e-9)


def test_kernels_made_of_several_parameters_are_refused_with_true_reasons():
    """As LoRA with a frozen kernel; with one that is trained, the kernel is measured."""
    x = jax.random.normal(jax.random.key(0), (6, 5))
    model = nn.Dense(4, use_bias=False, param_dtype=float)
    params = {"w": jnp.ones((5, 4)), "a": jnp.ones((5, 2)), "b": jnp.ones((2, 4)), "head": x[:4]}

    def loss(stop):
        def of(p, x):
            w = jax.lax.stop_gradient(p["w"]) if stop else p["w"]
            y = model.apply({"params": {"kernel": w + p["a"] @ p["b"]}}, x)
            return jnp.mean(singd_optax.tag(y @ p["head"], y, p["head"]) ** 2)

        return of

    with warned(r"(?s)a: Dense: its kernel is made of"):
        layers = singd_optax.find_layers(loss(True), params, x)
    assert list(layers) == ["head"]
    reasons = {other.path: other.reason for other in layers.others}
    assert "does not depend" in reasons["w"]
    assert "made of parameters" in reasons["a"]
    assert "made of parameters" in reasons["b"]
    layers, got = statistics(loss(False), params, x)
    assert sorted(spec.kernel_path for spec in layers.values()) == ["head", "w"]
    np.testing.assert_allclose(
        got["w" if "w" in got else ""].H_K.to_dense(), x.T @ x / 6, rtol=1e-9
    )


class Twice(nn.Module):
    """A layer one of whose calls does not reach the loss."""

    both: bool

    @nn.compact
    def __call__(self, x):
        head = nn.Dense(5, name="head", param_dtype=float)
        return head(x), (head(100.0 * x) if self.both else x)


@pytest.mark.parametrize("lift", [lambda m: m, nn.jit, nn.remat], ids=["plain", "jit", "remat"])
def test_calls_that_do_not_reach_the_loss_do_not_count(lift):
    x = jax.random.normal(jax.random.key(0), (6, 5))
    params = lift(Twice)(False).init(jax.random.key(1), x)["params"]
    loss = lambda both: lambda p, x: jnp.mean(lift(Twice)(both).apply({"params": p}, x)[0] ** 2)
    _, one = statistics(loss(False), params, x)
    _, two = statistics(loss(True), params, x)
    assert_same(two, one)


class TiedAutoencoder(nn.Module):
    """A square kernel that is used as its transpose through nn.map_variables."""

    @nn.compact
    def _call(self, x, decode):
        f = lambda module: nn.Dense(5, use_bias=False, param_dtype=float)(x)
        turn = (lambda v: jax.tree.map(lambda w: w.T, v)) if decode else (lambda v: v)
        return nn.map_variables(f, "params", turn, turn, mutable=True)(self)

    def __call__(self, x):
        return self._call(jnp.tanh(self._call(x, False)), True)


def test_a_transposed_kernel_is_tied():
    x = jax.random.normal(jax.random.key(0), (6, 5))
    model = TiedAutoencoder()
    params = model.init(jax.random.key(1), x)["params"]
    loss = lambda p, x: jnp.mean(jnp.sum((model.apply({"params": p}, x) - x) ** 2, -1))
    layers, got = statistics(loss, params, x)
    assert layers["Dense_0"].tied
    W = params["Dense_0"]["kernel"]
    h = jnp.tanh(x @ W)

    def perturbed(e1, e2):
        return jnp.mean(jnp.sum((jnp.tanh(x @ W + e1) @ W.T + e2 - x) ** 2, -1))

    g1, g2 = jax.grad(perturbed, (0, 1))(jnp.zeros((6, 5)), jnp.zeros((6, 5)))
    one, other = got["Dense_0"], got["Dense_0"].transposed
    for matrix, want in (
        (one.H_K, x.T @ x / 6),
        (one.H_C, 6 * g1.T @ g1),
        (other.H_K, 6 * g2.T @ g2),
        (other.H_C, h.T @ h / 6),
    ):
        np.testing.assert_allclose(matrix.to_dense(), want, rtol=1e-9, atol=1e-12)


def normed(a, k, b, dtype=None, **options):
    del dtype, options
    return a, k / jnp.linalg.norm(k), b


@pytest.mark.parametrize("how", ["WeightNorm", "map_variables"])
def test_kernels_that_are_changed_before_they_multiply(how):
    """They are measured for the kernel that multiplies, and the table says so."""
    x = jax.random.normal(jax.random.key(0), (6, 5))
    double = lambda v: {"params": jax.tree.map(lambda w: 2 * jnp.tanh(w), v["params"])} if v else v

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            if how == "WeightNorm":
                layer = nn.Dense(4, name="d", param_dtype=float)
                return nn.WeightNorm(layer, param_dtype=float)(x)
            mapped = nn.map_variables(nn.Dense, "params", double, init=True, mutable=True)
            return mapped(4, name="d", param_dtype=float)(x)

    model = Net()
    params = model.init(jax.random.key(1), x)["params"]
    loss = lambda p, x: jnp.mean(jnp.sum(model.apply({"params": p}, x) ** 2, -1))
    layers, got = statistics(loss, params, x)
    (name,) = layers
    assert layers[name].is_mapped
    assert "kernel changed first" in repr(layers)
    g = 2 * model.apply({"params": params}, x) / 6
    np.testing.assert_allclose(got[name].H_C.to_dense(), 6 * g.T @ g, rtol=1e-9)


def halved(a, k, dimensions, **options):
    return jax.lax.dot_general(a, k / 2, dimensions, **options)


def plain(a, k, dimensions, precision=None, **options):
    del precision
    return jax.lax.dot_general(a, k, dimensions, precision="highest", **options)


def rounded(a, k, dimensions, **options):
    low = (array.astype(jnp.float8_e4m3fn).astype(array.dtype) for array in (a, k))
    return jax.lax.dot_general(*low, dimensions, **options)


@pytest.mark.parametrize("how", ["promote_dtype", "dot_general", "dot_general_cls"])
def test_layers_that_change_the_kernel_inside_are_refused(how):
    x = jnp.ones((6, 5))
    given = {"promote_dtype": normed, "dot_general": halved, "dot_general_cls": lambda: plain}
    model = nn.Sequential([nn.Dense(4, **{how: given[how]}), nn.Dense(3)])
    params = model.init(jax.random.key(1), x)["params"]
    loss = lambda p, x: jnp.mean(model.apply({"params": p}, x) ** 2)
    with warned(f"(?s)its {how}= .* change.? the kernel|its {how}= changes the kernel"):
        layers = singd_optax.find_layers(loss, params, x)
    assert list(layers) == ["layers_1"]


@pytest.mark.parametrize("layer", [nn.Dense, nn.DenseGeneral])
@pytest.mark.parametrize("product", [plain, rounded], ids=["plain", "rounded"])
def test_products_of_ones_own_that_change_no_number(layer, product):
    """Casts are no changes; what they round is measured as it is."""
    x = jax.random.normal(jax.random.key(0), (6, 5))
    model = layer(4, dot_general=product, param_dtype=float, use_bias=False)
    params = model.init(jax.random.key(1), x)["params"]
    loss = lambda p, x: jnp.mean(model.apply({"params": p}, x) ** 2)
    _, got = statistics(loss, params, x)
    np.testing.assert_allclose(got[""].H_K.to_dense(), x.T @ x / 6, rtol=1e-9)


def test_complex_inputs_and_empty_axes_are_refused():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, z):
            y = nn.Dense(3, name="real")(x) + jnp.abs(nn.Dense(3, dtype=complex, name="complex")(z))
            zeros = nn.initializers.zeros
            nothing = nn.Dense(3, kernel_init=zeros, name="none")(x[:, :0])
            return jnp.concatenate(
                [y + nothing, nn.Dense(0, kernel_init=zeros, name="empty")(x)], -1
            )

    x, z = jnp.ones((6, 5)), jnp.ones((6, 5)) * 1j
    params = Net().init(jax.random.key(0), x, z)["params"]
    loss = lambda p, x, z: jnp.mean(Net().apply({"params": p}, x, z) ** 2)
    with warned(r"(?s)complex/kernel: .*complex128.*no elements"):
        layers = singd_optax.find_layers(loss, params, x, z)
    assert list(layers) == ["real"]


def test_custom_derivatives_are_refused():
    x = jnp.ones((6, 5))
    model = nn.Dense(5)
    params = {"f": model.init(jax.random.key(0), x)["params"], "head": jnp.ones((5, 2))}
    f = jax.custom_vjp(lambda p, x: model.apply({"params": p}, x))
    f.defvjp(lambda p, x: (f(p, x), p), lambda p, g: (p, g))

    def loss(p, x):
        h = f(p["f"], x)
        return jnp.mean(singd_optax.tag(h @ p["head"], h, p["head"]) ** 2)

    with warned(r"(?s)f/kernel: Dense: called inside of .*custom_vjp"):
        layers = singd_optax.find_layers(loss, params, x)
    assert list(layers) == ["head"]
    state = singd_optax.scale_by_singd(layers).init(params)
    _, grads, _ = singd_optax.value_and_grad(loss, layers)(params, x, opt_state=state)
    jax.tree.map(np.testing.assert_array_equal, grads, jax.grad(loss)(params, x))


def weighted(apply):
    def loss(p, x, w):
        with singd_optax.position_weights(w):
            y = apply(p, x)
        return jnp.sum(w[:, None] * y**2) / jnp.sum(w)

    return loss


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, lambda f: f], ids=["jit", "ckpt", "no"])
@pytest.mark.parametrize("compiled", [False, True])
def test_weights_around_functions_with_caches(wrap, compiled):
    x = jax.random.normal(jax.random.key(0), (6, 5))
    model = nn.Dense(3, param_dtype=float)
    params = model.init(jax.random.key(1), x)
    apply = wrap(model.apply)
    loss = weighted(apply)
    weights = [jnp.array(w) for w in ([1.0] * 6, [1.0] + [0.0] * 5, [0.5] * 6)]
    layers = singd_optax.find_layers(loss, params, x, weights[0], structures="dense")
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss, layers)
    step = lambda p, x, w, s: grad_fn(p, x, w, opt_state=s)[2]["params"].H_K.to_dense()
    step = jax.jit(step) if compiled else step
    rows = np.concatenate([x, np.ones((6, 1))], axis=1)
    moment = lambda w: (rows * np.asarray(w)[:, None]).T @ rows / float(w.sum())
    for w in [*weights, weights[0]]:
        np.testing.assert_allclose(step(params, x, w, state), moment(w), rtol=1e-9)
    # The same function without weights afterwards, and with two in one loss.
    plain = lambda p, x: jnp.mean(apply(p, x) ** 2)
    _, got = statistics(plain, params, x)
    np.testing.assert_allclose(got["params"].H_K.to_dense(), rows.T @ rows / 6, rtol=1e-9)
    two = lambda p, x, v, w: loss(p, x, v) + loss(p, x, w)
    _, got = statistics(two, params, x, *weights[:2])
    want = moment(weights[0]) + moment(weights[1])
    np.testing.assert_allclose(got["params"].H_K.to_dense(), want, rtol=1e-9)


@pytest.mark.parametrize(
    ("weight", "error"),
    [(-jnp.ones(6), "negative"), (jnp.full(6, jnp.nan), "finite"), ("x", "array"), (None, "array")],
    ids=str,
)
def test_bad_weights(weight, error):
    model = nn.Dense(3)
    params = model.init(jax.random.key(0), jnp.ones((6, 5)))

    def loss(p, x):
        with singd_optax.position_weights(weight):
            return jnp.mean(model.apply(p, x) ** 2)

    with pytest.raises((ValueError, TypeError), match=error):
        singd_optax.find_layers(loss, params, jnp.ones((6, 5)))


def test_threads_do_not_hear_of_each_other():
    """One has weights, and waits in the middle of its loss; another finds and measures layers."""
    x = jax.random.normal(jax.random.key(0), (6, 5))
    w = {"w": jax.random.normal(jax.random.key(1), (5, 3))}
    inside, done = threading.Event(), threading.Event()
    net = lambda p, x: singd_optax.tag(x @ p["w"], x, p["w"])
    plain = lambda p, x: jnp.mean(net(p, x) ** 2)
    _, want = statistics(plain, w, x)
    results = {}

    def slow(p, x):
        with singd_optax.position_weights(jnp.array([1.0, 0, 0, 0, 0, 0])):
            inside.set()
            assert done.wait(60)
            return jnp.mean(net(p, x) ** 2)

    def first():
        with jax.enable_x64(True):
            results["slow"] = statistics(slow, w, x)[1]

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert inside.wait(60)
        _, got = statistics(plain, w, x)
        other = net({"w": jnp.zeros((5, 3))}, x)
    finally:
        done.set()
        thread.join()
    assert_same(got, want)
    assert other.shape == (6, 3)
    np.testing.assert_allclose(results["slow"]["w"].H_K.to_dense(), np.outer(x[0], x[0]), rtol=1e-9)


def test_true_reasons_and_coverage():
    class Bias(nn.Module):
        @nn.compact
        def __call__(self):
            return self.param("table", nn.initializers.normal(), (12, 4))

    class Net(nn.Module):
        def setup(self):
            self.a, self.b, self.bias = nn.Dense(4), nn.Dense(3), Bias()

        def __call__(self, x):
            h = self.a(x) + self.bias()[:6]
            raw = self.is_initializing()
            return self.b(h) if raw else h @ self.b.variables["params"]["kernel"]

    x = jnp.ones((6, 5))
    params = Net().init(jax.random.key(0), x)["params"]
    loss = lambda p, x: jnp.mean(Net().apply({"params": p}, x) ** 2)
    with warned(r"(?s)Only 28% .*55% bias: Bias"):
        layers = singd_optax.find_layers(loss, params, x)
    reasons = {other.path: other.reason for other in layers.others}
    assert "does not depend" in reasons["b/bias"]
    assert "used as it is" in reasons["b/kernel"]
    assert "Bias: not a kind" in reasons["bias/table"]
    assert repr(layers).startswith("1 Kronecker layer with 27.6% of the parameters")
    assert layers.coverage == pytest.approx(24 / 87)


def test_no_layers_shows_the_line_to_write():
    loss = lambda p, x: jnp.mean((x @ p["w"]) ** 2)
    with pytest.raises(ValueError, match=r"singd_optax\.tag\(x @ w, x, w\)"):
        singd_optax.find_layers(loss, {"w": jnp.ones((5, 3))}, jnp.ones((6, 5)))


@pytest.mark.parametrize("odd", [np.array(["a", "b"]), np.array([object()]), np.array([b"x"])])
def test_odd_arguments_are_static(odd):
    model = nn.Dense(3)
    params = model.init(jax.random.key(0), jnp.ones((6, 5)))
    loss = lambda p, batch: jnp.mean(model.apply(p, batch["x"]) ** 2)
    batch = {"x": jnp.ones((6, 5)), "names": odd}
    layers = singd_optax.find_layers(loss, params, batch)
    state = singd_optax.scale_by_singd(layers).init(params)
    singd_optax.value_and_grad(loss, layers)(params, batch, opt_state=state)


@pytest.mark.parametrize("change", ["scaled", "quantized", "masked"])
def test_nnx_models_taken_apart_in_the_loss(change):
    x = jax.random.normal(jax.random.key(0), (6, 5))
    model = nnx.Linear(5, 3, rngs=nnx.Rngs(0), param_dtype=float)
    change = CHANGES[change]

    def loss(model, x):
        graphdef, state = nnx.split(model)
        pure = change(nnx.to_pure_dict(state))
        nnx.replace_by_pure_dict(state, pure)
        return jnp.mean(nnx.merge(graphdef, state)(x) ** 2)

    layers = singd_optax.nnx.find_layers(loss, model, x, structures="dense")
    optimizer = nnx.Optimizer(model, singd_optax.scale_by_singd(layers), wrt=nnx.Param)
    grad_fn = singd_optax.nnx.value_and_grad(loss, layers)
    _, grads, curvature = grad_fn(model, x, optimizer=optimizer)
    rows = np.concatenate([x, np.ones((6, 1))], axis=1)
    np.testing.assert_allclose(curvature[""].H_K.to_dense(), rows.T @ rows / 6, rtol=1e-9)
    want = nnx.grad(loss)(model, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), grads, want)


def test_nnx_gradient_penalty_and_state():
    x = jax.random.normal(jax.random.key(0), (6, 5))
    model = nnx.Linear(5, 3, rngs=nnx.Rngs(0), param_dtype=float)
    fit = lambda m, x: jnp.mean(m(x) ** 2)
    loss = lambda m, x: fit(m, x) + 0.1 * optax.global_norm(nnx.grad(fit)(m, x))
    layers = singd_optax.nnx.find_layers(loss, model, x, structures="dense")
    optimizer = nnx.Optimizer(model, singd_optax.scale_by_singd(layers), wrt=nnx.Param)
    _, _, curvature = singd_optax.nnx.value_and_grad(loss, layers)(model, x, optimizer=optimizer)
    rows = np.concatenate([x, np.ones((6, 1))], axis=1)
    np.testing.assert_allclose(curvature[""].H_K.to_dense(), 2 * rows.T @ rows / 6, rtol=1e-9)
    graphdef, state = nnx.split(model)
    with pytest.raises(TypeError, match=r"singd_optax\.nnx"):
        singd_optax.find_layers(lambda s, x: fit(nnx.merge(graphdef, s), x), state, x)


@pytest.mark.parametrize("how", ["module", "tag", "both"])
def test_a_product_that_is_a_layer_and_tagged_counts_once(how):
    x = jax.random.normal(jax.random.key(0), (6, 4))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.Dense(4, use_bias=False, name="d", param_dtype=float)
            y = layer(x)
            w = layer.variables["params"]["kernel"]
            if how == "tag":
                y = singd_optax.tag(y + 1, x, w)
            h = jnp.tanh(y)
            if how == "both":  # another product with the same kernel, in the same layout
                h = singd_optax.tag(h @ w, h, w)
            return h

    params = Net().init(jax.random.key(1), x)["params"]
    loss = lambda p, x: jnp.mean(Net().apply({"params": p}, x) ** 2)
    layers, got = statistics(loss, params, x)
    (name,) = layers
    h = np.tanh(x @ params["d"]["kernel"])
    want = x.T @ x / 6 + (h.T @ h / 6 if how == "both" else 0)
    np.testing.assert_allclose(got[name].H_K.to_dense(), want, rtol=1e-9)


@pytest.mark.parametrize("how", ["nnx.jit", "nnx.remat", "plain"])
def test_nnx_weights_inside_of_transforms(how):
    x = jax.random.normal(jax.random.key(0), (6, 5))
    model = nnx.Linear(5, 3, rngs=nnx.Rngs(0), param_dtype=float)
    call = {"nnx.jit": nnx.jit, "nnx.remat": nnx.remat, "plain": lambda f: f}[how](
        lambda m, x: m(x)
    )

    def loss(m, x, w):
        with singd_optax.position_weights(w):
            return jnp.sum(w[:, None] * call(m, x) ** 2) / jnp.sum(w)

    weights = [jnp.array(w) for w in ([1.0] * 6, [1.0, 1] + [0.0] * 4, [0.5] * 6)]
    layers = singd_optax.nnx.find_layers(loss, model, x, weights[0], structures="dense")
    optimizer = nnx.Optimizer(model, singd_optax.scale_by_singd(layers), wrt=nnx.Param)
    grad_fn = singd_optax.nnx.value_and_grad(loss, layers)
    rows = np.concatenate([x, np.ones((6, 1))], axis=1)
    for w in weights:
        _, _, curvature = grad_fn(model, x, w, optimizer=optimizer)
        want = (rows * np.asarray(w)[:, None]).T @ rows / float(w.sum())
        np.testing.assert_allclose(curvature[""].H_K.to_dense(), want, rtol=1e-9)


def test_arguments_in_the_wrong_place():
    x = jnp.ones((6, 5))
    model = nn.Dense(3)
    params = model.init(jax.random.key(0), x)
    loss = lambda p, x: jnp.mean(model.apply(p, x) ** 2)
    layers = singd_optax.find_layers(loss, params, x)
    state = singd_optax.singd(1e-2, layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss, layers)
    with pytest.raises(TypeError, match=r"takes the loss function first.*Exchange them"):
        singd_optax.find_layers(params, loss, x)
    with pytest.raises(TypeError, match=r"`loss_fn` must be a function"):
        singd_optax.find_layers(params, params, x)
    with pytest.raises(TypeError, match=r"`loss_fn` must be a function"):
        singd_optax.value_and_grad(layers, layers)
    with pytest.raises(TypeError, match=r"by name, grad_fn\(params, batch, opt_state=opt_state\)"):
        grad_fn(params, x, state)
    with pytest.raises(TypeError, match=r"`strict` must be True or False"):
        singd_optax.find_layers(loss, params, x, strict="no")
    with pytest.raises(ValueError, match=r"`precision` must be"):
        singd_optax.value_and_grad(loss, layers, precision="x")
    with pytest.raises(TypeError, match=r"`has_aux` must be True or False"):
        singd_optax.value_and_grad(loss, layers, has_aux=1)
    with pytest.raises(TypeError, match=r"`seed` must be an int"):
        singd_optax.value_and_grad(loss, layers, seed=None)
    with pytest.raises(
        ValueError, match=r"^Write tx\.update\(grads, opt_state, params, curvature="
    ):
        singd_optax.singd(1e-2, layers).update(params, state, params)
    low = jax.tree.map(lambda w: w.astype(jnp.float8_e4m3fn), params)
    wide = lambda p, x: loss(jax.tree.map(lambda w: w.astype(jnp.float32), p), x)
    with pytest.raises(ValueError, match=r"float8_e4m3fn, none of float32, bfloat16"):
        singd_optax.find_layers(wide, low, x)
