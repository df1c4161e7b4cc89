"""The self-test of users: true of every architecture, and false where a model lies."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import ARCHITECTURES
from flax import nnx
from test_nnx import CASES, Holder, Language, Scanned, loss_of

import singd_optax
from singd_optax import tag
from singd_optax.testing import _passes, check_layers

BATCH, WIDTH = 4, 5


def checked(loss_fn, params, *args, rtol=None, **options):
    """What is found of a loss whose layers are what they say."""
    find = (
        singd_optax.nnx.find_layers if isinstance(params, nnx.Module) else singd_optax.find_layers
    )
    layers = find(loss_fn, params, *args, **options)
    checks = check_layers(loss_fn, layers, params, *args, rtol=rtol, print_table=False)
    assert list(checks) == list(layers)
    assert all(check.ok and check.calls for check in checks.values())
    return checks


def refuted(loss_fn, params, *args, match, **options):
    """A loss that lies: the layer is named, with what is wrong."""
    find = (
        singd_optax.nnx.find_layers if isinstance(params, nnx.Module) else singd_optax.find_layers
    )
    layers = find(loss_fn, params, *args, **options)
    with pytest.raises(AssertionError, match=match):
        check_layers(loss_fn, layers, params, *args)


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def applied(model, x, **options):
    """Parameters of a Linen module and a loss of its outputs."""
    params = model.init(jax.random.key(0), x)["params"]
    return (lambda params, x: loss_of(model.apply({"params": params}, x, **options))), params


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(name):
    case = ARCHITECTURES[name]
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = case.model.init(rngs, *case.inputs(case.batch))
    params = variables.pop("params")

    def loss_fn(params, variables, batch):
        def apply(*args, **kwargs):
            return case.model.apply(
                {"params": params, **variables}, *args, mutable=list(variables), **kwargs
            )

        return case.loss(apply, batch)

    checks = checked(loss_fn, params, variables, case.batch, **case.options)
    assert max(check.gradient_error for check in checks.values()) < 1e-5


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_kinds_of_nnx(name):
    approx = "reduce" if name.startswith(("conv", "einsum", "embed")) else "expand"
    _, layer, shape = CASES[name]()
    x = jax.random.randint(jax.random.key(0), shape, 0, 7) if name == "embed" else normal(*shape)
    loss_fn = lambda model, x: loss_of(model(x))
    checks = checked(loss_fn, Holder(layer), x, kfac_approx=approx, structures="dense")
    (check,) = checks.values()
    assert check.rtol == 1e-7
    assert max(check.gradient_error, check.input_error, check.output_error) < 1e-10


@pytest.mark.usefixtures("x64")
def test_models_of_nnx():
    tokens = jax.random.randint(jax.random.key(0), (3, 5), 0, 7)
    checks = checked(lambda m, t: loss_of(m(t)), Language(nnx.Rngs(0)), tokens)
    assert (checks["again"].calls, checks["embed"].calls) == (2, 2)
    checks = checked(lambda m, x: loss_of(m(x)), Scanned(1), normal(BATCH, 4), structures="dense")
    assert checks["blocks/layer"].calls == 4


def tagged(params, x):
    x = jnp.tanh(tag(x @ params["w"] + params["b"], x, params["w"], bias=params["b"]))
    return loss_of(tag(x @ params["v"].T, x, params["v"], equation="...i,oi->...o"))


TAGGED = {"w": normal(WIDTH, 3), "b": normal(3, seed=1), "v": normal(2, 3, seed=2)}


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.checkpoint])
def test_tagged(transform):
    loss_fn = lambda params, x: tagged(params, x)
    checked(lambda p, x: transform(lambda x: loss_fn(p, x))(x), TAGGED, normal(BATCH, 2, WIDTH))


def test_vmap_over_examples_and_over_an_ensemble():
    x = normal(BATCH, WIDTH)
    each = lambda params, x: jax.vmap(lambda x: jnp.sin(nn.Dense(3).apply(params, x)))(x)
    params = nn.Dense(3).init(jax.random.key(0), x)
    checks = checked(lambda p, x: loss_of(each(p, x)), params, x)
    assert checks["params"].calls == 1
    Ensemble = nn.vmap(
        nn.Dense,
        variable_axes={"params": 1},
        split_rngs={"params": True},
        in_axes=None,
        axis_size=3,
    )
    checks = checked(*applied(Ensemble(2), x), x)
    assert checks[""].calls == 3


def test_kernels_that_are_changed_first():
    x = normal(BATCH, WIDTH)
    loss_fn, params = applied(nn.Dense(3), x)
    checked(lambda p, x: loss_fn(jax.tree.map(lambda leaf: 3 * leaf, p), x), params, x)


def test_weights_structures_and_options():
    x, mask = normal(BATCH, 6, WIDTH), jnp.arange(6) < jnp.array([[6], [3], [1], [0]])
    params = nn.Dense(3).init(jax.random.key(0), x)

    def loss_fn(params, x, mask):
        with singd_optax.position_weights(mask):
            y = nn.Dense(3).apply(params, x)
        return jnp.sum(mask[..., None] * jnp.sin(y) ** 2) / jnp.sum(mask)

    for options in (
        {"loss_average": "batch+sequence", "structures": ("lower_toeplitz", "diagonal")},
        {"loss_average": None, "structures": "block_diagonal:2", "curvature_fraction": 0.5},
        {"kfac_approx": "reduce", "structures": "hierarchical:1,1", "factor_dtype": "bfloat16"},
    ):
        checked(loss_fn, params, x, mask, **options)


def test_low_precision():
    x = normal(8, WIDTH)
    for options in ({"dtype": jnp.bfloat16}, {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}):
        model = nn.Sequential([nn.Dense(4, **options), jnp.tanh, nn.Dense(3, **options)])
        checks = checked(*applied(model, x), x)
        assert {check.rtol for check in checks.values()} == {5e-2}


def test_penalties_are_no_calls():
    def loss_fn(params, x):
        return tagged(params, x) + 10 * jnp.sum(params["w"] ** 2)

    checks = checked(loss_fn, TAGGED, normal(BATCH, WIDTH))
    assert "a part of no call" in checks["w"].verdict
    assert checks["w"].outside > 0.1
    assert checks["v"].outside == 0


def test_derivatives_inside_the_loss():
    model = nn.Sequential([nn.Dense(4), jnp.tanh, nn.Dense(1)])
    x = normal(BATCH, WIDTH)
    params = model.init(jax.random.key(0), x)
    energy = lambda params, x: model.apply(params, x).sum()
    loss_fn = lambda params, x: jnp.mean(jax.grad(energy, 1)(params, x) ** 2) + energy(params, x)
    checks = checked(loss_fn, params, x)
    assert all(check.gradient_error is None for check in checks.values())
    assert all("takes derivatives" in check.verdict for check in checks.values())


def test_not_called_with_these_arguments(capsys):
    x = normal(BATCH, WIDTH)
    params = {"a": normal(WIDTH, 3), "b": normal(WIDTH, 3)}

    def loss_fn(params, x):
        use = lambda w: lambda x: tag(x @ w, x, w)
        return loss_of(jax.lax.cond(x[0, 0] > 1e9, use(params["a"]), use(params["b"]), x))

    layers = singd_optax.find_layers(loss_fn, params, x)
    assert [check.calls for check in check_layers(loss_fn, layers, params, x).values()] == [0, 1]
    assert "not called with these arguments" in capsys.readouterr().out


class Doubled(nn.Dense):
    """Keeps the call of Dense, and hands it another kernel."""

    def param(self, name, *args, **kwargs):
        return 2 * super().param(name, *args, **kwargs)


class Rotated(nn.Module):
    """Says that it multiplied its inputs, and multiplied others."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.normal(), (WIDTH, 3))
        return tag(jnp.roll(x, 1, axis=-1) @ w, x, w)


