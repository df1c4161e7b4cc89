"""Polar factors against singular values; polar directions against Muon, roots, and each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from test_sharding import stack_problem

import singd_optax
from singd_optax.optimizers import CASPR, IKFAC, KFAC, SINGD, InverseFreeShampoo, Shampoo
from singd_optax.rules import Polar, coefficients_of, polar_factor
from singd_optax.sharding import spread, state_shardings
from singd_optax.structures import STRUCTURES
from singd_optax.testing._rule_problem import (
    Setup,
    directions_of,
    layers_of,
    steps_of,
)

SHAPES = ((5, 6), (6, 5), (2, 3, 4, 9), (12, 3), (1, 4))
factor = jax.jit(polar_factor, static_argnames=("iteration", "steps", "dtype"))


def drawn(shape, seed=0, dtype=None):
    """With singular values over two decades."""
    rng = np.random.default_rng(seed)
    scale = np.geomspace(1, 1e-2, shape[-1])
    return jnp.asarray(rng.normal(size=shape) * scale, dtype)


def exact(matrix, softness=0.0):
    U, values, V = np.linalg.svd(np.asarray(matrix, float), full_matrices=False)
    e = softness * np.sqrt((values**2).mean(-1, keepdims=True))
    return (U * (values / np.sqrt(values**2 + e**2))[..., None, :]) @ V


def nearest(matrix, softness=0.0):
    """The multiple of the factor that is nearest to the matrix."""
    found = exact(matrix, softness)
    return found * (found * matrix).sum() / (found**2).sum()


def off(got, want):
    return float(np.abs(np.asarray(got, float) - want).max() / np.abs(want).max())


@pytest.mark.parametrize("shape", [(5, 6), (6, 5), (12, 3), (3, 12)])
def test_muon(shape, x64):
    """Without factors, the direction of optax.contrib.muon, whichever form the iteration has."""
    params = {"w": drawn(shape)}
    axes = {"w": optax.contrib.MuonDimensionNumbers(0, 1)}
    muon = optax.contrib.scale_by_muon(
        beta=0.9, nesterov=False, eps=0.0, weight_dimension_numbers=axes
    )
    own = singd_optax.scale_by_inverse_free_shampoo(
        structures="identity", direction="polar", momentum=0.9, factor_dtype="float64"
    )
    states = muon.init(params), own.init(params)
    for seed in range(3):
        gradients = {"w": drawn(shape, seed)}
        want, muon_state = muon.update(gradients, states[0], params)
        got, own_state = own.update(gradients, states[1], params)
        states = muon_state, own_state
        # Ours has the size of the momentum, so that it fades with the gradient.
        got, want = (np.asarray(u["w"]) / np.linalg.norm(u["w"]) for u in (got, want))
        assert off(got, want) < 1e-10


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("preset", ["quintic", "polar_express"])
def test_longer_iterations_are_exact(shape, preset, x64):
    matrix, want = drawn(shape), exact(drawn(shape))
    errors = [off(factor(matrix, iteration=preset, steps=n), want) for n in (2, 6, 40)]
    assert errors[0] > errors[1] > errors[2] or shape[0] == 1
    assert errors[2] < 1e-11
    narrow = factor(matrix.astype("float32"), iteration=preset, steps=40)
    assert narrow.dtype == "float32"
    assert off(narrow, want) < 3e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_soft_factors(shape, x64):
    matrix = drawn(shape)
    for softness in (0.1, 0.5, 3.0):
        got = factor(matrix, softness=softness, iteration="quintic", steps=30)
        assert off(got, exact(matrix, softness)) < 1e-10
        # By rows, as in bfloat16.
        own = factor(matrix, softness=softness, iteration="quintic", steps=30, dtype="float32")
        assert off(own, exact(matrix, softness)) < 3e-6
    each = jnp.full((*shape[:-2], 1, 1), softness)
    assert off(factor(matrix, softness=each, iteration="quintic", steps=30), got) < 1e-10
    cubic = ((1.5, -0.5, 0.0),) * 60
    assert off(factor(matrix, softness=softness, iteration=cubic), got) < 1e-11


def test_without_rank_and_without_size():
    """Zeros stay zeros; matrices of low rank, and of any size; what is not finite is NaN."""
    zeros = polar_factor(jnp.zeros((2, 3, 5)), softness=0.5)
    assert (zeros == 0).all()
    assert (polar_factor(jnp.zeros((4, 4))) == 0).all()
    low = drawn((8, 2)) @ drawn((2, 9), 1)
    for iteration in ("muon", "polar_express"):
        got = np.asarray(polar_factor(low, iteration=iteration))
        assert 0.6 < np.linalg.norm(got, 2) < 1.3
        assert np.linalg.svd(got, compute_uv=False)[2] < 1e-3
    for scale in (1e-30, 1e30):
        scaled = polar_factor(low.astype("float32") * jnp.float32(scale))
        assert off(scaled, np.asarray(polar_factor(low.astype("float32")))) < 1e-3
    for bad in (jnp.nan, jnp.inf):
        assert not jnp.isfinite(polar_factor(jnp.ones((3, 3)).at[0, 0].set(bad))).any()
    pair = jnp.stack([jnp.zeros((3, 3)), jnp.ones((3, 3)) * jnp.nan])
    assert jnp.isfinite(polar_factor(pair)[0]).all()  # those of a stack are apart


@pytest.mark.parametrize("softness", [0.0, 0.5])
def test_in_bfloat16(softness):
    """Steep first steps make a few hundredths of its roundings, as in Muon everywhere."""
    for shape in ((24, 32), (64, 16)):
        matrix = jax.random.normal(jax.random.key(0), shape)
        for iteration in ("muon", "polar_express"):
            made = functools.partial(polar_factor, matrix, softness=softness, iteration=iteration)
            want = np.asarray(made())
            got = np.asarray(made(dtype="bfloat16"))
            assert np.linalg.norm(got - want) < 0.05 * np.linalg.norm(want)


def structured(structure, dim, seed):
    """A random matrix of a structure, far from I, in float64."""
    square = np.random.default_rng(seed).normal(size=(dim, dim))
    matrix = structure.project(jnp.asarray(square + square.T)) * 0.3
    return matrix.add_identity(1.0) if hasattr(matrix, "add_identity") else matrix


EXAMPLES = [example for entry in STRUCTURES for example in entry.examples]


def stated(rule, K, C):
    """A view and a state of the rule with these factors."""
    view = layers_of(Setup("dense"))["single"]
    structures = tuple(M.structure for M in (K, C))
    view = dataclasses.replace(view, structures=structures, factor_dtype=("float64",) * 2)
    return view, rule.init(view)._replace(K=K, C=C, product_K=None, product_C=None)


@pytest.mark.parametrize("structure", EXAMPLES, ids=repr)
def test_every_structure(structure, x64):
    """K polar(Kᵀ M C) Cᵀ, and without bound of softness K Kᵀ M C Cᵀ."""
    rule = SINGD(cache_products=False)
    K, C = structured(structure, 6, 0), structured(structure, 3, 1)
    view, state = stated(rule, K, C)
    M = drawn((6, 3))
    k, c = (np.asarray(F.to_dense()) for F in (K, C))
    W = k.T @ np.asarray(M) @ c
    args = view, state, M, M, jnp.int32(0)
    for softness in (0.0, 0.7):
        polar = Polar(rule, softness=softness, iteration="quintic", steps=40)
        want = k @ nearest(W, softness) @ c.T
        got = polar.direction(*args)[0]
        assert off(got, want) < 1e-9
        # What kl_clip takes for the change of predictions is it.
        np.testing.assert_allclose(np.vdot(M, got), (nearest(W, softness) ** 2).sum())
    natural = np.asarray(rule.direction(*args)[0])
    far = Polar(rule, softness=1e6, iteration="quintic", steps=40)
    assert off(far.direction(*args)[0], natural) < 1e-9


def test_rotations_of_factors(x64):
    """K -> K Q and C -> C Q' change nothing; nor does the eigen-form with roots of K Kᵀ."""
    rule = Polar(SINGD(cache_products=False))
    K, C = structured(EXAMPLES[0], 6, 0), structured(EXAMPLES[0], 3, 1)
    M = drawn((6, 3))
    k, c = (np.asarray(F.to_dense()) for F in (K, C))
    rng = np.random.default_rng(2)

    def direction(k, c, rule=rule):
        made = [type(K)(jnp.asarray(F)) for F in (k, c)]
        view, state = stated(rule.rule, *made)
        return np.asarray(rule.direction(view, state, M, M, jnp.int32(0))[0])

    want = direction(k, c)
    turned = [F @ np.linalg.qr(rng.normal(size=F.shape))[0] for F in (k, c)]
    assert off(direction(*turned), want) < 1e-10
    roots = []
    for F in (k, c):
        values, vectors = np.linalg.eigh(F @ F.T)
        roots.append(vectors * np.sqrt(values) @ vectors.T)
    assert off(direction(*roots), want) < 1e-10
    W = roots[0] @ np.asarray(M) @ roots[1]
    eigen_form = roots[0] @ nearest(W) @ roots[1]
    long = Polar(SINGD(cache_products=False), iteration="polar_express", steps=12)
    assert off(direction(k, c, long), eigen_form) < 1e-11


