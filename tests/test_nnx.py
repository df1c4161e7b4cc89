"""NNX models: the same layers, statistics and steps as in Linen, and nothing left behind."""

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from oracle import cross_entropy, randomized

import singd_optax
from singd_optax.capture._nnx_program import as_pure

BATCH = 4


def close(got, want, tolerance=1e-9):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def trees_close(got, want, tolerance=1e-9):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: close(a, b, tolerance), got, want)


def values(model):
    """All arrays but random keys, which have no tolerance."""
    return as_pure(nnx.state(model, nnx.Not(nnx.RngKey)))


def fingerprint(model):
    """All that is there beside values."""
    graphdef, state = nnx.split(model)
    types = [(path, type(node)) for path, node in nnx.iter_graph(model)]
    return graphdef, jax.tree.structure(state), types, jax.tree.map(jnp.shape, as_pure(state))


def measured(loss_fn, model, *args, **options):
    """Layers, factors, and statistics under random factors; checks value and gradients."""
    layers = singd_optax.nnx.find_layers(loss_fn, model, *args, **options)
    tx = singd_optax.scale_by_singd(layers)
    state = randomized(tx.init(nnx.state(model, nnx.Param)))
    grad_fn = nnx.jit(singd_optax.nnx.value_and_grad(loss_fn, layers))
    want_model = nnx.clone(model)
    before = fingerprint(model)
    value, grads, curvature = grad_fn(model, *args, opt_state=state)
    assert fingerprint(model) == before
    want_value, want_grads = nnx.value_and_grad(loss_fn)(want_model, *args)
    close(value, want_value)
    assert type(grads) is type(want_grads)
    trees_close(grads, want_grads)
    trees_close(values(model), values(want_model))
    return layers, state, curvature


def loss_of(y):
    weights = jnp.cos(jnp.arange(y.size)).reshape(y.shape)
    return jnp.sum(jnp.sin(y) * weights) / BATCH


R = {"rngs": nnx.Rngs(0), "param_dtype": jnp.float64}
F64 = {"param_dtype": jnp.float64}

#: name -> (the Linen module, the NNX module, input shape)
CASES = {
    "linear": lambda: (nn.Dense(3, **F64), nnx.Linear(4, 3, **R), (BATCH, 5, 4)),
    "general_out": lambda: (
        nn.DenseGeneral((2, 3), **F64),
        nnx.LinearGeneral(4, (2, 3), **R),
        (BATCH, 5, 4),
    ),
    "general_in": lambda: (
        nn.DenseGeneral(3, axis=(-2, -1), **F64),
        nnx.LinearGeneral((2, 3), 3, axis=(-2, -1), **R),
        (BATCH, 5, 2, 3),
    ),
    "general_batch": lambda: (
        nn.DenseGeneral(2, batch_dims=(0,), **F64),
        nnx.LinearGeneral(4, 2, batch_axis={0: 3}, **R),
        (3, BATCH, 4),
    ),
    "einsum": lambda: (
        nn.Einsum((4, 2, 3), "...i,ihd->...hd", **F64),
        nnx.Einsum("...i,ihd->...hd", (4, 2, 3), (2, 3), **R),
        (BATCH, 5, 4),
    ),
    "einsum_batch": lambda: (
        nn.Einsum((2, 4, 3), "nthi,hio->ntho", **F64),
        nnx.Einsum("nthi, hio -> ntho", (2, 4, 3), (2, 3), **R),
        (BATCH, 5, 2, 4),
    ),
    "conv": lambda: (
        nn.Conv(3, (3, 2), strides=(2, 1), **F64),
        nnx.Conv(2, 3, (3, 2), strides=(2, 1), **R),
        (BATCH, 5, 4, 2),
    ),
    "conv_groups": lambda: (
        nn.Conv(4, (3,), feature_group_count=2, use_bias=False, **F64),
        nnx.Conv(4, 4, (3,), feature_group_count=2, use_bias=False, **R),
        (BATCH, 5, 4),
    ),
    "transpose": lambda: (
        nn.ConvTranspose(3, (3, 2), strides=(2, 2), **F64),
        nnx.ConvTranspose(2, 3, (3, 2), strides=(2, 2), **R),
        (BATCH, 3, 4, 2),
    ),
    "transpose_flipped": lambda: (
        nn.ConvTranspose(3, (3,), strides=(2,), padding="VALID", transpose_kernel=True, **F64),
        nnx.ConvTranspose(2, 3, (3,), strides=(2,), padding="VALID", transpose_kernel=True, **R),
        (BATCH, 4, 2),
    ),
    "embed": lambda: (nn.Embed(7, 3, **F64), nnx.Embed(7, 3, **R), (BATCH, 5)),
}