def scaling(next_fun, args, kwargs, context):
    return 3 * next_fun(*args, **kwargs)


def test_lies():
    x = normal(BATCH, WIDTH)
    params = {"w": normal(WIDTH, WIDTH), "v": normal(WIDTH, 3)}

    def wrong_equation(params, x):
        x = jnp.tanh(tag(x @ params["w"], x, params["w"], equation="...i,oi->...o"))
        return loss_of(tag(x @ params["v"], x, params["v"]))

    refuted(wrong_equation, params, x, match=r"1 layer is not .*\['w'\](?s:.*)is the transpose of")

    def other_batch(params, x):
        y = tag(x[::-1] @ params["w"], x, params["w"])
        return loss_of(tag(y @ params["v"], y, params["v"]))

    refuted(other_batch, params, x, match=r"\['w'\](?s:.*)is not its gradient")
    loss_fn, rotated = applied(nn.Sequential([Rotated(), nn.Dense(2)]), x)
    refuted(loss_fn, rotated, x, match=r"\['layers_0/w'\]")
    loss_fn, doubled = applied(nn.Sequential([nn.Dense(4), Doubled(3), nn.Dense(2)]), x)
    refuted(loss_fn, doubled, x, match=r"\['layers_1'\](?s:.*)is 0.5 times its gradient")


