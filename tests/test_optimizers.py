"""One rule, one transformation, one recipe: what an algorithm's file says once holds everywhere."""

import ast
import dataclasses
import inspect
import math
import re
from pathlib import Path
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import (
    ALIASES,
    GRADIENT_ALIASES,
    assert_close,
    describe,
    jit,
    make_step,
    problem,
    run,
)
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import singd_optax
from singd_optax.layers._tree import Leaves
from singd_optax.optimizers import (
    CASPR,
    EKFAC,
    FOOF,
    IKFAC,
    KFAC,
    KLSOAP,
    KPSVD,
    MKOR,
    RSKFAC,
    SINGD,
    SKFAC,
    SM3,
    SOAP,
    TEKFAC,
    TKFAC,
    TNT,
    AdaFisher,
    Eva,
    EvaF,
    EvaS,
    InverseFreeKLShampoo,
    InverseFreeShampoo,
    Jorge,
    KLShampoo,
    LocoProp,
    MiniBlockFisher,
    NorMuon,
    PSGDKron,
    Shampoo,
    Sketchy,
    SPlus,
    optimizer,
)
from singd_optax.rules import Entries, Rule
from singd_optax.sharding import state_shardings
from singd_optax.structures import Identity, IdentityMatrix
from singd_optax.transforms import KLClip, scale_by_rule

PACKAGE = Path(singd_optax.__file__).parent
RULES = {
    "singd": SINGD,
    "ingd": SINGD,
    "ikfac": IKFAC,
    "kfac": KFAC,
    "adafisher": AdaFisher,
    "ekfac": EKFAC,
    "eva": Eva,
    "eva_f": EvaF,
    "foof": FOOF,
    "kpsvd": KPSVD,
    "locoprop": LocoProp,
    "mkor": MKOR,
    "tekfac": TEKFAC,
    "tkfac": TKFAC,
    "rs_kfac": RSKFAC,
    "skfac": SKFAC,
    "shampoo": Shampoo,
    "caspr": CASPR,
    "inverse_free_shampoo": InverseFreeShampoo,
    "soap": SOAP,
    "kl_shampoo": KLShampoo,
    "kl_soap": KLSOAP,
    "psgd_kron": PSGDKron,
    "normuon": NorMuon,
    "inverse_free_kl_shampoo": InverseFreeKLShampoo,
    "splus": SPlus,
    "sm3": SM3,
    "eva_s": EvaS,
    "jorge": Jorge,
    "sketchy": Sketchy,
    "tnt": TNT,
    "mini_block_fisher": MiniBlockFisher,
}
SCALES = [name for name in singd_optax.__all__ if name.startswith("scale_by_")]
FUNCTIONS = [*RULES, *SCALES, "optimizer"]


