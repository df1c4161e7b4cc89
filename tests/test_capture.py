"""Capture of Dense layers, however Flax holds them, against explicit inputs and gradients."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import check, cross_entropy, inputs_and_gradients, moments

import singd_optax

pytestmark = pytest.mark.usefixtures("x64")

WIDTH, CLASSES, DEPTH = 4, 3, 4


def dense(features, name=None, **options):
    return nn.Dense(features, param_dtype=jnp.float64, name=name, **options)


class Inner(nn.Module):
    """One hidden layer, in the form that scan needs."""

    @nn.compact
    def __call__(self, x, _):
        return jnp.tanh(dense(WIDTH, name="layer")(x)), None


class Stacked(nn.Module):
    """DEPTH hidden layers under nn.scan, params stacked on ``axis``, and a head."""

    axis: int = 0
    remat: bool = False
    partitioned: bool = False

    @nn.compact
    def __call__(self, x):
        body = PartitionedInner if self.partitioned else Inner
        body = nn.remat(body, prevent_cse=False) if self.remat else body
        stack = nn.scan(
            body,
            variable_axes={"params": self.axis},
            split_rngs={"params": True},
            length=DEPTH,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = stack(name="stack")(x, None)
        return dense(CLASSES, name="head")(x)


class PartitionedInner(nn.Module):
    """One hidden layer with boxed parameters."""

    @nn.compact
    def __call__(self, x, _):
        layer = dense(
            WIDTH,
            name="layer",
            kernel_init=nn.with_partitioning(nn.initializers.lecun_normal(), ("in", "out")),
            bias_init=nn.with_logical_partitioning(nn.initializers.normal(), ("out",)),
        )
        return jnp.tanh(layer(x)), None


class Plain(nn.Module):
    """Dense, tanh, Dense with maybe a transform of the hidden layer."""

    lift: object = None

    @nn.compact
    def __call__(self, x):
        hidden = nn.Dense if self.lift is None else self.lift(nn.Dense)
        x = jnp.tanh(hidden(WIDTH, param_dtype=jnp.float64, name="hidden")(x))
        return dense(CLASSES, name="head")(x)


def data(*leading, width=WIDTH, seed=0):
    keys = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(keys[0], (*leading, width), jnp.float64)
    return x, jax.random.randint(keys[1], leading, 0, CLASSES)


def supervised(model):
    return lambda params, x, y: cross_entropy(model.apply({"params": params}, x), y)


def init(model, x, seed=1):
    @jax.jit
    def initial(x):
        params = model.init(jax.random.key(seed), x)["params"]
        keys = iter(jax.random.split(jax.random.key(2), 100))
        noisy = lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape, p.dtype)
        return jax.tree.map(noisy, params)

    return initial(x)


def pair(layer):
    layer = nn.meta.unbox(layer)
    return layer["kernel"], layer.get("bias")


PLAIN = [("hidden", ()), ("head", ())]


def weights_of(params):
    return [pair(params["hidden"]), pair(params["head"])]


@pytest.mark.parametrize(
    ("leading", "loss_average"),
    [
        *(((2, 3, 5), average) for average in ("batch", "batch+sequence", None)),
        ((), "batch"),
        ((6,), "batch+sequence"),
        ((6, 5), None),
    ],
    ids=str,
)
@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
def test_leading_axes_sharing_and_averages(leading, kfac_approx, loss_average):
    x, y = data(*leading)
    model = Plain()
    params = init(model, x)
    check(
        supervised(model),
        params,
        (x, y),
        weights_of(params),
        (x, y),
        PLAIN,
        kfac_approx=kfac_approx,
        loss_average=loss_average,
    )


@pytest.mark.parametrize("structures", ["dense", "diagonal", ("dense", "diagonal")], ids=str)
@pytest.mark.parametrize("rows", [3, 40])
def test_structures(structures, rows):
    x, y = data(rows)
    params = init(Plain(), x)
    check(
        supervised(Plain()),
        params,
        (x, y),
        weights_of(params),
        (x, y),
        PLAIN,
        structures=structures,
    )


@pytest.mark.parametrize("lift", [nn.remat, nn.jit, lambda m: nn.jit(nn.remat(m))])
def test_remat_and_jit(lift):
    x, y = data(6, 5)
    model = Plain(lift)
    params = init(model, x)
    check(supervised(model), params, (x, y), weights_of(params), (x, y), PLAIN)


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scan_over_layers(axis, remat):
    # DEPTH == WIDTH: shapes alone do not tell the stacked axis.
    x, y = data(6)
    model = Stacked(axis, remat)
    params = init(model, x)
    stack = params["stack"]["layer"]
    weights = [
        (jnp.take(stack["kernel"], i, axis), jnp.take(stack["bias"], i, axis)) for i in range(DEPTH)
    ]
    weights.append(pair(params["head"]))
    locate = [("stack/layer", (i,)) for i in range(DEPTH)] + [("head", ())]
    layers = check(supervised(model), params, (x, y), weights, (x, y), locate)
    assert layers["stack/layer"].stack_shape == (DEPTH,)
    assert layers["stack/layer"].dims == (WIDTH + 1, WIDTH)


def test_partitioned_params_under_scan():
    x, y = data(6)
    model = Stacked(0, partitioned=True)
    params = init(model, x)
    assert isinstance(params["stack"]["layer"]["kernel"], nn.Partitioned)
    kernel, bias = pair(params["stack"]["layer"])
    weights = [*zip(kernel, bias, strict=True), pair(params["head"])]
    locate = [("stack/layer", (i,)) for i in range(DEPTH)] + [("head", ())]
    check(supervised(model), params, (x, y), weights, (x, y), locate)


def test_frozen_dict_and_variables_as_params():
    x, y = data(6)
    model = Plain()
    params = flax.core.freeze({"params": init(model, x)})
    loss_fn = lambda variables, x, y: cross_entropy(model.apply(variables, x), y)
    locate = [("params/hidden", ()), ("params/head", ())]
    layers = check(loss_fn, params, (x, y), weights_of(params["params"]), (x, y), locate)
    assert isinstance(params, flax.core.FrozenDict)
    assert isinstance(singd_optax.plain_params(params), flax.core.FrozenDict)
    assert hash(layers) == hash(layers.replace("hidden", kfac_approx="expand"))


def test_module_called_twice_adds_up():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            shared = dense(WIDTH, name="shared")
            return dense(CLASSES, name="head")(jnp.tanh(shared(jnp.tanh(shared(x)))))

    x, y = data(6, 5)
    params = init(Twice(), x)
    shared = pair(params["shared"])
    weights = [shared, shared, pair(params["head"])]
    locate = [("shared", ()), ("shared", ()), ("head", ())]
    check(supervised(Twice()), params, (x, y), weights, (x, y), locate)


@pytest.mark.parametrize("container", [dict, tuple])
def test_colliding_module_paths(container):
    class Half(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x):
            return dense(self.features)(x)

    x, y = data(6)
    first, second = Half(WIDTH), Half(CLASSES)
    parts = (init(first, x), init(second, x))
    params = dict(zip("ab", parts, strict=True)) if container is dict else parts
    names = list("ab") if container is dict else [0, 1]

    def loss_fn(params, x, y):
        hidden = jnp.tanh(first.apply({"params": params[names[0]]}, x))
        return cross_entropy(second.apply({"params": params[names[1]]}, hidden), y)

    weights = [pair(part["Dense_0"]) for part in parts]
    locate = [(f"{name}/Dense_0", ()) for name in names]
    check(loss_fn, params, (x, y), weights, (x, y), locate)


def test_dropout_and_batch_stats():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dropout(0.5, deterministic=False)(x)
            mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1])
            mean.value = x.mean(0)
            x = jnp.tanh(dense(WIDTH, name="hidden")(x))
            return dense(CLASSES, name="head")(x)

    x, y = data(6)
    model = Noisy()
    variables = model.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x)
    params = variables["params"]

    def loss_fn(params, batch_stats, key, x, y):
        logits, new = model.apply(
            {"params": params, "batch_stats": batch_stats},
            x,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return cross_entropy(logits, y), new

    key = jax.random.key(5)
    dropped = nn.Dropout(0.5, deterministic=False).apply({}, x, rngs={"dropout": key})
    seen = loss_fn(params, variables["batch_stats"], key, x, y)[1]["batch_stats"]["mean"]
    # The key that a module folds in depends on its path: recover the mask from the mean.
    if not np.allclose(dropped.mean(0), seen):
        dropped = _dropped_input(model, params, variables["batch_stats"], key, x)
    check(
        loss_fn,
        params,
        (variables["batch_stats"], key, x, y),
        weights_of(params),
        (dropped, y),
        PLAIN,
        has_aux=True,
    )


def _dropped_input(model, params, batch_stats, key, x):
    _, state = model.apply(
        {"params": params, "batch_stats": batch_stats},
        x,
        rngs={"dropout": key},
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
    )
    return state["intermediates"]["Dropout_0"]["__call__"][0]


def test_ensemble_under_vmap():
    x, y = data(DEPTH, 6)
    model = nn.vmap(Plain, variable_axes={"params": 0}, split_rngs={"params": True})()
    params = init(model, x)
    layers = singd_optax.find_layers(supervised(model), params, x, y)
    assert layers["hidden"].stack_shape == (DEPTH,)
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = jax.jit(singd_optax.value_and_grad(supervised(model), layers))
    _, grads, curvature = grad_fn(params, x, y, opt_state=state)
    plain = jax.jit(jax.grad(supervised(model)))(params, x, y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), grads, plain)
    for i in range(DEPTH):
        member = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        mean = lambda logits, labels: cross_entropy(logits, labels) / DEPTH
        captured = inputs_and_gradients(weights_of(member), x[i], y[i], mean)
        for (path, _), (a, g) in zip(PLAIN, captured, strict=True):
            U, G = moments(a, g, bias=True)
            np.testing.assert_allclose(curvature[path].H_K.to_dense()[i], U, rtol=1e-10)
            np.testing.assert_allclose(curvature[path].H_C.to_dense()[i], G, rtol=1e-9, atol=1e-14)


def test_ensemble_under_vmap_skips_statistics_when_none_are_due():
    x, y = data(DEPTH, 6)
    model = nn.vmap(Plain, variable_axes={"params": 0}, split_rngs={"params": True})()
    params = init(model, x)
    layers = singd_optax.find_layers(supervised(model), params, x, y)
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(supervised(model), layers)
    jaxpr = jax.make_jaxpr(grad_fn)(params, x, y, opt_state=state)
    # The flag is mapped with the kernel; it has to stay a branch, not to become a select.
    assert str(jaxpr).count("cond[") == 2


@pytest.mark.parametrize("how", ["jax.vmap", "nn.vmap"])
@pytest.mark.parametrize("leading", [(6,), (6, 5)], ids=str)
@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
def test_shared_kernel_under_vmap_is_a_batch(how, leading, kfac_approx):
    x, y = data(*leading)
    model = Plain()
    params = init(model, x)
    if how == "jax.vmap":

        def loss_fn(params, x, y):
            logits = jax.vmap(lambda x: model.apply({"params": params}, x))(x)
            return cross_entropy(logits, y)

    else:
        mapped = nn.vmap(Plain, variable_axes={"params": None}, split_rngs={"params": False})()
        loss_fn = supervised(mapped)
    check(loss_fn, params, (x, y), weights_of(params), (x, y), PLAIN, kfac_approx=kfac_approx)


def test_plain_scan_over_stacked_params():
    x, y = data(6)
    layer = dense(WIDTH)
    keys = jax.random.split(jax.random.key(0), DEPTH)
    params = {
        "blocks": jax.vmap(lambda key: layer.init(key, x)["params"])(keys),
        "head": dense(CLASSES).init(keys[0], x)["params"],
    }

    def loss_fn(params, x, y):
        body = lambda x, p: (jnp.tanh(layer.apply({"params": p}, x)), None)
        x, _ = jax.lax.scan(body, x, params["blocks"])
        return cross_entropy(dense(CLASSES).apply({"params": params["head"]}, x), y)

    weights = [*zip(*pair(params["blocks"]), strict=True), pair(params["head"])]
    locate = [("blocks", (i,)) for i in range(DEPTH)] + [("head", ())]
    check(loss_fn, params, (x, y), weights, (x, y), locate)


def test_scan_of_vmap():
    """Two stacked axes, in different places."""

    class Ensemble(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.vmap(nn.Dense, variable_axes={"params": 1}, split_rngs={"params": True})(
                WIDTH, param_dtype=jnp.float64, name="layer"
            )(x), None

    members = 3
    model = nn.scan(
        Ensemble, variable_axes={"params": 2}, split_rngs={"params": True}, length=DEPTH
    )()
    x = data(members, 6)[0]
    params = model.init(jax.random.key(0), x, None)["params"]
    loss_fn = lambda params, x: (model.apply({"params": params}, x, None)[0] ** 2).mean()
    layers = singd_optax.find_layers(loss_fn, params, x)
    spec = layers["layer"]
    assert spec.stack_shape == (DEPTH, members)
    assert spec.kernel_shape == (WIDTH, members, DEPTH, WIDTH)
    tx = singd_optax.scale_by_singd(layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    _, grads, curvature = jax.jit(grad_fn)(params, x, opt_state=tx.init(params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10),
        grads,
        jax.jit(jax.grad(loss_fn))(params, x),
    )
    h = x
    for depth in range(DEPTH):
        for member in range(members):
            rows = np.concatenate([h[member], np.ones((6, 1))], axis=1)
            np.testing.assert_allclose(
                curvature["layer"].H_K.to_dense()[depth, member], rows.T @ rows / 6, rtol=1e-9
            )
        kernel, bias = (params["layer"][name][:, :, depth] for name in ("kernel", "bias"))
        h = jnp.einsum("mni,imj->mnj", h, kernel) + bias.T[:, None]
    matrix = spec.to_matrix(grads["layer"]["kernel"], grads["layer"]["bias"])
    assert matrix.shape == (DEPTH, members, WIDTH + 1, WIDTH)
    for got, want in zip(spec.from_matrix(matrix), pair(grads["layer"]), strict=True):
        np.testing.assert_array_equal(got, want)


def test_bfloat16_compute_with_float32_params():
    x, y = data(32)
    x = x.astype(jnp.float32)
    model = nn.Sequential(
        [nn.Dense(WIDTH, dtype=jnp.bfloat16), jnp.tanh, nn.Dense(CLASSES, dtype=jnp.bfloat16)]
    )
    params = model.init(jax.random.key(0), x)["params"]
    seen = []

    def loss_fn(params, x, y):
        seen.append(params)
        return cross_entropy(model.apply({"params": params}, x).astype(jnp.float32), y)

    layers = singd_optax.find_layers(loss_fn, params, x, y)
    tx = singd_optax.scale_by_singd(layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    _, grads, curvature = jax.jit(grad_fn)(params, x, y, opt_state=tx.init(params))
    jax.tree.map(np.testing.assert_array_equal, grads, jax.jit(jax.grad(loss_fn))(params, x, y))
    statistics = curvature["layers_0"]
    assert statistics.H_K.dtype == jnp.float32
    rows = np.concatenate([np.asarray(x.astype(jnp.bfloat16), np.float64), np.ones((32, 1))], 1)
    np.testing.assert_allclose(statistics.H_K.to_dense(), rows.T @ rows / 32, rtol=1e-5, atol=1e-6)


def test_grads_are_bit_for_bit_those_of_jax_grad():
    x, y = data(16, 8)
    model = Stacked()
    params = init(model, x)
    layers = singd_optax.find_layers(supervised(model), params, x, y)
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = jax.jit(singd_optax.value_and_grad(supervised(model), layers))
    got = grad_fn(params, x, y, opt_state=state)[:2]
    want = jax.jit(jax.value_and_grad(supervised(model)))(params, x, y)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_options_are_part_of_the_jit_cache():
    """A jitted model that was traced for one gradient function serves another correctly."""
    x, y = data(6, 5)
    model = Plain(nn.jit)
    params = init(model, x)
    apply = jax.jit(model.apply)
    loss_fn = lambda params, x, y: cross_entropy(apply({"params": params}, x), y)
    for kfac_approx in ("expand", "reduce", "expand"):
        check(
            loss_fn,
            params,
            (x, y),
            weights_of(params),
            (x, y),
            PLAIN,
            kfac_approx=kfac_approx,
        )


def test_one_forward_and_one_backward_pass():
    """No product outside the branch that a refresh takes is added to jax.value_and_grad's."""
    x, y = data(6)
    model = Plain()
    params = init(model, x)
    layers = singd_optax.find_layers(supervised(model), params, x, y)
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(supervised(model), layers)

    def products(jaxpr):
        return sum(equation.primitive.name == "dot_general" for equation in jaxpr.eqns)

    tapped = jax.make_jaxpr(grad_fn)(params, x, y, opt_state=state).jaxpr
    plain = jax.make_jaxpr(jax.value_and_grad(supervised(model)))(params, x, y).jaxpr
    assert products(tapped) == products(plain) > 0
    branches = str(jax.make_jaxpr(grad_fn)(params, x, y, opt_state=state)).count("cond[")
    assert branches == len(layers) == 2