def test_kfac(x64):
    """Roots whiten what inverses precondition; eigenvectors too, with their own damping."""
    steps = steps_of(0, 2)
    setup = Setup("dense")
    for method in ("cholesky", "eigh"):
        rule = KFAC.paper(1e-2)
        rule = dataclasses.replace(rule, inverse_method=method)
        want, _ = directions_of(rule, setup, steps)
        far = Polar(rule, softness=1e6, iteration="quintic", steps=30)
        got, state = directions_of(far, setup, steps)
        for path in want:
            assert off(got[path][-1], want[path][-1]) < 1e-9
        assert state.rule_tag.name == "KFAC"
    # Where damping vanishes, both are the same.
    both = [
        directions_of(
            Polar(KFAC(damping=1e-9, inverse_method=method, use_pi=False), softness=0.5),
            setup,
            steps,
        )[0]["stack"][-1]
        for method in ("cholesky", "eigh")
    ]
    assert off(*both) < 1e-3


def test_a_state_goes_on_with_either_direction():
    params = {"w": drawn((4, 3), dtype="float32")}
    natural, polar = (
        singd_optax.inverse_free_shampoo(0.1, direction=d) for d in ("natural", "polar")
    )
    _, state = natural.update(params, natural.init(params), params)
    updates, _ = polar.update(params, state, params)
    assert jnp.isfinite(updates["w"]).all()


