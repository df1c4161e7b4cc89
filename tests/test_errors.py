"""Bad input gets a clear error, before anything is traced: what, got, legal, fix."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

import singd_optax
from singd_optax.layers._tree import Leaves
from singd_optax.measures import Statistics
from singd_optax.optimizers import SINGD


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="layer")(x)


def loss_fn(params, x):
    return (Net().apply({"params": params}, x) ** 2).mean()


X = jnp.ones((4, 5))


@pytest.fixture(scope="module")
def params():
    return Net().init(jax.random.key(0), X)["params"]


@pytest.fixture(scope="module")
def layers(params):
    return singd_optax.find_layers(loss_fn, params, X)


def raises(error, *words):
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*{word})" for word in words))


def test_no_kronecker_layer():
    class Scale(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x * self.param("gain", nn.initializers.ones, ())

    params = Scale().init(jax.random.key(0), X)["params"]
    fn = lambda params, x: Scale().apply({"params": params}, x).sum()
    with raises(ValueError, "no Kronecker layer", "gain", "Scale", "adamw"):
        singd_optax.find_layers(fn, params, X)


@pytest.mark.parametrize("bad", [{}, [jnp.ones(3)], jnp.ones(3), None])
def test_params_without_layers(bad):
    with raises(ValueError, "no Kronecker layer", "params of"):
        singd_optax.find_layers(lambda params, x: 0.0, bad, X)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"structures": "dens"}, ValueError, ["'dens'", "'dense'"]),
        ({"structures": ("dense",)}, ValueError, ["pair"]),
        ({"structures": 7}, ValueError, ["pair", "7"]),
        ({"kfac_approx": "expnd"}, ValueError, ["kfac_approx", "'expand', 'reduce'", "'expnd'"]),
        ({"loss_average": "mean"}, ValueError, ["loss_average", r"batch\+sequence", "None"]),
        ({"factor_dtype": "float12"}, TypeError, ["factor_dtype", "float12"]),
        ({"factor_dtype": "float16"}, ValueError, ["factor_dtype", "bfloat16"]),
    ],
)
def test_options_of_layers(options, error, words, params, layers):
    with raises(error, *words):
        singd_optax.find_layers(loss_fn, params, X, **options)
    with raises(error, *words):
        layers.replace("layer", **options)


def test_replace_and_without(layers):
    with raises(ValueError, "'nothing'", "layer"):
        layers.replace("nothing", structures="dense")
    with raises(ValueError, "option", "'colour'", "structures"):
        layers.replace("layer", colour="red")
    with raises(ValueError, "leaves no Kronecker layer"):
        layers.without("layer")
    with pytest.raises(KeyError, match="missing"):
        layers["missing"]


SHARED = [
    ({"damping": -1e-3}, ValueError, ["`damping`", ">= 0", "-0.001"]),
    ({"damping": float("nan")}, ValueError, ["`damping`", "finite", "nan"]),
    ({"damping": "small"}, TypeError, ["`damping`", "schedule", "'small'"]),
    ({"damping_mode": "relativ"}, ValueError, ["damping_mode", "'absolute', 'relative'"]),
    ({"factor_learning_rate": float("inf")}, ValueError, ["`factor_learning_rate`", "finite"]),
    ({"factor_step_norm": "max"}, ValueError, ["factor_step_norm", "None", "'spectral'"]),
    ({"refresh_every": 0}, ValueError, ["`refresh_every`", ">= 1", "0"]),
    ({"refresh_every": 2.5}, TypeError, ["`refresh_every`", "int", "2.5"]),
]
MOMENTUM = [
    ({"factor_momentum": 1.0}, ValueError, ["`factor_momentum`", "< 1"]),
    ({"factor_momentum": -0.1}, ValueError, ["`factor_momentum`", ">= 0"]),
]
RECIPE = [
    ({"momentum": 1.0}, ValueError, ["`momentum`", "< 1"]),
    ({"weight_decay": -1.0}, ValueError, ["`weight_decay`", ">= 0"]),
    ({"update_rms": 0.0}, ValueError, ["`update_rms`", "> 0"]),
]


@pytest.mark.parametrize(("options", "error", "words"), SHARED + MOMENTUM)
def test_hyperparameters_of_scale_by_singd(options, error, words, layers):
    with raises(error, *words):
        singd_optax.scale_by_singd(layers, **options)


@pytest.mark.parametrize(("options", "error", "words"), SHARED)
def test_hyperparameters_of_scale_by_ikfac(options, error, words, layers):
    with raises(error, *words):
        singd_optax.scale_by_ikfac(layers, **options)


@pytest.mark.parametrize(("options", "error", "words"), SHARED + RECIPE)
@pytest.mark.parametrize("alias", ["singd", "ingd", "ikfac"])
def test_hyperparameters_of_aliases(alias, options, error, words, layers):
    with raises(error, *words):
        getattr(singd_optax, alias)(0.1, layers, **options)
    with raises(ValueError, "`learning_rate`", ">= 0"):
        getattr(singd_optax, alias)(-0.1, layers)


def test_ingd_is_as_dense_as_a_layer_allows():
    """K of an embedding is diagonal whatever was asked for; nothing else may be structured."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            return nn.Dense(4)(nn.Embed(7, 5)(tokens))

    tokens = jnp.arange(6).reshape(2, 3)
    params = Net().init(jax.random.key(0), tokens)
    net_loss = lambda p, x: jnp.mean(Net().apply(p, x) ** 2)
    layers = singd_optax.find_layers(net_loss, params, tokens, structures="dense")
    singd_optax.ingd(0.1, layers).init(params)
    for side in (("diagonal", "dense"), ("dense", "diagonal")):
        other = layers.replace("params/Dense_0", structures=side)
        with raises(ValueError, "['params/Dense_0']", "structures='dense'"):
            singd_optax.ingd(0.1, other)
    with raises(ValueError, "['params/Embed_0']"):
        singd_optax.ingd(0.1, layers.replace("params/Embed_0", structures="diagonal"))