def test_no_second_copy_of_activations():
    """Peak memory of a step between refreshes is that of jax.value_and_grad, and the slots."""
    width, depth = 64, 8

    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.tanh(nn.Dense(width, dtype=jnp.bfloat16)(x)), None

    model = nn.scan(Body, variable_axes={"params": 0}, split_rngs={"params": True}, length=depth)()
    x = jnp.ones((4096, width), jnp.float32)
    params = model.init(jax.random.key(0), x.astype(jnp.bfloat16), None)["params"]

    def loss_fn(params, x):
        y = model.apply({"params": params}, x.astype(jnp.bfloat16), None)[0]
        return (y.astype(jnp.float32) ** 2).mean()

    layers = singd_optax.find_layers(loss_fn, params, x, structures="diagonal")
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    tapped = jax.jit(lambda p, s, x: grad_fn(p, x, opt_state=s)).lower(params, state, x).compile()
    plain = jax.jit(jax.value_and_grad(loss_fn)).lower(params, x).compile()
    extra = tapped.memory_analysis().temp_size_in_bytes - plain.memory_analysis().temp_size_in_bytes
    one_copy = depth * x.size * 2
    assert extra < one_copy / 2, (extra, one_copy)


def test_loss_that_takes_gradients_itself():
    """A network that solves an equation: its loss differentiates it with respect to inputs."""
    x = data(6)[0]
    model = nn.Sequential([dense(WIDTH), jnp.tanh, dense(1)])
    params = model.init(jax.random.key(0), x)["params"]

    def loss_fn(params, x):
        def value(point):
            return model.apply({"params": params}, point)[0]

        residual = lambda point: (jnp.sum(jax.grad(value)(point)) - 1) ** 2 + value(point) ** 2
        return jnp.mean(jax.vmap(residual)(x))

    layers = singd_optax.find_layers(loss_fn, params, x)
    state = singd_optax.scale_by_singd(layers).init(params)
    _, grads, curvature = jax.jit(singd_optax.value_and_grad(loss_fn, layers))(
        params, x, opt_state=state
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10),
        grads,
        jax.grad(loss_fn)(params, x),
    )
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(curvature))


