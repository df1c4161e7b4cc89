"""Classes of modules that the library does not know, taught to it."""

import contextlib
import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import strangers
from flax import nnx
from oracle import check, cross_entropy, moments
from strangers import VOCABULARY, WIDTH, Conv1D, Einsum, StdConv

import singd_optax
from singd_optax import register_layer

CLASSES, BATCH = 3, 6

float64 = pytest.mark.usefixtures("x64")
incomplete = lambda: pytest.warns(UserWarning, match=r"Only \d+%")


@contextlib.contextmanager
def all_of(*registrations):
    """All of them, taken back at the end."""
    with contextlib.ExitStack() as stack:
        for registration in registrations:
            stack.enter_context(registration)
        yield


def gpt2():
    return all_of(register_layer(Conv1D, equation="...i,oi->...o"))


def gemma():
    return all_of(
        register_layer(Einsum, equation=lambda module, eqn, x: eqn, kernel="w", inputs=1),
        register_layer(strangers.FeedForward, call=strangers.gemma_feed_forward),
        register_layer(strangers.Embedder, method="encode", call=strangers.gemma_encode),
        register_layer(
            strangers.Embedder,
            method="decode",
            equation="...d,vd->...v",
            kernel="input_embedding",
        ),
    )


def llama():
    return all_of(
        register_layer(strangers.LlamaEinsum, equation=lambda m, x: m.einsum_str, kernel="w"),
        register_layer(strangers.LlamaFeedForward, call=strangers.llama_feed_forward),
    )


def data(*shape):
    x = jax.random.normal(jax.random.key(1), (BATCH, *shape))
    return x, jnp.arange(x.size // shape[-1]).reshape(x.shape[:-1]) % CLASSES


def exact(params):
    """The parameters in the widest dtype that is enabled."""
    return jax.tree.map(lambda p: p.astype(float), params)


def tokens_and_loss(model):
    tokens = jax.random.randint(jax.random.key(0), (4, 6), 0, VOCABULARY)
    params = exact(model.init(jax.random.key(1), tokens)["params"])

    def loss_fn(params, tokens):
        return cross_entropy(model.apply({"params": params}, tokens[:, :-1]), tokens[:, 1:])

    return tokens, params, loss_fn


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def statistics(loss_fn, params, *args):
    """The layers, and what is measured of them; factors are the identity."""
    layers = singd_optax.find_layers(loss_fn, params, *args)
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    value, grads, curvature = jax.jit(lambda p: grad_fn(p, *args, opt_state=state))(params)
    plain = jax.value_and_grad(loss_fn)(params, *args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), (value, grads), plain)
    return layers, curvature


def assert_moments(statistics, a, g, tolerance=1e-10):
    U, G = moments(a, g, bias=False)
    np.testing.assert_allclose(statistics.H_K.to_dense(), U, rtol=1e-9, atol=tolerance)
    np.testing.assert_allclose(statistics.H_C.to_dense(), G, rtol=1e-9, atol=tolerance)


