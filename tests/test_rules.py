"""Theorems and invariances of the rules, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singd_optax.layers import Factors, LayerSpec
from singd_optax.measures import Statistics
from singd_optax.optimizers import IKFAC, SINGD
from singd_optax.structures import parse_structures
from singd_optax.transforms._refreshing import stored, widened

pytestmark = pytest.mark.usefixtures("x64")

KEY, STEP = jax.random.key(0), jnp.zeros([], jnp.int32)


def make_spec(fan_in=6, fan_out=4, structures="dense", factor_dtype="float64"):
    return LayerSpec(
        path="layer",
        kind="dense",
        kernel_path="layer/kernel",
        kernel_shape=(fan_in, fan_out),
        dtype="float64",
        structures=parse_structures(structures),
        factor_dtype=(factor_dtype, factor_dtype),
    )


def moment(dim, seed):
    rows = jax.random.normal(jax.random.key(seed), (3 * dim, dim), jnp.float64)
    return rows.T @ rows / len(rows)


def whitened(spec, factors, U, G):
    """The statistics of layers whose moments are U and G."""
    H_K, H_C = (
        structure.project(factor.to_dense().T @ M @ factor.to_dense())
        for structure, factor, M in zip(spec.structures, factors, (U, G), strict=True)
    )
    return Statistics(H_K, H_C, jnp.trace(U) / len(U), jnp.trace(G) / len(G))


def run(rule, spec, moments, factors=None):
    @jax.jit
    def refresh(state, U, G):
        statistics = whitened(spec, state[:2], U, G)
        return rule.refresh(spec, state, statistics, None, STEP, KEY)[0]

    state = rule.init(spec)
    if factors is not None:
        state = state._replace(K=factors.K, C=factors.C)
    for U, G in moments:
        state = refresh(state, U, G)
    return Factors(state.K, state.C)


def kronecker(factors):
    K, C = (factor.to_dense() for factor in factors)
    return jnp.kron(K @ K.T, C @ C.T)


def relative_error(got, want):
    return float(jnp.linalg.norm(got - want) / jnp.linalg.norm(want))


def test_ikfac_tends_to_kfac_with_the_square_of_the_step():
    """Theorem 1: K Kᵀ = (S_K + λ I)^-1 + O(b1²), for the same moments and matching starts."""
    spec, damping = make_spec(12, 5), 0.1
    moments = [(moment(12, 2 * i), moment(5, 2 * i + 1)) for i in range(4)]

    def gap(step_size):
        rule = IKFAC.paper(damping=damping, factor_learning_rate=step_size)
        start, kfac = [], []
        for dim, structure in zip(spec.dims, spec.structures, strict=True):
            S = moment(dim, 100 + dim)
            root = jnp.linalg.cholesky(jnp.linalg.inv(S + damping * jnp.eye(dim)))
            start.append(structure.project(root))
            kfac.append(S)
        factors = run(rule, spec, moments, Factors(*start))
        for U, G in moments:
            kfac = [(1 - step_size) * S + step_size * M for S, M in zip(kfac, (U, G), strict=True)]
        errors = [
            relative_error(
                factor.to_dense() @ factor.to_dense().T,
                jnp.linalg.inv(S + damping * jnp.eye(len(S))),
            )
            for factor, S in zip(factors, kfac, strict=True)
        ]
        return max(errors)

    steps = [1e-1, 1e-2, 1e-3, 1e-4]
    errors = [gap(step) for step in steps]
    orders = np.diff(np.log(errors)) / np.diff(np.log(steps))
    np.testing.assert_allclose(orders[1:], 2, atol=0.1)
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("structures", ["dense", "diagonal", ("dense", "diagonal")], ids=str)
@pytest.mark.parametrize("damping_mode", ["absolute", "relative"])
def test_singd_does_not_see_how_scale_is_shared(structures, damping_mode):
    """U -> s U with G -> G / s changes nothing."""
    spec = make_spec(structures=structures)
    options = {"factor_learning_rate": 0.1, "factor_momentum": 0.5, "factor_step_norm": None}
    rule = SINGD(damping=0.1, damping_mode=damping_mode, **options)
    moments = [(moment(6, 2 * i), moment(4, 2 * i + 1)) for i in range(5)]
    plain = run(rule, spec, moments)
    scaled = run(rule, spec, [(7.0 * U, G / 7.0) for U, G in moments])
    for got, want in zip(scaled, plain, strict=True):
        np.testing.assert_allclose(got.to_dense(), want.to_dense(), rtol=1e-9, atol=1e-12)


def test_ikfac_does_see_how_scale_is_shared():
    spec, rule = make_spec(), IKFAC.paper(damping=0.1, factor_learning_rate=0.1)
    moments = [(moment(6, 0), moment(4, 1))]
    scaled = run(rule, spec, [(7.0 * U, G / 7.0) for U, G in moments])
    assert relative_error(kronecker(scaled), kronecker(run(rule, spec, moments))) > 0.1


def test_singd_does_not_see_how_scale_is_shared_by_the_factors():
    """K -> s K with C -> C / s leaves the refreshed K ⊗ C as it was."""
    spec = make_spec()
    rule = SINGD.paper(damping=0.1, factor_learning_rate=0.1, factor_momentum=0.5)
    moments = [(moment(6, 2 * i), moment(4, 2 * i + 1)) for i in range(3)]
    K, C = run(rule, spec, moments)
    plain = run(rule, spec, moments, Factors(K, C))
    scaled = run(rule, spec, moments, Factors(K * 3.0, C * (1 / 3.0)))
    np.testing.assert_allclose(kronecker(scaled), kronecker(plain), rtol=1e-9, atol=1e-12)


def test_fixed_point_of_dense_singd_is_the_inverse():
    """Without damping, K Kᵀ ⊗ C Cᵀ settles at (U ⊗ G)^-1."""
    spec = make_spec()
    rule = SINGD(damping=0.0, factor_learning_rate=0.3, factor_momentum=0.5, factor_init="identity")
    U, G = moment(6, 0), moment(4, 1)
    factors = run(rule, spec, [(U, G)] * 400)
    assert relative_error(kronecker(factors), jnp.linalg.inv(jnp.kron(U, G))) < 1e-8


@pytest.mark.parametrize("structure", ["dense", "diagonal"])
def test_relative_damping_is_absolute_damping_in_units_of_the_traces(structure):
    spec = make_spec(structures=structure)
    U, G = moment(6, 0), moment(4, 1)
    unit = float(jnp.trace(U) / 6 * jnp.trace(G) / 4)
    options = {"factor_learning_rate": 0.1, "factor_momentum": 0.5, "factor_step_norm": None}
    relative = SINGD(damping=0.3, damping_mode="relative", **options)
    absolute = SINGD(damping=0.3 * unit, **options)
    for got, want in zip(
        run(relative, spec, [(U, G)] * 3), run(absolute, spec, [(U, G)] * 3), strict=True
    ):
        np.testing.assert_allclose(got.to_dense(), want.to_dense(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("rule_type", [SINGD, IKFAC])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e8])
def test_spectral_step_stays_bounded_and_invertible(rule_type, scale):
    """However large the statistics, one step changes K by less than a factor 1 - b1 to 1 + b1."""
    spec = make_spec()
    options = {"factor_learning_rate": 0.9, "factor_init": "identity", "damping_mode": "absolute"}
    rule = rule_type(damping=1e-3, **options)
    factors = run(rule, spec, [(scale * moment(6, 0), scale * moment(4, 1))])
    for factor in factors:
        singular = jnp.linalg.svd(factor.to_dense(), compute_uv=False)
        assert float(singular.min()) > 0.05
        assert float(singular.max()) < 1.95


def test_schedules_are_taken_at_the_count():
    spec = make_spec()
    U, G = moment(6, 0), moment(4, 1)
    scheduled = SINGD.paper(
        damping=lambda step: 0.1 * (step + 1),
        factor_learning_rate=lambda step: 0.05 / (step + 1),
        factor_momentum=lambda step: 0.1 * step,
    )
    constant = SINGD.paper(damping=0.4, factor_learning_rate=0.0125, factor_momentum=0.3)
    state = scheduled.init(spec)
    state = state._replace(m_K=state.m_K.add_identity(0.1), m_C=state.m_C.add_identity(0.1))
    statistics = whitened(spec, state[:2], U, G)
    got, want = (
        rule.refresh(spec, state, statistics, None, jnp.asarray(3), KEY)
        for rule in (scheduled, constant)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), got, want)


def test_bfloat16_factors_keep_small_steps():
    """Steps of 2^-11 of an entry: lost by rounding to nearest, kept in the mean at random."""
    dim = 64
    spec = make_spec(dim, dim, "diagonal", "bfloat16")
    rule = SINGD.paper(damping=0.0, factor_learning_rate=2.0**-10, factor_momentum=0.0)
    state = rule.init(spec)
    zeros = Statistics.zeros(spec)

    @jax.jit
    def refresh(state, key):
        wide = widened(spec, state)
        new, _ = rule.refresh(spec, wide, zeros, None, STEP, key)
        return stored(spec, wide, new, state, key, 0)

    for i in range(64):
        state = refresh(state, jax.random.key(i))
    exact = (1 + 2.0**-11) ** 64
    for factor in state[:2]:
        assert factor.dtype == jnp.bfloat16
        mean = float(factor.average_trace())
        assert abs(mean - exact) < 0.2 * (exact - 1)