def options_of(name):
    """The options of a function of the package: all that have a default."""
    parameters = inspect.signature(getattr(singd_optax, name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def fields_of(rule):
    return {field.name: field.default for field in dataclasses.fields(rule)}


def made(name, *args, **options):
    """An alias, with the layers of the small problem where it wants them."""
    own = (problem()[1],) if name in ALIASES else ()
    return getattr(singd_optax, name)(*(args or (0.05,)), *own, **options)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_option_is_described_once(name):
    function = getattr(singd_optax, name)
    assert set(RULES) == set(ALIASES + GRADIENT_ALIASES)
    parameters = inspect.signature(function).parameters.values()
    assert {p.kind for p in parameters} <= {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }
    arguments = re.search(r"^Args:\n((?:  .*\n|\n)*)", inspect.getdoc(function) + "\n", re.M)[1]
    described = re.findall(r"^  (\w+): \S", arguments, re.M)
    assert described == [p.name for p in parameters]
    assert inspect.Parameter.empty not in options_of(name).values()
    rule = RULES.get(name.removeprefix("scale_by_"))
    if rule is not None:
        assert set(fields_of(rule)) <= set(options_of(name))


def test_no_option_is_described_by_that_of_another():
    """Each says what it is where it is; only ``*args`` of a loss function are the loss's."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                doc = ast.get_docstring(node) or ""
                assert not re.search(r"^ *\w+: As for ", doc, re.MULTILINE), (file, doc)


def defaults_in(file):
    """(Where, name) of every default that a file writes: of fields, and of parameters."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for one in node.body:
                if isinstance(one, ast.AnnAssign) and one.value is not None:
                    yield node.name, one.target.id
        if isinstance(node, ast.FunctionDef):
            arguments = node.args
            positional = arguments.args[len(arguments.args) - len(arguments.defaults) :]
            named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            for argument in (*positional, *(a for a, default in named if default is not None)):
                yield node.name, argument.arg


def test_every_default_is_written_once():
    """The field of a rule says an option's; only the papers' settings say others."""
    written = [
        found
        for room in ("optimizers", "transforms")
        for file in (PACKAGE / room).rglob("*.py")
        for found in defaults_in(file)
        if found[0] != "levenberg_marquardt"  # its first damping, and whether it has momentum
    ]
    options = {name for rule in RULES.values() for name in fields_of(rule)}
    classes = {rule.__name__ for rule in RULES.values()}
    for where, name in written:
        assert name not in options or where in {*classes, "paper"}, (where, name)
    for rule in set(RULES.values()):
        own = [name for where, name in written if where == rule.__name__]
        assert len(own) == len(set(own))
    common = set(options_of("scale_by_rule")) | {"weight_decay", "mask", "fallback"}
    for name in common:
        where = {place for place, one in written if one == name}
        # A rule may say what of the common ones suits it.
        assert where - {"Recipe", *classes} in ({"scale_by_rule"}, {"optimizer"}), (name, where)
    assert not common & options


@pytest.mark.parametrize("name", RULES)
def test_defaults_of_the_rule_are_those_of_both(name):
    fields = fields_of(RULES[name])
    recipe = options_of(name)
    own = RULES[name].recipe
    assert {key: recipe[key] for key in fields} == fields
    for key in ("momentum", "nesterov", "update_rms", "grafting"):
        assert recipe[key] == getattr(own, key)
    if name != "ingd":
        scale = options_of(f"scale_by_{name}")
        assert {key: scale[key] for key in fields} == fields
        assert {key: scale[key] for key in scale if key not in fields} == {
            key: default for key, default in options_of("scale_by_rule").items() if key in scale
        }


def test_unknown_and_renamed_options():
    layers = problem()[1]
    for name in RULES:
        with pytest.raises(
            TypeError,
            match=rf"{name}\(\) has no option `wieght_decay`.*Did you "
            "mean 'weight_decay'",
        ):
            made(name, wieght_decay=0.1)
        with pytest.raises(TypeError, match=r"no option `consistent_rms`\. It is now `update_rms`"):
            made(name, consistent_rms=0.2)
        with pytest.raises(TypeError, match=r"no option `kl_learning_rate`.*KLClip\(bound, learn"):
            made(name, kl_learning_rate=0.2)
    with pytest.raises(TypeError, match=r"shampoo\(\) has no option `b1`\. It is now `momentum`"):
        singd_optax.shampoo(0.1, b1=0.9)
    with pytest.raises(TypeError, match=r"`block_size`\. It is now `structures='block_diagonal"):
        singd_optax.scale_by_caspr(block_size=512)
    with pytest.raises(TypeError, match=r"scale_by_kfac\(\) has no option `dampign`.*'damping'"):
        singd_optax.scale_by_kfac(layers, dampign=0.1)
    with pytest.raises(TypeError, match=r"optimizer\(\) has no option `momentun`.*'momentum'"):
        optimizer(0.1, SINGD(), layers, momentun=0.9)
    with pytest.raises(TypeError, match=r"singd\(\) has no option `structures`"):
        singd_optax.singd(0.1, layers, structures="dense")  # layers have their own


def test_one_size():
    layers = problem()[1]
    for name in RULES:
        for two in ({"kl_clip": 1e-3, "update_rms": 0.2}, {"grafting": "sgd", "kl_clip": 1e-3}):
            with pytest.raises(ValueError, match="both set the size of the update"):
                made(name, **two)
        made(name, kl_clip=1e-3)
        made(name, grafting="adam")
        made(name, update_rms=None)
    # A bound alone takes the recipe's learning rate.
    params, _, x, y = problem()
    rates = [singd_optax.kfac(0.3, layers, kl_clip=clip) for clip in (1e-4, KLClip(1e-4, 0.3))]
    moved = [run(tx, layers, params, x, y, steps=1)[0] for tx in rates]
    assert_close(*moved)


class Seen(NamedTuple):
    """What the rule below saw last."""

    gradient: Entries
    vector: Entries


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watching(Rule):
    """Three times what it gets, and keeps what it saw."""

    State: ClassVar[type] = Seen

    def init(self, view):
        zeros = jnp.zeros((*view.stack_shape, *view.dims), view.statistics_dtype)
        return Seen(zeros, zeros)

    def observe(self, view, state, gradient, count):
        return state._replace(gradient=gradient)

    def refresh(self, view, state, statistics, gradient, count, key):
        return state, True

    def direction(self, view, state, vector, gradient, count):
        return 3 * vector, state._replace(vector=vector)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchingUpdates(Watching):
    """The same, with an average of updates."""

    momentum_of: ClassVar = "update"


@pytest.mark.parametrize("nesterov", [False, True])
def test_rules_see_gradients_and_turn_momentum(nesterov):
    draws = [{"w": jnp.asarray(draw)} for draw in np.random.default_rng(0).normal(size=(3, 4, 2))]
    first, second, third = (np.asarray(draw["w"], float) for draw in draws)
    tx = scale_by_rule(Watching(), momentum=0.5, nesterov=nesterov)
    state = tx.init(draws[0])
    for gradient in draws:
        updates, state = tx.update(gradient, state)
    ball = third + 0.5 * second + 0.25 * first
    vector = third + 0.5 * ball if nesterov else ball
    own = state.rule_states["w"]
    np.testing.assert_allclose(own.gradient, third, rtol=1e-6)
    np.testing.assert_allclose(own.vector, vector, rtol=1e-6)
    np.testing.assert_allclose(updates["w"], 3 * vector, rtol=1e-6)
    np.testing.assert_allclose(state.rule_momentum["w"], ball, rtol=1e-6)

    tx = scale_by_rule(WatchingUpdates(), momentum=0.5, nesterov=nesterov)
    want = optax.chain(optax.scale(3.0), optax.ema(0.5))
    state, plain = tx.init(draws[0]), want.init(draws[0])
    for gradient in draws:
        updates, state = tx.update(gradient, state)
        expected, plain = want.update(gradient, plain)
    own = state.rule_states["w"]
    np.testing.assert_allclose(own.vector, third, rtol=1e-6)
    mean = expected["w"] * (1 - 0.5**3)
    ahead = (0.5 * mean + 0.5 * 3 * third) / (1 - 0.5**4)
    np.testing.assert_allclose(updates["w"], ahead if nesterov else expected["w"], rtol=1e-5)


@pytest.mark.parametrize("name", ["singd", "shampoo"])
def test_momentum_is_kept_like_parameters(name):
    params, layers, x, y = problem()
    tx = made(name, accumulator_dtype="bfloat16")
    state = tx.init(params)
    buffer = Leaves(optax.tree.get(state, "rule_momentum"))
    own = (
        {path for spec in layers.values() for path in spec.shapes}
        if name == "singd"
        else {path for path in Leaves(params) if Leaves(params)[path].ndim > 1}
    )
    arrays = {path: buffer[path] for path in buffer if hasattr(buffer[path], "shape")}
    assert set(arrays) == own
    for path, leaf in arrays.items():
        assert leaf.dtype == jnp.bfloat16
        assert leaf.shape == Leaves(params)[path].shape
    _, after, _ = run(tx, layers, params, x, y, steps=2)
    assert describe(after) == describe(state)

    mapped = optax.tree.map_params(
        tx, lambda leaf: jnp.full_like(leaf, 7), after, transform_non_params=lambda leaf: leaf
    )
    for leaf in jax.tree.leaves(optax.tree.get(mapped, "rule_momentum")):
        np.testing.assert_array_equal(leaf, jnp.full_like(leaf, 7))
    for field in ("rule_states", "size_states", "rule_count"):
        jax.tree.map(
            np.testing.assert_array_equal,
            optax.tree.get(mapped, field),
            optax.tree.get(after, field),
        )

    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    shardings = jax.tree.map(lambda p: NamedSharding(mesh, PartitionSpec(*[None] * p.ndim)), params)
    shardings["first"]["kernel"] = NamedSharding(mesh, PartitionSpec(None, "data"))
    found = state_shardings(tx.init, params, shardings)
    of_buffer = Leaves(optax.tree.get(found, "rule_momentum"))
    assert of_buffer["first/kernel"].spec == PartitionSpec(None, "data")


IDENTITIES = pytest.mark.parametrize("rule", [Shampoo, InverseFreeShampoo, CASPR])


@IDENTITIES
def test_no_side_is_the_gradient(rule):
    """With no factor at all what is left is the gradient, and a state without numbers there."""
    gradient = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)}
    tx = scale_by_rule(rule(), structures=Identity())
    state = tx.init(gradient)
    for _ in range(2):
        updates, state = jit(tx.update)(gradient, state)
        np.testing.assert_array_equal(updates["w"], gradient["w"])
    own = state.rule_states["w"]
    for name, part in zip(own._fields, own, strict=True):
        if name in ("K", "C", "m_K", "m_C", "L", "R"):
            assert isinstance(part, IdentityMatrix)
            assert jax.tree.leaves(part) == []
    assert singd_optax.factors(state)["w"].K.structure == Identity()
    assert int(state.skipped_refreshes["w"]) == 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("stacked", [False, True])