class Net(nn.Module):
    """Two layers of a class; in between, perhaps, a stack of them in a scan."""

    layer: type = Conv1D
    depth: int = 0

    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(self.layer(WIDTH, name="first")(x))
        if self.depth:
            block = nn.scan(
                nn.remat(Block),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=self.depth,
            )
            x, _ = block(name="blocks")(x, None)
        return self.layer(CLASSES, name="last")(x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return jnp.tanh(Conv1D(WIDTH, name="layer")(x)), None


@float64
@pytest.mark.parametrize("depth", [0, 3], ids=["plain", "scan_and_remat"])
def test_transposed_kernel(depth):
    model, (x, y) = Net(depth=depth), data(4, 5)
    params = exact(model.init(jax.random.key(0), x)["params"])
    loss_fn = lambda p, x, y: cross_entropy(model.apply({"params": p}, x), y)
    pair = lambda p: (p["kernel"].T, p["bias"])
    weights, places = [pair(params["first"])], [("first", ())]
    for i in range(depth):
        weights.append(pair(jax.tree.map(lambda p, i=i: p[i], params["blocks"]["layer"])))
        places.append(("blocks/layer", (i,)))
    weights.append(pair(params["last"]))
    with gpt2():
        layers = check(loss_fn, params, (x, y), weights, (x, y), [*places, ("last", ())])
    assert layers["first"].kind == "Conv1D"
    assert layers["first"].dims == (6, WIDTH)


def test_sub_classes_keep_what_their_method_does():
    class Named(Conv1D):
        """Keeps the method."""

    class Doubled(Conv1D):
        @nn.compact
        def __call__(self, inputs):
            return (
                2 * self.param("kernel", strangers.NORMAL, (self.features, 5)).sum(1) * inputs[0, 0]
            )

    x, _ = data(5)
    with gpt2():
        for kind, count in ((Named, 2), (Doubled, 1)):
            model = nn.Sequential([nn.Dense(5), kind(CLASSES)])
            params = model.init(jax.random.key(0), x)
            find = lambda p, x: model.apply(p, x).sum()  # noqa: B023
            assert len(singd_optax.find_layers(find, params, x)) == count


def test_a_bias_that_only_some_have():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Conv1D(CLASSES, use_bias=False)(Conv1D(4)(x))

    x, _ = data(5)
    params = Net().init(jax.random.key(0), x)["params"]
    loss_fn = lambda p, x: Net().apply({"params": p}, x).sum()
    with gpt2():
        layers = singd_optax.find_layers(loss_fn, params, x)
    assert [spec.bias_path for spec in layers.values()] == [None, "Conv1D_1/bias"]


@float64
def test_equation_of_the_call():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            q = Einsum((2, 5, 3), name="q")("BTD,NDH->BTNH", x)
            return q, Einsum((2, 3, 5), name="o")(x=jnp.tanh(q), eqn="BTNH,NHD->BTD")

    model, (x, y) = Net(), data(4, 5)
    params = exact(model.init(jax.random.key(0), x)["params"])
    q = jnp.einsum("BTD,NDH->BTNH", x, params["q"]["w"])

    def of_offsets(offsets):
        hidden = jnp.tanh(q + offsets[0].reshape(q.shape))
        z = jnp.einsum("BTNH,NHD->BTD", hidden, params["o"]["w"])
        return cross_entropy(z + offsets[1], y), hidden

    offsets = [jnp.zeros((BATCH, 4, 6)), jnp.zeros((BATCH, 4, 5))]
    (g, h), hidden = jax.grad(of_offsets, has_aux=True)(offsets)
    equation = lambda module, eqn, x: eqn
    for inputs in (1, "x"):
        with register_layer(Einsum, equation=equation, kernel="w", inputs=inputs):
            loss_fn = lambda p, x, y: cross_entropy(model.apply({"params": p}, x)[1], y)
            _, got = statistics(loss_fn, params, x, y)
        assert_moments(got["q"], x, g)
        assert_moments(got["o"], hidden.reshape(BATCH, 4, 6), h)


@float64
def test_two_products_in_one_method():
    model, (x, y) = strangers.FeedForward(5, 7), data(4, 5)
    params = exact(model.init(jax.random.key(0), x)["params"])
    gating, linear = params["gating_einsum"], params["linear"]

    def of_offsets(offsets):
        gate, up = jnp.split(offsets[0], 2, axis=-1)
        hidden = nn.gelu(x @ gating[0] + gate) * (x @ gating[1] + up)
        return cross_entropy(hidden @ linear + offsets[1], y), hidden

    offsets = [jnp.zeros((BATCH, 4, 14)), jnp.zeros((BATCH, 4, 5))]
    (g, h), hidden = jax.grad(of_offsets, has_aux=True)(offsets)
    loss_fn = lambda p, x, y: cross_entropy(model.apply({"params": p}, x), y)
    with register_layer(strangers.FeedForward, call=strangers.gemma_feed_forward):
        layers, got = statistics(loss_fn, params, x, y)
    assert layers.coverage == 1
    assert_moments(got["gating_einsum"], x, g)
    assert_moments(got["linear"], hidden, h)


@float64
def test_slices_of_a_kernel_by_hand():
    """The method as it is, with tags put in: two layers of a stack."""

    def call(module, x):
        gating, linear = (
            module.get_variable("params", "gating_einsum"),
            module.variables["params"]["linear"],
        )
        gate, up = (singd_optax.tag(x @ w, x, w) for w in (gating[0], gating[1]))
        hidden = nn.gelu(gate) * up
        return singd_optax.tag(hidden @ linear, hidden, "linear")

    model, (x, y) = strangers.FeedForward(5, 7), data(4, 5)
    params = exact(model.init(jax.random.key(0), x)["params"])
    loss_fn = lambda p, x, y: cross_entropy(model.apply({"params": p}, x), y)
    with register_layer(strangers.FeedForward, call=strangers.gemma_feed_forward):
        _, fused = statistics(loss_fn, params, x, y)
    with register_layer(strangers.FeedForward, call=call):
        layers, got = statistics(loss_fn, params, x, y)
    assert layers["gating_einsum"].stack_shape == (2,)
    G = fused["gating_einsum"].H_C.to_dense()
    for i, block in enumerate((G[:7, :7], G[7:, 7:])):
        np.testing.assert_allclose(got["gating_einsum"].H_C.to_dense()[i], block, atol=1e-12)


@float64
def test_call_may_run_the_method_itself():
    def call(module, inputs):
        y = module(inputs)
        return singd_optax.tag(y, inputs, "kernel", bias="bias", equation="...i,oi->...o")

    model, (x, y) = Net(), data(4, 5)
    params = exact(model.init(jax.random.key(0), x)["params"])
    loss_fn = lambda p, x, y: cross_entropy(model.apply({"params": p}, x), y)
    with gpt2():
        _, want = statistics(loss_fn, params, x, y)
    with register_layer(Conv1D, call=call):
        _, got = statistics(loss_fn, params, x, y)
    for path in want:
        a, b = want[path], got[f"{path}/kernel"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), a, b)