def test_a_direction_fades_with_its_gradients():
    """It is linear in the length of the momentum, as the natural one is."""
    tx = singd_optax.scale_by_inverse_free_shampoo(direction="polar", refresh_every=100)
    params = {"w": drawn((4, 3), dtype="float32")}
    _, state = tx.update(params, tx.init(params))
    large, small = (
        tx.update(jax.tree.map(lambda p, s=s: p * s, params), state)[0]["w"] for s in (1, 1e-6)
    )
    np.testing.assert_allclose(small, large * 1e-6, rtol=1e-4)
    dead, _ = tx.update(jax.tree.map(jnp.zeros_like, params), state)
    assert (dead["w"] == 0).all()


def test_schedules_and_numbers_that_are_injected():
    params = {"w": drawn((4, 3), dtype="float32")}
    schedule = optax.piecewise_constant_schedule(0.5, {1: 0.0})
    make = lambda softness: singd_optax.scale_by_inverse_free_shampoo(
        direction="polar", softness=softness
    )
    scheduled, constant, hard = (make(s) for s in (schedule, 0.5, 0.0))
    own, soft = scheduled.init(params), constant.init(params)
    for other in (constant, hard):
        got, after = scheduled.update(params, own)
        want, soft = other.update(params, soft)
        own = after
        np.testing.assert_allclose(got["w"], want["w"], rtol=1e-4, atol=1e-5)
    injected = optax.inject_hyperparams(singd_optax.inverse_free_shampoo, static_args="direction")(
        0.1, direction="polar", softness=0.5
    )
    state = injected.init(params)
    assert state.hyperparams["softness"] == 0.5
    want, _ = singd_optax.inverse_free_shampoo(0.1, direction="polar", softness=0.5).update(
        params, singd_optax.inverse_free_shampoo(0.1).init(params), params
    )
    got, _ = injected.update(params, state, params)
    np.testing.assert_allclose(got["w"], want["w"], rtol=1e-5)


def test_precision_reaches_every_product():
    def products(precision):
        factor = lambda w: polar_factor(w, softness=0.5, precision=precision)
        wide, tall = (str(jax.make_jaxpr(factor)(jnp.ones(s))) for s in ((4, 9), (4, 4)))
        return wide + tall

    for precision, name in (("highest", "HIGHEST"), ("default", "DEFAULT")):
        text = products(precision)
        assert (
            text.count(f"precision=Precision.{name}") + text.count(f"precision=(Precision.{name}")
            == text.count("dot_general[")
            > 0
        )
    assert Polar(SINGD(precision="high")).precision == "high"


RUNS = [
    ("data", "Auto", "follow"),
    ("fsdp", "Auto", "rows"),
    ("tensor", "Auto", "layers"),
    ("data x tensor", "Explicit", "rows"),
]


def polar_tx(layers, softness=0.0):
    return singd_optax.singd(2.5e-3, layers, refresh_every=3, direction="polar", softness=softness)


@functools.cache
def alone(softness):
    params, batch, layers = meshes.problem()
    tx = polar_tx(layers, softness)
    step = jax.jit(meshes.make_step(tx, layers), compiler_options=meshes.QUICK)
    return meshes.run(step, params, tx.init(params), batch, 8)