class Holder(nnx.Module):
    """A module at a path."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return self.layer(x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_statistics_equal_linens(name):
    linen, layer, shape = CASES[name]()
    key = jax.random.key(0)
    x = jax.random.randint(key, shape, 0, 7) if name == "embed" else jax.random.normal(key, shape)
    model = Holder(layer)
    params = {"layer": nnx.to_pure_dict(nnx.state(layer, nnx.Param))}
    assert jax.tree.map(jnp.shape, params["layer"]) == jax.tree.map(
        jnp.shape, linen.init(key, x)["params"]
    )

    def linen_loss(params, x):
        return loss_of(linen.apply({"params": params["layer"]}, x))

    layers, state, curvature = measured(lambda m, x: loss_of(m(x)), model, x, strict=True)
    want_layers = singd_optax.find_layers(linen_loss, params, x)
    assert layers == want_layers
    want = jax.jit(singd_optax.value_and_grad(linen_loss, want_layers))(params, x, opt_state=state)
    trees_close(curvature, want[2])


@pytest.mark.usefixtures("x64")
def test_statistics_equal_explicit_inputs_and_gradients():
    layer = nnx.Linear(4, 3, **R)
    x = jax.random.normal(jax.random.key(0), (BATCH, 5, 4))
    _, state, curvature = measured(lambda m, x: loss_of(m(x)), layer, x, structures="dense")
    a = np.concatenate([x, np.ones((BATCH, 5, 1))], -1).reshape(-1, 5)
    g = np.asarray(jax.grad(loss_of)(layer(x))).reshape(-1, 3)
    K, C = (np.asarray(factor.to_dense()) for factor in singd_optax.factors(state)[""])
    close(curvature[""].H_K.to_dense(), K.T @ (a.T @ a / len(a)) @ K)
    close(curvature[""].H_C.to_dense(), C.T @ (g.T @ g * BATCH) @ C)


class MLP(nnx.Module):
    """Linear, BatchNorm, Dropout, in a list; a head."""

    def __init__(self, rngs, width=6):
        self.blocks = nnx.List(
            [
                nnx.Dict(
                    linear=nnx.Linear(5 if i == 0 else width, width, rngs=rngs),
                    norm=nnx.BatchNorm(width, rngs=rngs),
                    dropout=nnx.Dropout(0.3, rngs=rngs),
                )
                for i in range(2)
            ]
        )
        self.head = nnx.Linear(width, 3, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = block["dropout"](nnx.relu(block["norm"](block["linear"](x))))
        return self.head(x)


def supervised(model, x, y):
    return cross_entropy(model(x), y)


def data(seed=0, width=5):
    keys = jax.random.split(jax.random.key(seed))
    return jax.random.normal(keys[0], (8, width)), jax.random.randint(keys[1], (8,), 0, 3)


def test_batch_norm_and_dropout_state_propagates():
    model = MLP(nnx.Rngs(0))
    x, y = data()
    want = nnx.clone(model)
    before = fingerprint(model)
    layers = singd_optax.nnx.find_layers(supervised, model, x, y)
    assert list(layers) == ["blocks/0/linear", "blocks/1/linear", "head"]
    assert fingerprint(model) == before
    trees_close(values(model), values(want), 0)  # nothing was run
    optimizer = nnx.Optimizer(model, singd_optax.singd(1e-2, layers), wrt=nnx.Param)
    grad_fn = singd_optax.nnx.value_and_grad(supervised, layers)
    value, grads, curvature = nnx.jit(grad_fn)(model, x, y, optimizer=optimizer)
    want_value, want_grads = nnx.jit(nnx.value_and_grad(supervised))(want, x, y)
    close(value, want_value, 1e-6)
    trees_close(grads, want_grads, 1e-6)
    trees_close(values(model), values(want), 1e-6)
    assert int(nnx.state(model, nnx.RngCount)["blocks"][0]["dropout"]["rngs"]["count"][...]) > 0
    assert float(curvature["head"].mean_U) > 0
    # Gradients and updates of all parameters, in the order that users have it.
    optimizer.update(model, grads, curvature=curvature)
    reasons = {other.path: other.reason for other in layers.others}
    assert "BatchNorm" in reasons["blocks/0/norm/scale"]


def test_three_steps_under_jit_compile_once_and_leave_nothing():
    model = MLP(nnx.Rngs(0))
    x, y = data()
    before = fingerprint(model)
    layers = singd_optax.nnx.find_layers(supervised, model, x, y)
    optimizer = nnx.Optimizer(
        model, singd_optax.singd(1e-2, layers, refresh_every=2), wrt=nnx.Param
    )
    grad_fn = singd_optax.nnx.value_and_grad(supervised, layers)
    traces = []

    def step(model, optimizer, x, y):
        traces.append(None)
        value, grads, curvature = grad_fn(model, x, y, optimizer=optimizer)
        optimizer.update(model, grads, curvature=curvature)
        return value

    jitted = nnx.jit(step, donate_argnames=("model", "optimizer"))
    values = [jitted(model, optimizer, x, y) for _ in range(3)]
    assert len(traces) == 1
    assert np.isfinite(values).all()
    assert fingerprint(model) == before
    assert all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves(as_pure(nnx.state(model, nnx.Param)))
    )
    assert set(singd_optax.factors(optimizer.opt_state)) == set(layers)

    # A second optimizer, and a checkpoint.
    other = nnx.Optimizer(model, optax.adamw(1e-2), wrt=nnx.Param)
    _, grads = nnx.value_and_grad(supervised)(model, x, y)
    other.update(model, grads)
    arrays = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    restored = flax.serialization.from_bytes(arrays, flax.serialization.to_bytes(arrays))
    fresh = MLP(nnx.Rngs(1))
    state = nnx.state(fresh, nnx.Param)
    nnx.replace_by_pure_dict(state, restored)
    nnx.update(fresh, state)
    trees_close(as_pure(nnx.state(fresh, nnx.Param)), as_pure(nnx.state(model, nnx.Param)), 0)


class Plain(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(5, 6, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(jnp.tanh(self.hidden(x)))


class LinenPlain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="head")(jnp.tanh(nn.Dense(6, name="hidden")(x)))


def test_trajectory_equals_linens():
    model, linen = Plain(nnx.Rngs(0)), LinenPlain()
    x, y = data()
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    linen_loss = lambda params, x, y: cross_entropy(linen.apply({"params": params}, x), y)
    layers = singd_optax.nnx.find_layers(supervised, model, x, y)
    assert {k: layers[k] for k in sorted(layers)} == dict(
        singd_optax.find_layers(linen_loss, params, x, y)
    )
    tx = singd_optax.singd(0.05, layers)
    optimizer, opt_state = nnx.Optimizer(model, tx, wrt=nnx.Param), tx.init(params)
    grad_fn = singd_optax.nnx.value_and_grad(supervised, layers)
    linen_grad_fn = singd_optax.value_and_grad(linen_loss, layers)

    @nnx.jit
    def step(model, optimizer):
        value, grads, curvature = grad_fn(model, x, y, optimizer=optimizer)
        optimizer.update(model, grads, curvature=curvature)
        return value

    @jax.jit
    def linen_step(params, opt_state):
        value, grads, curvature = linen_grad_fn(params, x, y, opt_state=opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
        return optax.apply_updates(params, updates), opt_state, value

    for _ in range(4):
        value = step(model, optimizer)
        params, opt_state, want = linen_step(params, opt_state)
        close(value, want, 1e-5)
    trees_close(nnx.to_pure_dict(nnx.state(model, nnx.Param)), params, 1e-4)


def test_attention():
    attention = nnx.MultiHeadAttention(
        num_heads=2,
        in_features=4,
        decode=False,
        dropout_rate=0.2,
        deterministic=False,
        rngs=nnx.Rngs(0),
    )
    x = jax.random.normal(jax.random.key(0), (3, 5, 4))
    layers = singd_optax.nnx.find_layers(lambda m, x: loss_of(m(x)), attention, x, strict=True)
    assert list(layers) == ["key", "out", "query", "value"]
    assert layers["out"].dims == (5, 4)
    grad_fn = singd_optax.nnx.value_and_grad(lambda m, x: loss_of(m(x)), layers)
    tx = singd_optax.scale_by_singd(layers)
    state = tx.init(nnx.state(attention, nnx.Param))
    before = fingerprint(attention)
    *_, curvature = nnx.jit(grad_fn)(attention, x, opt_state=state)
    assert fingerprint(attention) == before
    rows = np.concatenate([x, np.ones((3, 5, 1))], -1).reshape(-1, 5)
    for path in ("query", "key", "value"):
        close(curvature[path].H_K.to_dense(), rows.T @ rows / len(rows), 1e-5)
    assert all(float(statistics.mean_G) > 0 for statistics in curvature.values())


WIDTH = DEPTH = 4  # equal, so that shapes tell nothing


def stacked_block(axis, **options):
    @nnx.split_rngs(splits=DEPTH)
    @nnx.vmap(in_axes=0, out_axes=axis)
    def create(rngs):
        return Holder(nnx.Linear(WIDTH, WIDTH, rngs=rngs, **F64, **options))

    return create(nnx.Rngs(0))


class Scanned(nnx.Module):
    """Stacked linear layers under nnx.scan."""

    def __init__(self, axis, style="axes"):
        self.axis, self.style = axis, style
        self.blocks = stacked_block(axis)

    def __call__(self, x):
        axes = (
            nnx.StateAxes({nnx.Param: self.axis, ...: None}) if self.style == "axes" else self.axis
        )

        @nnx.scan(in_axes=(axes, nnx.Carry), out_axes=nnx.Carry)
        def run(block, x):
            if self.style == "remat":
                return nnx.remat(lambda block, x: jnp.tanh(block(x)))(block, x)
            return jnp.tanh(block(x))

        return run(self.blocks, x)


class Unrolled(nnx.Module):
    def __init__(self, kernels, biases):
        self.blocks = nnx.List([nnx.Linear(WIDTH, WIDTH, **R) for _ in kernels])
        for block, kernel, bias in zip(self.blocks, kernels, biases, strict=True):
            block.kernel[...], block.bias[...] = kernel, bias

    def __call__(self, x):
        for block in self.blocks:
            x = jnp.tanh(block(x))
        return x


def slices(model, axis):
    layer = model.blocks.layer
    return (jnp.moveaxis(v[...], axis, 0) for v in (layer.kernel, layer.bias))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("axis", "style"), [(0, "axes"), (1, "axes"), (-1, "int"), (0, "remat")])
def test_scan(axis, style):
    model = Scanned(axis, style)
    x = jax.random.normal(jax.random.key(0), (BATCH, WIDTH))
    loss = lambda m, x: loss_of(m(x))
    layers, state, curvature = measured(loss, model, x, structures="dense")
    assert list(layers) == ["blocks/layer"]
    assert layers["blocks/layer"].scan_shape == (DEPTH,)
    unrolled = Unrolled(*slices(model, axis))
    path = "blocks/layer"
    pick = lambda tree, i: jax.tree.map(lambda leaf: np.asarray(leaf)[i], tree)
    # Layers apart, each with the factors of its slice.
    apart = singd_optax.nnx.find_layers(loss, unrolled, x, structures="dense")
    slices_of = {f"blocks/{i}": pick(state.rule_states[path], i) for i in range(DEPTH)}
    assert list(apart) == list(slices_of)
    small = singd_optax.scale_by_singd(apart).init(nnx.state(unrolled, nnx.Param))
    small = small._replace(rule_states=slices_of)
    _, _, want = singd_optax.nnx.value_and_grad(loss, apart)(unrolled, x, opt_state=small)
    own = curvature[path]._replace(measured_at=None)
    for i in range(DEPTH):
        trees_close(pick(own, i), want[f"blocks/{i}"]._replace(measured_at=None))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axis", [0, 1])
def test_vmap(axis):
    model = nnx.Dict(blocks=stacked_block(axis))

    def forward(model, x):
        run = nnx.vmap(lambda block, x: jnp.tanh(block(x)), in_axes=(axis, None))
        return run(model.blocks, x)

    x = jax.random.normal(jax.random.key(0), (BATCH, WIDTH))
    layers, state, curvature = measured(lambda m, x: loss_of(forward(m, x)), model, x)
    assert layers["blocks/layer"].scan_shape == (DEPTH,)
    y = forward(model, x)
    g = jax.grad(loss_of)(y) * (1 - y**2)
    a = np.concatenate([x, np.ones((BATCH, 1))], -1)
    for i in range(DEPTH):
        K, C = (np.asarray(f.to_dense()[i]) for f in singd_optax.factors(state)["blocks/layer"])
        close(curvature["blocks/layer"].H_K.to_dense()[i], K.T @ (a.T @ a / BATCH) @ K)
        close(curvature["blocks/layer"].H_C.to_dense()[i], C.T @ (g[i].T @ g[i] * BATCH) @ C)


@pytest.mark.usefixtures("x64")
def test_layers_stacked_along_axes_counted_from_both_ends():
    model = nnx.Dict(
        first=stacked_block(0),
        second=stacked_block(2, use_bias=False),
        head=nnx.Linear(WIDTH, 3, rngs=nnx.Rngs(0)),
    )

    def loss(model, x):
        for block, axis in ((model.first, 0), (model.second, -1)):
            run = nnx.scan(
                lambda b, x: jnp.tanh(b(x)), in_axes=(axis, nnx.Carry), out_axes=nnx.Carry
            )
            x = run(block, x)
        return loss_of(model.head(x))

    x = jnp.linspace(-1.0, 1.0, BATCH * WIDTH).reshape(BATCH, WIDTH)
    layers = singd_optax.nnx.find_layers(loss, model, x, structures="dense")
    assert list(layers) == ["first/layer", "head", "second/layer"]
    assert [spec.stack_shape for spec in layers.values()] == [(DEPTH,), (), (DEPTH,)]
    state = singd_optax.scale_by_singd(layers).init(nnx.state(model, nnx.Param))
    _, grads, curvature = singd_optax.nnx.value_and_grad(loss, layers)(model, x, opt_state=state)
    trees_close(grads, nnx.grad(loss)(model, x), 1e-12)
    rows = np.concatenate([x, np.ones((BATCH, 1))], axis=1)
    close(curvature["first/layer"].H_K.to_dense()[0], rows.T @ rows / BATCH, 1e-12)


class Language(nnx.Module):
    """A tied embedding, a shared layer, and one that shares its variable."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(7, 4, rngs=rngs)
        self.mix = nnx.Linear(4, 4, rngs=rngs)
        self.again = self.mix
        self.custom = Custom(4, 4, rngs=rngs)

    def __call__(self, tokens):
        x = self.custom(self.again(jnp.tanh(self.mix(self.embed(tokens)))))
        return self.embed.attend(x)