@float64
@pytest.mark.parametrize("how", ["known", "like", "own call"])
def test_kernel_changed_first(how):
    """Statistics are those of a convolution with the standardized kernel."""

    class OwnCall(nn.Module):
        filters: int
        stride: int = 2

        @nn.compact
        def __call__(self, x):
            w = self.param("kernel", strangers.NORMAL, (3, 3, x.shape[-1], self.filters))
            w = (w - w.mean((0, 1, 2))) / (w.std((0, 1, 2)) + 1e-5)
            bias = self.param("bias", strangers.NORMAL, (self.filters,))
            return bias + jax.lax.conv_general_dilated(
                x, w, (self.stride,) * 2, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        @property
        def kernel_size(self):
            return 3, 3

        @property
        def strides(self):
            return self.stride

    x = jax.random.normal(jax.random.key(1), (BATCH, 6, 6, 2))
    model = OwnCall(4) if how == "own call" else StdConv(4, (3, 3), strides=2)
    params = exact(model.init(jax.random.key(0), x)["params"])
    plain = nn.Conv(4, (3, 3), strides=2)
    kernel = params["kernel"]
    kernel = (kernel - kernel.mean((0, 1, 2))) / (kernel.std((0, 1, 2)) + 1e-5)
    loss_of = lambda model: lambda p, x: jnp.sum(jnp.sin(model.apply({"params": p}, x))) / BATCH
    _, want = statistics(loss_of(plain), {**params, "kernel": kernel}, x)
    ways = {
        "known": contextlib.nullcontext,
        "like": lambda: register_layer(StdConv, like=nn.Conv),
        "own call": lambda: register_layer(OwnCall, like=nn.Conv, changes_kernel=True),
    }
    with ways[how]():
        layers, got = statistics(loss_of(model), params, x)
    assert layers[""].is_mapped
    assert "conv (kernel changed first)" in str(layers)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), got[""], want[""])


@float64
def test_fused_cell():
    x, _ = data(4, 5)
    of = {"param_dtype": float}
    fused, plain = nn.RNN(nn.OptimizedLSTMCell(3, **of)), nn.RNN(nn.LSTMCell(3, **of))
    params = exact(fused.init(jax.random.key(0), x)["params"])
    loss_of = lambda model: lambda p, x: jnp.mean(jnp.sin(model.apply({"params": p}, x)))
    _, want = statistics(loss_of(plain), params, x)
    with register_layer(nn.OptimizedLSTMCell, call=nn.LSTMCell.__call__):
        layers, got = statistics(loss_of(fused), params, x)
    assert layers.coverage == 1
    assert len(layers) == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), dict(got), dict(want))