def test_one_sided_shampoo(side, stacked):
    """(Σ G Gᵀ)^(-1/2) G, and the like for columns, by float64 eigenvalues."""
    shape = (3, 4, 5) if stacked else (4, 5)
    draws = np.random.default_rng(1).normal(size=(4, *shape))
    structures = ("dense", "identity") if side == 0 else ("identity", "dense")
    axes = {"w": ((1,), (2,))} if stacked else None
    tx = singd_optax.scale_by_shampoo(
        b2=None, eps=1e-8, root=2, structures=structures, matrix_axes=axes
    )
    state = tx.init({"w": jnp.asarray(draws[0])})
    update = jit(tx.update)
    for draw in draws:
        updates, state = update({"w": jnp.asarray(draw)}, state)

    def oracle(history):
        turned = [g if side == 0 else g.T for g in history]
        values, vectors = np.linalg.eigh(sum(g @ g.T for g in turned))
        root = (vectors * (values + 1e-8 * values[-1]) ** -0.5) @ vectors.T
        direction = root @ turned[-1]
        return direction if side == 0 else direction.T

    want = np.stack([oracle(draws[:, i]) for i in range(3)]) if stacked else oracle(draws)
    np.testing.assert_allclose(updates["w"], want, rtol=1e-6, atol=1e-9)
    own = state.rule_states["w"]
    assert jax.tree.leaves((own.C, own.R) if side == 0 else (own.K, own.L)) == []