def test_an_interceptor_that_scales_the_outputs():
    """Inside of what listens, so that the outputs that are heard of are not the product."""
    x = normal(BATCH, WIDTH)
    model = nn.Dense(3)
    params = model.init(jax.random.key(0), x)

    def loss_fn(params, x):
        with nn.intercept_methods(scaling):
            return loss_of(model.apply(params, x))

    refuted(loss_fn, params, x, match=r"times its gradient|is not its gradient")


def test_a_bias_that_is_none():
    x = normal(BATCH, WIDTH)

    def loss_fn(params, x):
        y = x @ params["w"] + 2 * params["b"]
        return loss_of(tag(y, x, params["w"], bias=params["b"]))

    params = {"w": normal(WIDTH, 3), "b": normal(3)}
    refuted(loss_fn, params, x, match="for the kernel, but not for the bias")


def test_tolerance():
    x = normal(BATCH, WIDTH)
    near = lambda p, x: loss_of(tag(1.01 * x @ p["w"], x, p["w"]))
    params = {"w": normal(WIDTH, 3)}
    refuted(near, params, x, match="0.9901 times")
    assert checked(near, params, x, rtol=0.1)["w"].rtol == 0.1


def test_a_tap_of_another_layer_of_the_stack(monkeypatch):
    places = _passes._places
    monkeypatch.setattr(_passes, "_places", lambda spec: places(spec)[::-1])
    Ensemble = nn.vmap(
        nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=0, axis_size=2
    )
    loss_fn, params = applied(Ensemble(3), normal(2, BATCH, WIDTH))
    refuted(loss_fn, params, normal(2, BATCH, WIDTH), match="is at the call of another")


def test_a_layer_that_is_not_heard(monkeypatch):
    monkeypatch.setattr(_passes, "Echo", lambda *told, heard: _passes.Silence(*told))
    loss_fn, params = applied(nn.Dense(3), normal(BATCH, WIDTH))
    refuted(loss_fn, params, normal(BATCH, WIDTH), match="no call of it was heard")


def test_one_trace_applied_twice():
    """Two evaluations with the same numbers are two."""

    def loss_fn(params, x):
        call = jax.jit(lambda x: tag(x @ params["w"], x, params["w"]))
        return loss_of(call(x) + call(x))

    assert checked(loss_fn, {"w": normal(WIDTH, 3)}, normal(BATCH, WIDTH))["w"].calls == 2


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.tanh(nn.Dense(WIDTH)(x))


class Jitted(nn.Module):
    """One jitted class, traced once and applied to the parameters of two modules."""

    @nn.compact
    def __call__(self, x):
        block = nn.jit(Block)
        return block(name="b")(block(name="a")(x))


def test_one_jitted_class_for_two_modules():
    checked(*applied(Jitted(), normal(BATCH, WIDTH)), normal(BATCH, WIDTH))


def test_a_convolution_of_one_image():
    checked(*applied(nn.Conv(3, (3, 3)), normal(6, 5, 2)), normal(6, 5, 2))


def test_errors():
    x = normal(BATCH, WIDTH)
    loss_fn, params = applied(nn.Dense(3), x)
    layers = singd_optax.find_layers(loss_fn, params, x)
    with pytest.raises(TypeError, match="`layers` must be the Layers"):
        check_layers(loss_fn, params, x)
    with pytest.raises(TypeError, match="`loss_fn` must be a function"):
        check_layers(params, layers, loss_fn, x)
    with pytest.raises(ValueError, match="`rtol` must be"):
        check_layers(loss_fn, layers, params, x, rtol=0.0)
    with pytest.raises(TypeError, match="`print_table` must be True or False"):
        check_layers(loss_fn, layers, params, x, print_table=1)
    with pytest.raises(ValueError, match="do not match `layers`"):
        check_layers(loss_fn, layers, {"kernel": x}, x)
    with pytest.raises(TypeError, match="compares numbers"):
        check_layers(loss_fn, layers, jax.eval_shape(lambda: params), x)
    with pytest.raises(TypeError, match="outside of"):
        jax.jit(lambda params: check_layers(loss_fn, layers, params, x))(params)
    with pytest.raises(TypeError, match="one scalar"):
        check_layers(lambda p, x: nn.Dense(3).apply({"params": p}, x), layers, params, x)
    with pytest.raises(ValueError, match=r"`model` do not match|do not match `layers`"):
        check_layers(loss_fn, layers, nnx.Linear(2, 3, rngs=nnx.Rngs(0)), x)


def test_not_finite():
    x = normal(BATCH, WIDTH)
    loss_fn, params = applied(nn.Dense(3), x)
    layers = singd_optax.find_layers(loss_fn, params, x)
    with pytest.raises(AssertionError, match="not finite"):
        check_layers(loss_fn, layers, params, x * np.inf)
