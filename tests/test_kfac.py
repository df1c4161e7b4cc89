"""KFAC against explicit inverses, and IKFAC's approach to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import loss_fn, problem

import singd_optax
from singd_optax.layers import Factors, LayerSpec, Leaves, Stacking, Statistics
from singd_optax.rules import IKFAC, KFAC
from singd_optax.structures import parse_structures

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
    factors, memory = rule.init(spec)
    for i, (U, G) in enumerate(moments):
        factors, memory = rule.refresh(
            spec, factors, memory, plain(spec, U, G), jnp.asarray(count + i), KEY
        )
    return factors, memory


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
    factors, _ = run(rule, spec, moments)
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
    for got, want in zip(factors, inverses, strict=True):
        np.testing.assert_allclose(got.to_dense(), want, rtol=1e-9, atol=1e-9)
    want = inverses[0] @ gradient @ inverses[1]
    np.testing.assert_allclose(rule.precondition(factors, gradient, None), want, rtol=1e-9)


@pytest.mark.parametrize("structures", ["dense", "diagonal", ("block_diagonal:4", "dense")])
@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_undivided_damping_is_the_explicit_inverse(structures, mode, moments, gradient):
    spec = make_spec(structures)
    rule = KFAC(damping=0.02, damping_mode=mode, factor_learning_rate=0.3, inverse_method="eigh")
    factors, _ = run(rule, spec, moments)
    S_K, S_C = (s * mask for s, mask in zip(averages(moments, 0.3, True), masks(spec), strict=True))
    means = jnp.trace(S_K) / FAN_IN * jnp.trace(S_C) / FAN_OUT
    damping = 0.02 * (means if mode == "relative" else 1)
    matrix = jnp.kron(S_K, S_C) + damping * jnp.eye(FAN_IN * FAN_OUT)
    want = jnp.linalg.solve(matrix, gradient.reshape(-1)).reshape(gradient.shape)
    np.testing.assert_allclose(rule.precondition(factors, gradient, None), want, rtol=1e-8)


@pytest.mark.parametrize("method", ["cholesky", "eigh"])
def test_stack_is_separate_layers(method, gradient):
    U, G = moment(FAN_IN, 0, (3,)), moment(FAN_OUT, 1, (3,))
    rule = KFAC(damping=0.1, inverse_method=method)
    stacked, _ = run(rule, make_spec(stack=(3,)), [(U, G)])
    gradients = jnp.stack([gradient, 2 * gradient, gradient**2])
    got = rule.precondition(stacked, gradients, None)
    for i in range(3):
        single, _ = run(rule, make_spec(), [(U[i], G[i])])
        np.testing.assert_allclose(got[i], rule.precondition(single, gradients[i], None), rtol=1e-9)


def test_inverse_every(moments):
    spec, rule = make_spec(), KFAC(damping=0.1, inverse_every=4)
    factors, memory = rule.init(spec)
    refresh = jax.jit(lambda f, m, s, c: rule.refresh(spec, f, m, s, c, KEY))
    inverted = []
    for step in (0, 2, 4, 5, 9, 10):
        new, memory = refresh(factors, memory, plain(spec, *moments[step % 3]), step)
        if not np.array_equal(new.K.entries, factors.K.entries):
            inverted.append(step)
        factors = new
    assert inverted == [0, 4, 9]
    assert int(memory.averaged) == 6


def test_bfloat16_inverses_are_formed_in_full(moments):
    spec = make_spec(factor_dtype="bfloat16")
    factors, memory = run(KFAC(damping=0.1), spec, moments)
    full, _ = run(KFAC(damping=0.1), make_spec(), moments)
    assert factors.K.dtype == jnp.bfloat16
    assert memory.S_K.dtype == jnp.float64
    np.testing.assert_allclose(factors.K.to_dense().astype(float), full.K.to_dense(), atol=2e-2)


def test_ikfac_tends_to_kfac_with_the_square_of_its_step(moments):
    """K Kᵀ - (S_K + λ I)^-1 = O(b1²) from the same start, on the same moments."""
    spec, damping = make_spec(), 0.1
    start = [moment(FAN_IN, 7), moment(FAN_OUT, 8)]
    rates, gaps = (1e-2, 1e-3, 1e-4), []
    for rate in rates:
        S = start
        roots = [jnp.linalg.cholesky(jnp.linalg.inv(s + damping * jnp.eye(len(s)))) for s in S]
        factors = Factors(*(s.project(r) for s, r in zip(spec.structures, roots, strict=True)))
        ikfac = IKFAC(damping=damping, factor_learning_rate=rate)
        kfac = KFAC(
            damping=damping**2, factor_learning_rate=rate, use_pi=False, bias_correction=False
        )
        inverses, memory = kfac.init(spec)
        memory = memory._replace(
            **{
                n: s.project(m)
                for n, s, m in zip(("S_K", "S_C"), spec.structures, start, strict=True)
            }
        )
        for i, (U, G) in enumerate(moments):
            K, C = (f.to_dense() for f in factors)
            whitened = plain(spec, K.T @ U @ K, C.T @ G @ C)
            factors, _ = ikfac.refresh(
                spec, factors, ikfac.init(spec)[1], whitened, jnp.asarray(i), KEY
            )
            inverses, memory = kfac.refresh(
                spec, inverses, memory, plain(spec, U, G), jnp.asarray(i), KEY
            )
        product = factors.K.to_dense() @ factors.K.to_dense().T
        gaps.append(float(jnp.abs(product - inverses.K.to_dense()).max()))
    slopes = np.diff(np.log(gaps)) / np.diff(np.log(rates))
    np.testing.assert_allclose(slopes, 2, atol=0.15)


def test_singular_moments_and_errors(gradient):
    spec = make_spec()
    singular = jnp.zeros((FAN_IN, FAN_IN)).at[0, 0].set(1.0)
    for method in ("cholesky", "eigh"):
        rule = KFAC(damping=1e-4, inverse_method=method)
        factors, _ = run(rule, spec, [(singular, moment(FAN_OUT, 1))])
        assert np.isfinite(rule.precondition(factors, gradient, None)).all()
    with pytest.raises(ValueError, match=r"Hierarchical.*'dense', 'diagonal' or 'block_diagonal"):
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
        tx = scale_by(layers, kl_clip=bound, kl_learning_rate=0.3)
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
    with pytest.raises(ValueError, match="consistent_rms=None"):
        getattr(singd_optax, name)(1e-2, layers, kl_clip=1e-3)