def test_abstract_params_suffice():
    x, y = data(6)
    model = Plain()
    params = jax.eval_shape(lambda: init(model, x))
    layers = singd_optax.find_layers(
        supervised(model), params, jax.ShapeDtypeStruct(x.shape, x.dtype), y
    )
    assert list(layers) == ["head", "hidden"]


@pytest.mark.parametrize("plain", [False, True])
def test_penalties_on_all_leaves(plain):
    """They add to the gradients of parameters, not to those of outputs."""
    x, y = data(6)
    model = Plain()
    params = init(model, x)

    def loss_fn(params, x, y):
        penalized = singd_optax.plain_params(params) if plain else params
        l2 = sum(jnp.sum(p**2) for p in jax.tree.leaves(penalized))
        return supervised(model)(params, x, y) + 0.1 * l2

    check(loss_fn, params, (x, y), weights_of(params), (x, y), PLAIN)


def test_cast_params_inside_the_loss():
    x, y = data(32)
    x = x.astype(jnp.float32)
    model = nn.Sequential([nn.Dense(WIDTH), jnp.tanh, nn.Dense(CLASSES)])
    params = model.init(jax.random.key(0), x)["params"]

    def loss_fn(params, x, y):
        low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
        logits = model.apply({"params": low}, x.astype(jnp.bfloat16))
        return cross_entropy(logits.astype(jnp.float32), y)

    layers = singd_optax.find_layers(loss_fn, params, x, y)
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    _, grads, curvature = jax.jit(grad_fn)(params, x, y, opt_state=state)
    jax.tree.map(np.testing.assert_array_equal, grads, jax.jit(jax.grad(loss_fn))(params, x, y))
    rows = np.concatenate([np.asarray(x.astype(jnp.bfloat16), np.float64), np.ones((32, 1))], 1)
    H = curvature["layers_0"].H_K.to_dense()
    np.testing.assert_allclose(H, rows.T @ rows / 32, rtol=2**-7, atol=2**-8)


def test_reasons_in_the_table():
    class Mixed(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.LayerNorm()(x)
            own = nn.ConvLocal(WIDTH, (1,))(x[..., None])[..., 0]
            return dense(CLASSES, name="head")(own) + self.param("gain", nn.initializers.ones, ())

    x, y = data(6)
    params = {**init(Mixed(), x), "unused": {"kernel": jnp.ones((2, 2))}}
    with pytest.warns(UserWarning, match=r"Only 2.% of the parameters .*\n.*ConvLocal_0: .*shared"):
        layers = singd_optax.find_layers(supervised(Mixed()), params, x, y)
    assert list(layers) == ["head"]
    reasons = {path: reason for path, _, reason in layers.others}
    assert "LayerNorm" in reasons["LayerNorm_0/scale"]
    assert "not shared" in reasons["ConvLocal_0/kernel"]
    assert "Mixed" in reasons["gain"]
    assert "not used" in reasons["unused/kernel"]
    printed = repr(layers)
    assert all(path in printed for path in reasons)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = set(reasons) | {path for spec in layers.values() for path in spec.shapes}
    assert len(named) == len(leaves)