class Custom(nnx.Linear):
    def __call__(self, x):
        return 2 * super().__call__(x)


def test_tied_shared_and_custom_layers():
    model = Language(nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(0), (3, 5), 0, 7)
    loss = lambda m, t: cross_entropy(m(t), t)
    layers = singd_optax.nnx.find_layers(loss, model, tokens)
    assert list(layers) == ["again", "embed"]
    assert layers["embed"].tied
    reasons = {other.path: other.reason for other in layers.others}
    assert "Custom: not a kind of layer" in reasons["custom/kernel"]
    optimizer = nnx.Optimizer(model, singd_optax.singd(1e-2, layers), wrt=nnx.Param)
    grad_fn = singd_optax.nnx.value_and_grad(loss, layers)
    before = fingerprint(model)
    _, grads, curvature = nnx.jit(grad_fn)(model, tokens, optimizer=optimizer)
    optimizer.update(model, grads, curvature=curvature)
    assert fingerprint(model) == before
    assert model.again is model.mix
    assert float(curvature["embed"].transposed.mean_G) > 0
    assert float(curvature["again"].mean_U) > 0


def functional(model, x):
    graphdef, state = nnx.split(model)
    return nnx.merge(graphdef, state)(x)


FORMS = {
    "jit": lambda model, x: nnx.jit(lambda model, x: model(x))(model, x),
    "remat": lambda model, x: nnx.remat(lambda model, x: model(x))(model, x),
    "cond": lambda model, x: nnx.cond(
        jnp.sum(x) == jnp.inf, lambda model, x: -model(x), lambda model, x: model(x), model, x
    ),
    "functional": functional,
    "clone": lambda model, x: nnx.clone(model)(x),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_calls(form):
    model = Plain(nnx.Rngs(0))
    x, _ = data()
    results = []
    for forward in (FORMS[form], lambda model, x: model(x)):
        loss = lambda model, x, forward=forward: loss_of(forward(model, x))
        layers = singd_optax.nnx.find_layers(loss, model, x)
        state = singd_optax.scale_by_singd(layers).init(nnx.state(model, nnx.Param))
        results.append(singd_optax.nnx.value_and_grad(loss, layers)(model, x, opt_state=state))
    trees_close(*results, 1e-6)


def test_a_shared_variable_is_one_layer_and_recurrent_cells_are_layers():
    model = nnx.Dict(a=nnx.Linear(4, 4, rngs=nnx.Rngs(0)), b=nnx.Linear(4, 4, rngs=nnx.Rngs(1)))
    model.b.kernel, model.b.bias = model.a.kernel, model.a.bias
    model.cell = nnx.RNN(nnx.SimpleCell(4, 3, rngs=nnx.Rngs(2)))
    x = jnp.ones((2, 5, 4))

    def loss(model, x):
        return loss_of(model.cell(model.b(jnp.tanh(model.a(x)))))

    layers = singd_optax.nnx.find_layers(loss, model, x, strict=True)
    assert list(layers) == ["a", "cell/cell/dense_h", "cell/cell/dense_i"]
    state = singd_optax.scale_by_singd(layers).init(nnx.state(model, nnx.Param))
    _, _, curvature = singd_optax.nnx.value_and_grad(loss, layers)(model, x, opt_state=state)
    a = np.concatenate([x, jnp.tanh(model.a(x))], 0).reshape(-1, 4)
    want = (a**2).sum() / 10 + 2
    close(float(curvature["a"].mean_U) * 5, want, 1e-5)  # each use by its own count


def test_variables_that_nothing_can_ride_on():
    model = nnx.Dict(
        odd=nnx.Linear(5, 5, rngs=nnx.Rngs(0)),
        many=nnx.Param({"a": jnp.ones((5, 5)), "b": jnp.ones(5)}),
        head=nnx.Linear(5, 3, rngs=nnx.Rngs(0)),
    )

    class Doubled(nnx.Param):
        def get_value(self, **options):
            return 2 * super().get_value(**options)

    model.odd.kernel = Doubled(model.odd.kernel[...])

    def loss(model, x):
        many = model.many.get_value()
        return loss_of(model.head(model.odd(x) @ many["a"] + many["b"]))

    x, _ = data()
    with pytest.warns(UserWarning, match=r"cannot be measured|Only 23%"):
        layers = singd_optax.nnx.find_layers(loss, model, x)
    assert list(layers) == ["head"]
    reasons = {other.path: other.reason for other in layers.others}
    assert "hooks" in reasons["odd/kernel"]
    assert "several arrays" in reasons["many/a"]
    state = singd_optax.scale_by_singd(layers).init(nnx.state(model, nnx.Param))
    _, grads, _ = singd_optax.nnx.value_and_grad(loss, layers)(model, x, opt_state=state)
    trees_close(grads, nnx.grad(loss)(model, x), 1e-6)


def test_has_aux_keyword_arguments_and_other_modules():
    model, rngs = Plain(nnx.Rngs(0)), nnx.Rngs(3)
    x, y = data()

    def loss(model, x, rngs, y=None):
        x = x * jax.random.bernoulli(rngs.dropout(), 0.9, x.shape)
        return cross_entropy(model(x), y), nnx.state(model, nnx.Param)

    layers = singd_optax.nnx.find_layers(loss, model, x, rngs, y=y)
    tx = singd_optax.scale_by_singd(layers)
    state = tx.init(nnx.state(model, nnx.Param))
    assert int(rngs.default.count[...]) == 0
    grad_fn = singd_optax.nnx.value_and_grad(loss, layers, has_aux=True)
    (value, aux), grads, _ = grad_fn(model, x, rngs, y=y, opt_state=state)
    assert int(rngs.default.count[...]) == 1
    trees_close(as_pure(aux), as_pure(nnx.state(model, nnx.Param)), 0)
    assert type(aux["hidden"]["kernel"]) is nnx.Param
    want = nnx.value_and_grad(loss, has_aux=True)(model, x, nnx.Rngs(3), y)
    close(value, want[0][0], 1e-6)
    trees_close(grads, want[1], 1e-6)


@pytest.mark.parametrize("plain", [False, True])
def test_penalties_on_all_leaves(plain):
    model = Plain(nnx.Rngs(0))
    x, y = data()
    norm = lambda state: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(state))
    penalized = singd_optax.nnx.plain_params if plain else (lambda state: state)
    loss = lambda m, x, y: supervised(m, x, y) + norm(penalized(nnx.state(m, nnx.Param)))
    layers = singd_optax.nnx.find_layers(loss, model, x, y)
    state = singd_optax.scale_by_singd(layers).init(nnx.state(model, nnx.Param))
    value, grads, _ = singd_optax.nnx.value_and_grad(loss, layers)(model, x, y, opt_state=state)
    want = nnx.value_and_grad(loss)(model, x, y)
    close(value, want[0], 1e-6)
    trees_close(grads, want[1], 1e-6)


