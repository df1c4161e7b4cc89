"""KFAC against explicit inverses, and IKFAC's approach to it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import loss_fn, problem

import singd_optax
from singd_optax.layers import LayerSpec, Stacking
from singd_optax.layers._tree import Leaves
from singd_optax.measures import Statistics
from singd_optax.optimizers import IKFAC, KFAC
from singd_optax.structures import parse_structures
from singd_optax.transforms import KLClip
from singd_optax.transforms._refreshing import stored, widened

pytestmark = pytest.mark.usefixtures("x64")

FAN_IN, FAN_OUT = 6, 4
KEY = jax.random.key(0)


def make_spec(structures="dense", factor_dtype="float64", stack=()):
    return LayerSpec(
        path="layer",
        kind="dense",
        kernel_path="layer/kernel",
        kernel_shape=(*stack, FAN_IN, FAN_OUT),
        stacking=Stacking((0,) * len(stack)),
        dtype="float64",
        structures=parse_structures(structures),
        factor_dtype=(factor_dtype, factor_dtype),
    )


def moment(dim, seed, stack=()):
    rows = jax.random.normal(jax.random.key(seed), (*stack, 3 * dim, dim))
    return jnp.einsum("...ni,...nj->...ij", rows, rows) / (3 * dim)


def plain(spec, U, G):
    """What capture hands to KFAC."""
    pairs = zip(spec.structures, (U, G), strict=True)
    mean = lambda m: jnp.trace(m, axis1=-2, axis2=-1) / m.shape[-1]
    return Statistics(*(s.project(m) for s, m in pairs), mean(U), mean(G))


def run(rule, spec, moments, count=0):
    state = rule.init(spec)
    for i, (U, G) in enumerate(moments):
        step = jnp.asarray(count + i)
        wide = widened(spec, state)
        new, _ = rule.refresh(spec, wide, plain(spec, U, G), None, step, KEY)
        state = stored(spec, wide, new, state, KEY, 0)
    return state


def natural(rule, spec, state, gradient):
    """The gradient, preconditioned."""
    return rule.direction(spec, state, gradient, gradient, jnp.asarray(0))[0]


def averages(moments, rate, corrected):
    S = [jnp.zeros_like(m) if corrected else jnp.eye(len(m)) for m in moments[0]]
    for pair in moments:
        S = [(1 - rate) * s + rate * m for s, m in zip(S, pair, strict=True)]
    return [s / (1 - (1 - rate) ** len(moments)) for s in S] if corrected else S


@pytest.fixture
def moments(x64):
    return [(moment(FAN_IN, i), 1e-3 * moment(FAN_OUT, 10 + i)) for i in range(3)]


@pytest.fixture
def gradient(x64):
    return jax.random.normal(jax.random.key(5), (FAN_IN, FAN_OUT))


def masks(spec):
    return [
        s.project(jnp.ones((d, d))).to_dense()
        for s, d in zip(spec.structures, spec.dims, strict=True)
    ]


@pytest.mark.parametrize("structures", ["dense", "diagonal", ("block_diagonal:4", "dense")])
@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("mode", ["absolute", "relative"])
@pytest.mark.parametrize("use_pi", [True, False])
def test_factored_damping(structures, corrected, mode, use_pi, moments, gradient):
    spec = make_spec(structures)
    rule = KFAC(
        damping=0.02,
        damping_mode=mode,
        factor_learning_rate=0.3,
        bias_correction=corrected,
        use_pi=use_pi,
    )
    state = run(rule, spec, moments)
    S_K, S_C = (
        s * mask for s, mask in zip(averages(moments, 0.3, corrected), masks(spec), strict=True)
    )
    means = jnp.trace(S_K) / FAN_IN, jnp.trace(S_C) / FAN_OUT
    damping = 0.02 * (means[0] * means[1] if mode == "relative" else 1)
    pi = jnp.sqrt(means[0] / means[1]) if use_pi else 1
    inverses = (
        jnp.linalg.inv(S_K + pi * damping**0.5 * jnp.eye(FAN_IN)),
        jnp.linalg.inv(S_C + damping**0.5 / pi * jnp.eye(FAN_OUT)),
    )
    for got, want in zip(state[:2], inverses, strict=True):
        np.testing.assert_allclose(got.to_dense(), want, rtol=1e-9, atol=1e-9)
    want = inverses[0] @ gradient @ inverses[1]
    np.testing.assert_allclose(natural(rule, spec, state, gradient), want, rtol=1e-9)


@pytest.mark.parametrize("structures", ["dense", "diagonal", ("block_diagonal:4", "dense")])
@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_undivided_damping_is_the_explicit_inverse(structures, mode, moments, gradient):
    spec = make_spec(structures)
    rule = KFAC(damping=0.02, damping_mode=mode, factor_learning_rate=0.3, inverse_method="eigh")
    state = run(rule, spec, moments)
    S_K, S_C = (s * mask for s, mask in zip(averages(moments, 0.3, True), masks(spec), strict=True))
    means = jnp.trace(S_K) / FAN_IN * jnp.trace(S_C) / FAN_OUT
    damping = 0.02 * (means if mode == "relative" else 1)
    matrix = jnp.kron(S_K, S_C) + damping * jnp.eye(FAN_IN * FAN_OUT)
    want = jnp.linalg.solve(matrix, gradient.reshape(-1)).reshape(gradient.shape)
    np.testing.assert_allclose(natural(rule, spec, state, gradient), want, rtol=1e-8)


@pytest.mark.parametrize("method", ["cholesky", "eigh"])
def test_stack_is_separate_layers(method, gradient):
    U, G = moment(FAN_IN, 0, (3,)), moment(FAN_OUT, 1, (3,))
    rule = KFAC.paper(damping=0.1)
    rule = dataclasses.replace(rule, inverse_method=method)
    spec = make_spec(stack=(3,))
    gradients = jnp.stack([gradient, 2 * gradient, gradient**2])
    got = natural(rule, spec, run(rule, spec, [(U, G)]), gradients)
    for i in range(3):
        single = run(rule, make_spec(), [(U[i], G[i])])
        want = natural(rule, make_spec(), single, gradients[i])
        np.testing.assert_allclose(got[i], want, rtol=1e-9)


def test_inverse_every(moments):
    spec, rule = make_spec(), KFAC(damping=0.1, inverse_every=4)
    state = rule.init(spec)
    refresh = jax.jit(lambda state, s, c: rule.refresh(spec, state, s, None, c, KEY)[0])
    inverted = []
    for step in (0, 2, 4, 5, 9, 10):
        new = refresh(state, plain(spec, *moments[step % 3]), step)
        if not np.array_equal(new.K.entries, state.K.entries):
            inverted.append(step)
        state = new
    assert inverted == [0, 4, 9]
    assert int(state.averaged) == 6


def test_bfloat16_inverses_are_formed_in_full(moments):
    spec = make_spec(factor_dtype="bfloat16")
    state = run(KFAC.paper(damping=0.1), spec, moments)
    full = run(KFAC.paper(damping=0.1), make_spec(), moments)
    assert state.K.dtype == jnp.bfloat16
    assert state.S_K.dtype == jnp.float64
    np.testing.assert_allclose(state.K.to_dense().astype(float), full.K.to_dense(), atol=2e-2)


def test_ikfac_tends_to_kfac_with_the_square_of_its_step(moments):
    """K Kᵀ - (S_K + λ I)^-1 = O(b1²) from the same start, on the same moments."""
    spec, damping = make_spec(), 0.1
    start = [moment(FAN_IN, 7), moment(FAN_OUT, 8)]
    rates, gaps = (1e-2, 1e-3, 1e-4), []
    for rate in rates:
        S = start
        roots = [jnp.linalg.cholesky(jnp.linalg.inv(s + damping * jnp.eye(len(s)))) for s in S]
        ikfac = IKFAC.paper(damping=damping, factor_learning_rate=rate)
        kfac = KFAC(
            damping=damping**2,
            damping_mode="absolute",
            factor_learning_rate=rate,
            use_pi=False,
            bias_correction=False,
        )
        projected = lambda pair: (s.project(m) for s, m in zip(spec.structures, pair, strict=True))
        factors = ikfac.init(spec)._replace(**dict(zip("KC", projected(roots), strict=True)))
        S_K, S_C = projected(start)
        inverses = kfac.init(spec)._replace(S_K=S_K, S_C=S_C)
        for i, (U, G) in enumerate(moments):
            K, C = (f.to_dense() for f in factors[:2])
            whitened = plain(spec, K.T @ U @ K, C.T @ G @ C)
            step = jnp.asarray(i)
            factors, _ = ikfac.refresh(spec, factors, whitened, None, step, KEY)
            inverses, _ = kfac.refresh(spec, inverses, plain(spec, U, G), None, step, KEY)
        product = factors.K.to_dense() @ factors.K.to_dense().T
        gaps.append(float(jnp.abs(product - inverses.K.to_dense()).max()))
    slopes = np.diff(np.log(gaps)) / np.diff(np.log(rates))
    np.testing.assert_allclose(slopes, 2, atol=0.15)


def test_singular_moments_and_errors(gradient):
    spec = make_spec()
    singular = jnp.zeros((FAN_IN, FAN_IN)).at[0, 0].set(1.0)
    for method in ("cholesky", "eigh"):
        rule = dataclasses.replace(KFAC.paper(damping=1e-4), inverse_method=method)
        state = run(rule, spec, [(singular, moment(FAN_OUT, 1))])
        assert np.isfinite(natural(rule, spec, state, gradient)).all()
    with pytest.raises(ValueError, match=r"'dense', 'diagonal' or 'block_diagonal.*Hierarchical"):
        KFAC(damping=0.1).init(make_spec("hierarchical:2,2"))
    with pytest.raises(ValueError, match="damping"):
        KFAC(damping=0.0)
    with pytest.raises(ValueError, match="inverse_method"):
        KFAC(damping=0.1, inverse_method="lu")


@pytest.mark.parametrize("name", ["kfac", "singd", "ikfac"])
def test_kl_clip_bounds_the_change_of_predictions(name):
    """η² Σ ∇ᵀ P ∇ over all layers is the bound where it was above, and as it was where below."""
    params, layers, x, y = problem()
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    changes = []
    for bound in (None, 1e-4, 1e6):
        scale_by = getattr(singd_optax, f"scale_by_{name}")
        tx = scale_by(layers, kl_clip=None if bound is None else KLClip(bound, learning_rate=0.3))
        state = tx.init(params)
        _, grads, curvature = grad_fn(params, x, y, opt_state=state)
        updates, _ = tx.update(grads, state, params, curvature=curvature)
        paths = [path for spec in layers.values() for path in spec.shapes]
        before, after = Leaves(grads), Leaves(updates)
        changes.append(0.09 * sum(float(jnp.vdot(before[p], after[p])) for p in paths))
        scale = np.asarray(updates["norm"]["scale"] / grads["norm"]["scale"])
        np.testing.assert_allclose(scale, 1, rtol=1e-6)  # no Kronecker layer: passes through
    free, clipped, loose = changes
    # The products shrink with the scale once, their bound is on its square.
    np.testing.assert_allclose(clipped / free, np.sqrt(1e-4 / free), rtol=1e-5)
    np.testing.assert_allclose(loose, free)
    getattr(singd_optax, name)(1e-2, layers, kl_clip=1e-3)  # in place of the recipe's own size
    match = "`update_rms` and `kl_clip` both set the size of the update"
    with pytest.raises(ValueError, match=match):
        getattr(singd_optax, name)(1e-2, layers, kl_clip=1e-3, update_rms=0.8)