def test_the_dtype_that_the_module_multiplies():
    """A second copy of the inputs, in float32, would be kept for the backward pass."""
    model, (x, _) = Conv1D(CLASSES, dtype=jnp.bfloat16), data(5)
    params = exact(model.init(jax.random.key(0), x)["params"])
    loss_fn = lambda p, x: jnp.mean(model.apply({"params": p}, x).astype(jnp.float32) ** 2)
    with gpt2():
        layers = singd_optax.find_layers(loss_fn, params, x)
        state = singd_optax.scale_by_singd(layers).init(params)
        grad_fn = singd_optax.value_and_grad(loss_fn, layers)
        text = str(jax.make_jaxpr(lambda p, x: grad_fn(p, x, opt_state=state)[2])(params, x))
    assert f"bf16[{BATCH},1,5]" in text
    assert f"f32[{BATCH},1,5]" not in text


def test_coverage_of_gpt2():
    tokens, params, loss_fn = tokens_and_loss(strangers.GPT2())
    with incomplete():
        before = singd_optax.find_layers(loss_fn, params, tokens)
    assert before.coverage < 0.25
    with gpt2():
        layers = singd_optax.find_layers(loss_fn, params, tokens)
    assert layers.coverage > 0.95
    assert layers["wte"].tied
    assert all(len(other.shape) == 1 for other in layers.others)


@pytest.mark.parametrize("scanned", [False, True])
def test_coverage_of_gemma(scanned):
    tokens, params, loss_fn = tokens_and_loss(strangers.Gemma(scanned))
    with pytest.raises(ValueError, match="hold no Kronecker layer"):
        singd_optax.find_layers(loss_fn, params, tokens)
    with gemma():
        layers = singd_optax.find_layers(loss_fn, params, tokens)
    assert layers.coverage > 0.95
    assert layers["embedder/input_embedding"].tied
    if scanned:
        assert layers["layers/mlp/gating_einsum"].stack_shape == (2,)


@float64
def test_scan_and_remat_measure_the_same():
    tokens, params, loss_fn = tokens_and_loss(strangers.Gemma())
    model = strangers.Gemma(scanned=True)
    stack = {"layers": stacked([params["layer_0"], params["layer_1"]])}
    stack |= {name: params[name] for name in ("embedder", "final_norm")}
    scanned_loss = lambda p, t: cross_entropy(model.apply({"params": p}, t[:, :-1]), t[:, 1:])
    with gemma():
        _, want = statistics(loss_fn, params, tokens)
        _, got = statistics(scanned_loss, stack, tokens)
    for path, value in got.items():
        if path.startswith("layers/"):
            name = path.removeprefix("layers/")
            expected = stacked([want[f"layer_{i}/{name}"] for i in range(2)])
        else:
            expected = want[path]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), value, expected)


def llama_loss(model, tokens):
    return cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])


@pytest.mark.parametrize("scanned", [False, True])
def test_coverage_of_llama(scanned):
    tokens = jax.random.randint(jax.random.key(0), (4, 6), 0, VOCABULARY)
    model = strangers.Llama(nnx.Rngs(0), scanned)
    with incomplete():
        before = singd_optax.nnx.find_layers(llama_loss, model, tokens)
    assert before.coverage < 0.2
    with llama():
        layers = singd_optax.nnx.find_layers(llama_loss, model, tokens)
    assert layers.coverage > 0.95
    assert all(other.path.endswith("scale") for other in layers.others)
    if scanned:
        assert layers["layers/qkv"].stack_shape == (2,)