def test_tag():
    class Tagged(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones((5, 3)))

        def __call__(self, x):
            return singd_optax.tag(x @ self.w[...], x, self.w[...])

    x, y = data()
    model = Tagged()
    layers = singd_optax.nnx.find_layers(supervised, model, x, y, structures="dense")
    assert list(layers) == ["w"]
    state = singd_optax.scale_by_singd(layers).init(nnx.state(model, nnx.Param))
    *_, curvature = singd_optax.nnx.value_and_grad(supervised, layers)(model, x, y, opt_state=state)
    close(curvature["w"].H_K.to_dense(), x.T @ x / 8, 1e-5)


def test_abstract_models_can_be_searched():
    model = nnx.eval_shape(lambda: Plain(nnx.Rngs(0)))
    x, y = jax.eval_shape(data)
    assert list(singd_optax.nnx.find_layers(supervised, model, x, y)) == ["head", "hidden"]


def test_errors():
    model = Plain(nnx.Rngs(0))
    x, y = data()
    with pytest.raises(TypeError, match=r"nnx\.Module, got a dict"):
        singd_optax.nnx.find_layers(supervised, {"kernel": x}, x, y)
    layers = singd_optax.nnx.find_layers(supervised, model, x, y)
    grad_fn = singd_optax.nnx.value_and_grad(supervised, layers)
    with pytest.raises(ValueError, match="optimizer=optimizer"):
        grad_fn(model, x, y)
    with pytest.raises(ValueError, match="Kronecker factors"):
        grad_fn(model, x, y, optimizer=nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param))
    with pytest.raises(TypeError, match=r"nnx\.Module, got a dict"):
        grad_fn({}, x, y, opt_state=())
    state = singd_optax.scale_by_singd(layers).init(nnx.state(model, nnx.Param))
    with pytest.raises(ValueError, match="do not match `layers`"):
        grad_fn(MLP(nnx.Rngs(0)), x, y, opt_state=state)
    with pytest.raises(TypeError, match="find_layers"):
        singd_optax.nnx.value_and_grad(supervised, None)
    before = fingerprint(model)
    with pytest.raises(ZeroDivisionError):  # the user's own error, and no trace of riders
        singd_optax.nnx.find_layers(lambda m, x: m(x) / (1 // 0), model, x)
    assert fingerprint(model) == before