@pytest.mark.parametrize(("layout", "kind", "strategy"), RUNS)
def test_trajectory_on_a_mesh(layout, kind, strategy):
    setup = meshes.setup(layout, kind, strategy)
    softness = 0.5 if kind == "Explicit" else 0.0
    tx = polar_tx(setup.layers, softness)
    params = meshes.problem()[0]
    of_state = state_shardings(tx.init, params, setup.shardings, setup.layers)
    step = jax.jit(
        meshes.make_step(tx, setup.layers),
        out_shardings=(setup.shardings, of_state, NamedSharding(setup.mesh, P())),
        compiler_options=meshes.QUICK,
    )
    with setup.context():
        placed = jax.device_put(params, setup.shardings)
        state = jax.jit(tx.init, out_shardings=of_state)(placed)
        batch = jax.device_put(setup.batch, setup.of_batch)
        got = meshes.run(step, placed, state, batch, 8)
    want = alone(softness)
    np.testing.assert_allclose(got[2], want[2], rtol=1e-4)
    assert meshes.difference(got[0], want[0]) < 1e-3
    assert step._cache_size() == 1


@pytest.mark.parametrize("depth", [8, 1])
def test_work_is_split(depth):
    """A stack by its layers, one layer by its rows: no device iterates what another does."""
    params, layers = stack_problem("dense", depth)
    flops = {}
    for devices in (1, 8):
        mesh = meshes.make_mesh({"data": devices}, "Auto")
        shardings = jax.tree.map(lambda _, m=mesh: NamedSharding(m, P(None, "data", None)), params)
        placed = spread(layers, shardings)
        tx = singd_optax.scale_by_rule(Polar(SINGD.paper()), placed)
        of_state = state_shardings(tx.init, params, shardings, placed)
        state = jax.eval_shape(tx.init, params)
        curvature = {
            path: jax.eval_shape(lambda s=spec: singd_optax.measures.Statistics.zeros(s))
            for path, spec in placed.items()
        }
        update = lambda g, s, c, tx=tx: tx.update(
            g, s._replace(refresh_due=jnp.zeros([], jnp.int32)), curvature=c
        )
        jitted = jax.jit(
            update, in_shardings=(shardings, of_state, None), out_shardings=(shardings, of_state)
        )
        compiled = jitted.lower(params, state, curvature).compile(meshes.QUICK)
        flops[devices] = compiled.cost_analysis()["flops"]
    assert flops[8] < 0.2 * flops[1]


def test_errors():
    layers = layers_of(Setup("dense"))
    for rule in (Shampoo(), CASPR()):
        with pytest.raises(ValueError, match="has no factors that whiten"):
            Polar(rule)
        with pytest.raises(ValueError, match="Use direction='natural'"):
            singd_optax.scale_by_rule(rule, direction="polar")
    with pytest.raises(TypeError, match="`rule` must be a"):
        Polar(SINGD)
    with pytest.raises(ValueError, match=r"`direction` must be one of.*Did you mean 'polar'"):
        singd_optax.singd(0.1, layers, direction="pola")
    with pytest.raises(ValueError, match="`softness` is of direction='polar'"):
        singd_optax.singd(0.1, layers, softness=0.5)
    with pytest.raises(ValueError, match="a rule that has its own"):
        singd_optax.optimizer(0.1, Polar(IKFAC()), layers, softness=0.5)
    with pytest.raises(ValueError, match="`softness` must be"):
        singd_optax.singd(0.1, layers, direction="polar", softness=-1)
    with pytest.raises(ValueError, match="`iteration` must be one of"):
        Polar(SINGD(), iteration="cubic")
    with pytest.raises(TypeError, match="or triples"):
        Polar(SINGD(), iteration=(1.5, -0.5))
    with pytest.raises(ValueError, match="`steps` must be at most 1"):
        coefficients_of(((1.5, -0.5, 0.0),), 2)
    with pytest.raises(ValueError, match="`iteration_dtype` must be one of"):
        Polar(SINGD(), iteration_dtype="float16")
    with pytest.raises(ValueError, match="A polar factor is one of a matrix"):
        singd_optax.inverse_free_shampoo(0.1, direction="polar", matrix_axes={"w": "each"})
    each = singd_optax.find_matrices({"w": jnp.ones((2, 3, 4))}, matrix_axes={"w": "each"})
    with pytest.raises(ValueError, match="A polar factor is one of a matrix"):
        singd_optax.scale_by_rule(Polar(InverseFreeShampoo()), each)