@float64
def test_llama_measures_what_is_multiplied():
    tokens = jax.random.randint(jax.random.key(0), (4, 6), 0, VOCABULARY)
    model = strangers.Llama(nnx.Rngs(0))
    nnx.update(model, exact(nnx.state(model)))
    block = model.layers[1]
    seen = {}

    def loss(offsets):
        x = model.layers[0](model.embedder(tokens[:, :-1]))
        seen["qkv"] = block.norms[0](x)
        q, k, v = block.qkv(seen["qkv"]) + offsets["qkv"].reshape(4, 5, 3, 2, 4).transpose(
            2, 0, 1, 3, 4
        )
        seen["o_proj"] = nnx.dot_product_attention(q, k, v)
        x = x + block.o_proj(seen["o_proj"]) + offsets["o_proj"]
        return cross_entropy(
            model.embedder.attend(x + block.mlp(block.norms[1](x))), tokens[:, 1:]
        ), {name: value.reshape(4, 5, -1) for name, value in seen.items()}

    offsets = {"qkv": jnp.zeros((4, 5, 24)), "o_proj": jnp.zeros((4, 5, WIDTH))}
    gradients, inputs = jax.grad(loss, has_aux=True)(offsets)
    with llama():
        layers = singd_optax.nnx.find_layers(llama_loss, model, tokens)
        tx = singd_optax.scale_by_singd(layers)
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        grad_fn = singd_optax.nnx.value_and_grad(llama_loss, layers)
        *_, curvature = nnx.jit(lambda m, o: grad_fn(m, tokens, optimizer=o))(model, optimizer)
    for name, gradient in gradients.items():
        # Norms reduce in float32.
        assert_moments(curvature[f"layers/1/{name}"], inputs[name], gradient, 1e-6)