def test_layers_of_another_type(params, layers):
    for make in (
        lambda: singd_optax.singd(0.1, params),
        lambda: singd_optax.ingd(0.1, params),
        lambda: singd_optax.value_and_grad(loss_fn, None),
        lambda: singd_optax.scale_by_rule(SINGD(), {"a": 1}),
        lambda: singd_optax.scale_by_rule(SINGD()),
        lambda: singd_optax.optimizer(0.1, SINGD(), {"a": 1}),
    ):
        with raises(TypeError, "`layers`", "find_layers"):
            make()
    with raises(TypeError, "`rule`"):
        singd_optax.scale_by_rule("singd", layers)
    with raises(TypeError, "`rule`", r"write SINGD\(\)"):
        singd_optax.scale_by_rule(SINGD, layers)


def test_ingd_is_dense(layers):
    with raises(ValueError, "INGD", "layer", "singd"):
        singd_optax.ingd(0.1, layers.replace("layer", structures="diagonal"))


def test_params_of_another_model(params, layers):
    tx = singd_optax.singd(0.1, layers)
    wide = {"layer": {"kernel": jnp.ones((6, 3)), "bias": jnp.ones(3)}}
    with raises(ValueError, "layer/kernel", r"\(6, 3\)", r"\(5, 3\)", "find_layers"):
        tx.init(wide)
    with raises(ValueError, "layer/kernel", "model/layer/kernel", "nesting"):
        tx.init({"model": params})
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    opt_state = tx.init(params)
    with raises(ValueError, r"\(6, 3\)", r"\(5, 3\)"):
        grad_fn(wide, X, opt_state=opt_state)


def test_curvature_missing_or_of_other_layers(params, layers):
    tx = singd_optax.singd(0.1, layers)
    opt_state = tx.init(params)
    with raises(ValueError, "`curvature`", "value_and_grad", "curvature=curvature"):
        tx.update(params, opt_state, params)
    with raises(ValueError, "'layer'", "'other'", "same layers"):
        tx.update(params, opt_state, params, curvature={"other": None})
    diagonal = layers.replace("layer", structures="diagonal")
    curvature = {path: Statistics.zeros(spec) for path, spec in diagonal.items()}
    with raises(ValueError, "'layer'", "does not match", "same layers"):
        tx.update(params, opt_state, params, curvature=curvature)


def test_opt_state_missing_or_without_factors(params, layers):
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    with raises(ValueError, "no opt_state", "opt_state=opt_state"):
        grad_fn(params, X)
    adamw = optax.adamw(0.1).init(params)
    with raises(ValueError, "tuple", "without Kronecker factors", "tx.init"):
        grad_fn(params, X, opt_state=adamw)
    with raises(ValueError, "no Kronecker factors", "tuple"):
        singd_optax.factors(adamw)


def test_opt_state_of_other_layers(params, layers):
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    diagonal = layers.replace("layer", structures="diagonal")
    with raises(ValueError, "'layer'", "Diagonal", "Dense", "same layers"):
        grad_fn(params, X, opt_state=singd_optax.singd(0.1, diagonal).init(params))
    twice = optax.chain(
        singd_optax.scale_by_singd(layers), singd_optax.scale_by_ikfac(layers)
    ).init(params)
    with raises(ValueError, "Two transformations", "'layer'", "without"):
        grad_fn(params, X, opt_state=twice)

    other_params = {"layer": params["layer"], "more": params["layer"]}

    def other_loss(params, x):
        return loss_fn(params, x) + loss_fn({"layer": params["more"]}, x)

    other = singd_optax.find_layers(other_loss, other_params, X)
    with raises(ValueError, "'more'", "same layers"):
        grad_fn(other_params, X, opt_state=singd_optax.singd(0.1, other).init(other_params))


def test_slash_in_a_key():
    layer = {"kernel": jnp.ones((5, 3))}
    with raises(ValueError, "Two parameters", "a/b/kernel", "Rename"):
        Leaves({"a/b": layer, "a": {"b": layer}})


def test_traced_hyperparameters_are_legal(params, layers):
    """inject_hyperparams makes arrays of numbers, traced under jit."""

    @jax.jit
    def norm(damping):
        rule = SINGD(damping=damping, factor_learning_rate=damping, factor_momentum=damping)
        tx = singd_optax.scale_by_rule(rule, layers)
        state = tx.init(params)
        grad_fn = singd_optax.value_and_grad(loss_fn, layers)
        _, grads, curvature = grad_fn(params, X, opt_state=state)
        updates, _ = tx.update(grads, state, params, curvature=curvature)
        return optax.tree.norm(updates)

    assert jnp.isfinite(norm(jnp.float32(0.1)))


@pytest.mark.parametrize(
    ("schedule", "options", "error", "words"),
    [
        ("refresh_schedule", {"early_steps": 0}, ValueError, ["early_steps", ">= 1", "0"]),
        ("refresh_schedule", {"early_steps": 2.5}, TypeError, ["early_steps", "2.5"]),
        ("refresh_schedule", {"late": 0}, ValueError, ["late", ">= 1"]),
        ("damping_schedule", {"late": 0.0}, ValueError, ["late", "> 0"]),
        ("damping_schedule", {"early": -1.0}, ValueError, ["early", "> 0", "-1"]),
        ("damping_schedule", {"early_steps": 0}, ValueError, ["early_steps", ">= 1"]),
    ],
)
def test_schedules(schedule, options, error, words):
    with raises(error, *words):
        getattr(singd_optax, schedule)(**options)