@pytest.mark.parametrize("name", ["singd", "ikfac"])
@pytest.mark.parametrize("structures", [("dense", "identity"), ("identity", "dense")])
def test_one_sided_layers(name, structures):
    params, layers, x, y = problem()
    layers = layers.replace("", structures=structures)
    tx = getattr(singd_optax, name)(0.05, layers)
    _, opt_state, values = run(tx, layers, params, x, y, steps=20)
    assert values[-1] < 0.8 * values[0]
    bare = 1 if structures[1] == "identity" else 0
    for pair in singd_optax.factors(opt_state).values():
        assert jax.tree.leaves(pair[bare]) == []
        moved = pair[1 - bare].to_dense()
        assert math.isfinite(float(moved.sum()))
        assert not np.allclose(moved / moved[0, 0], np.eye(len(moved)), atol=1e-3)
    assert not any(map(int, optax.tree.get(opt_state, "skipped_refreshes").values()))

    step = make_step(tx, layers).__wrapped__
    several = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p]), params)
    state = jax.vmap(tx.init)(several)
    together = jit(jax.vmap(step, in_axes=(0, 0, None, None)))
    for _ in range(3):
        several, state, _ = together(several, state, x, y)
    alone, *_ = run(tx, layers, params, x, y, steps=3)
    assert_close(jax.tree.map(lambda p: p[0], several), alone, 2e-3, 1e-4)


def test_one_sided_stacks():
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.tanh(nn.Dense(5, name="layer")(x)), None

    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(Body, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            return nn.Dense(3, name="head")(scan(name="body")(x, None)[0])

    _, _, x, y = problem()
    params = Stack().init(jax.random.key(1), x)["params"]

    def stack_loss(params, x, y):
        logits = Stack().apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    layers = singd_optax.find_layers(stack_loss, params, x, y, structures=("dense", "identity"))
    tx = singd_optax.singd(0.05, layers)
    step, state = make_step(tx, layers, stack_loss), tx.init(params)
    values = []
    for _ in range(20):
        params, state, value = step(params, state, x, y)
        values.append(float(value))
    assert values[-1] < 0.8 * values[0]
    pair = singd_optax.factors(state)["body/layer"]
    assert pair.K.to_dense().shape == (3, 6, 6)
    assert jax.tree.leaves(pair.C) == []
    assert step._cache_size() == 1