def train(loss_fn, params, tokens, steps=15):
    layers = singd_optax.find_layers(loss_fn, params, tokens)
    tx = singd_optax.singd(0.01, layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jax.jit
    def step(params, state):
        value, grads, curvature = grad_fn(params, tokens, opt_state=state)
        updates, state = tx.update(grads, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state, value

    state, values = tx.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        values.append(float(value))
    assert step._cache_size() == 1
    return values


@pytest.mark.parametrize(
    ("model", "teach"), [(strangers.GPT2(), gpt2), (strangers.Gemma(True), gemma)]
)
def test_they_train(model, teach):
    tokens, params, loss_fn = tokens_and_loss(model)
    with teach():
        values = train(loss_fn, params, tokens)
    assert values[-1] < 0.8 * values[0]


def test_llama_trains():
    tokens = jax.random.randint(jax.random.key(0), (4, 6), 0, VOCABULARY)
    model = strangers.Llama(nnx.Rngs(0), scanned=True)
    with llama():
        layers = singd_optax.nnx.find_layers(llama_loss, model, tokens)
        optimizer = nnx.Optimizer(model, singd_optax.singd(0.01, layers), wrt=nnx.Param)
        grad_fn = singd_optax.nnx.value_and_grad(llama_loss, layers)

        @nnx.jit
        def step(model, optimizer, tokens):
            value, grads, curvature = grad_fn(model, tokens, optimizer=optimizer)
            optimizer.update(model, grads, curvature=curvature)
            return value

        values = [float(step(model, optimizer, tokens)) for _ in range(15)]
    assert values[-1] < 0.8 * values[0]


class OfLayers(nnx.Module):
    """Holds no parameters itself."""

    def __init__(self, rngs):
        self.inner = nnx.Linear(5, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.inner.kernel[...].T @ x[0] * jnp.ones((len(x), 1))


def test_nnx_call_of_a_module_of_modules():
    x, _ = data(5)
    model = OfLayers(nnx.Rngs(0))
    loss_fn = lambda model, x: jnp.sum(model(x) ** 2)
    with register_layer(OfLayers, call=lambda module, x: module.inner(x)):
        layers = singd_optax.nnx.find_layers(loss_fn, model, x)
    assert list(layers) == ["inner"]


def test_registered_after_layers_were_found():
    """An inner jit is traced anew; what was found is what is measured, and what is gone is told."""
    model, (x, y) = Net(), data(5)
    params = exact(model.init(jax.random.key(0), x)["params"])
    apply = jax.jit(lambda p, x: model.apply({"params": p}, x))
    loss_fn = lambda p, x, y: cross_entropy(apply(p, x), y)
    with pytest.raises(ValueError, match="hold no Kronecker layer"):
        singd_optax.find_layers(loss_fn, params, x, y)
    registration = register_layer(Conv1D, equation="...i,oi->...o")
    layers = singd_optax.find_layers(loss_fn, params, x, y)
    assert layers.coverage == 1
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    *_, curvature = grad_fn(params, x, y, opt_state=state)
    assert float(curvature["first"].mean_U) > 0
    registration.remove()
    with pytest.warns(UserWarning, match="does not depend on the layers"):
        *_, curvature = grad_fn(params, x, y, opt_state=state)
    assert float(curvature["first"].mean_U) == 0


def test_what_is_said_later_replaces():
    model, (x, _) = Net(), data(5)
    params = exact(model.init(jax.random.key(0), x)["params"])
    find = lambda: singd_optax.find_layers(
        lambda p, x: model.apply({"params": p}, x).sum(), params, x
    )
    with register_layer(Conv1D, equation="...i,oi->...o", bias=None):
        with gpt2():
            assert find().coverage == 1
        assert find().coverage < 1
    with pytest.raises(ValueError, match="no Kronecker layer"):
        find()


def test_threads():
    kinds = [type(f"Kind{i}", (Conv1D,), {}) for i in range(40)]

    def work(part):
        for kind in part:
            register_layer(kind, equation="...i,oi->...o").remove()

    threads = [threading.Thread(target=work, args=(kinds[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model, (x, _) = kinds[0](3), data(5)
    params = model.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="no Kronecker layer"):
        singd_optax.find_layers(lambda p, x: model.apply(p, x).sum(), params, x)


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (
            TypeError,
            r"sub-class of flax.linen.Module.*got <class 'int'>",
            (int, {"like": nn.Dense}),
        ),
        (TypeError, "an instance of Conv1D", (Conv1D(3), {"like": nn.Dense})),
        (ValueError, "none of them", (Conv1D, {})),
        (ValueError, "equation and like", (Conv1D, {"equation": "i,io->o", "like": nn.Dense})),
        (
            ValueError,
            r"no method 'apply_to'.*'__call__'",
            (Conv1D, {"like": nn.Dense, "method": "apply_to"}),
        ),
        (ValueError, "a public one", (Conv1D, {"like": nn.Dense, "method": "_try_setup"})),
        (
            ValueError,
            "is not 'inputs,kernel->outputs'.*For example",
            (Conv1D, {"equation": "ni->no"}),
        ),
        (ValueError, "no matrix", (Conv1D, {"equation": "...i,i->...i"})),
        (TypeError, "text such as", (Conv1D, {"equation": 3})),
        (TypeError, "a function of the module", (Conv1D, {"call": 3})),
        (ValueError, "one of Flax's classes.*linen.Dense", (Conv1D, {"like": nn.LayerNorm})),
        (TypeError, "the name of a parameter", (Conv1D, {"like": nn.Dense, "kernel": None})),
        (TypeError, "place or the name", (Conv1D, {"like": nn.Dense, "inputs": -1})),
        (ValueError, r"no argument inputs=1.*'inputs'", (Conv1D, {"like": nn.Dense, "inputs": 1})),
        (TypeError, "changes_kernel", (Conv1D, {"like": nn.Dense, "changes_kernel": "yes"})),
    ],
)
def test_errors(error, match, arguments):
    kind, options = arguments
    with pytest.raises(error, match=match):
        register_layer(kind, **options)


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (
            ValueError,
            r"no parameter kernel='w'.*'bias', 'kernel'",
            {"equation": "...i,oi->...o", "kernel": "w"},
        ),
        (
            ValueError,
            r"no parameter bias='b'.*\['bias'\]",
            {"equation": "...i,oi->...o", "bias": "b"},
        ),
        (ValueError, r"are not the equation '\.\.\.i,io->\.\.\.o'", {"equation": "...i,io->...o"}),
        (ValueError, "are not like=", {"like": nn.Dense}),
        (ValueError, "has no attribute kernel_size", {"like": nn.Conv}),
        (TypeError, "got a NoneType", {"equation": lambda module, x: None}),
        (ValueError, "no matrix", {"equation": lambda module, x: "ni,i->ni"}),
    ],
)
def test_errors_of_a_call(error, match, options):
    model, (x, _) = Conv1D(CLASSES), data(5)
    params = model.init(jax.random.key(0), x)
    with register_layer(Conv1D, **options), pytest.raises(error, match=match):
        singd_optax.find_layers(lambda p, x: model.apply(p, x).sum(), params, x)
