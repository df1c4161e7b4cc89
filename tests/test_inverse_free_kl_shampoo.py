"""Inverse-free KL-Shampoo against a short restatement, and against KL-Shampoo."""

import functools

import _hlo
import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from test_kl_shampoo import after_many, flip_flop, inverse_root, run, whitened
from test_soap import random_gradients

import singd_optax
from singd_optax import sharding
from singd_optax.optimizers import InverseFreeKLShampoo, KLShampoo
from singd_optax.structures import BlockDiagonal
from singd_optax.testing._compile import quick_jit


def symmetric(K):
    """The symmetric root of K Kᵀ."""
    return inverse_root(K @ K.T, -0.5)


def restated(gradients, rate=0.05, damping=1e-2, every=1):
    rows, columns = gradients[0].shape
    size = np.mean(gradients[0] ** 2) ** -0.25
    K, C = size * np.eye(rows), size * np.eye(columns)
    for count, G in enumerate(gradients):
        W, scale = K.T @ G @ C, damping * np.mean(G**2)
        m_K = W @ W.T / columns + scale * np.sum(C**2) / columns * K.T @ K - np.eye(rows)
        m_C = W.T @ W / rows + scale * np.sum(K**2) / rows * C.T @ C - np.eye(columns)
        K, C = K - rate / 2 * K @ m_K, C - rate / 2 * C @ m_C
        if count % every == 0:
            K, C = symmetric(K), symmetric(C)
        yield K @ G @ C.T


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("every", [1, 4])
def test_trajectory(every):
    """With gradients of one size, so that no step is bounded."""
    gradients = random_gradients((5, 3), 12)
    scale = singd_optax.scale_by_inverse_free_kl_shampoo(
        damping=1e-2, clip_rms=None, refresh_every=every, polar_steps=14
    )
    got, own = run(scale, gradients)
    for one, wanted in zip(got, restated(gradients, every=every), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-6, atol=1e-9)
    assert int(own.started) == 1


@pytest.mark.usefixtures("x64")
def test_fixed_point_is_the_direction_of_kl_shampoo():
    """The root itself, and not the root times a rotation, in K and in C."""
    gradients = random_gradients((4, 3), 20)
    S_K, S_C = flip_flop(gradients)
    scale = singd_optax.scale_by_inverse_free_kl_shampoo(
        damping=0.0, clip_rms=None, factor_learning_rate=5e-4, refresh_every=5
    )
    for gradient, got in zip(gradients, after_many(scale, gradients, 30_000), strict=True):
        want = whitened(S_K, S_C, gradient)
        assert np.linalg.norm(got - want) < 0.01 * np.linalg.norm(want)


def sampled(count, factors, seed):
    rng = np.random.default_rng(seed)
    A, B = factors
    return [A @ rng.normal(size=(len(A), len(B))) @ B for _ in range(count)]


def roots(seed, rows=12, columns=8):
    """Of a spiked spectrum on both sides."""
    rng = np.random.default_rng(seed)
    found = []
    for dim in (rows, columns):
        Q = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
        values = np.concatenate([[10.0, 5.0], np.geomspace(1, 0.2, dim - 2)])
        found.append((Q * values) @ Q.T)
    return found


def spread(direction, factors):
    """The standard deviation of log eigenvalues of the whitened covariance: 0 is perfect."""
    A, B = factors
    size = len(A) * len(B)
    made = jax.vmap(direction)(jnp.eye(size).reshape(-1, len(A), len(B)))
    P = np.asarray(made).reshape(size, size)
    return float(np.std(np.log(np.linalg.eigvalsh(P @ np.kron(A @ A, B @ B) @ P.T))))


@pytest.mark.usefixtures("x64")
def test_as_good_as_kl_shampoo_under_noise_and_as_fast():
    """Of one gradient a step: at rest, and after the covariance is another one at once.

    The rate is that of the average, so that noise is the same.
    """
    before, after = roots(0), roots(1)
    gradients = [jnp.asarray(g) for g in (*sampled(300, before, 2), *sampled(100, after, 3))]
    view = singd_optax.find_matrices({"w": gradients[0]}, structures="dense").specs[0]
    found = []
    for rule in (
        KLShampoo(basis_method="eigh", b2=0.95, clip_rms=None),
        InverseFreeKLShampoo(factor_learning_rate=0.05, damping=0.0, clip_rms=None),
    ):
        tx = singd_optax.scale_by_rule(rule, refresh_every=5)
        step = quick_jit(lambda state, g, tx=tx: tx.update(g, state)[1])
        state = tx.init(gradients[0])
        for count, gradient in enumerate(gradients):
            state = step(state, gradient)
            own = state.rule_states[""]
            direction = lambda g, rule=rule, own=own: rule.direction(view, own, g, g, 0)[0]
            if count in (299, 399):
                found.append(spread(direction, before if count == 299 else after))
    theirs, theirs_after, ours, ours_after = found
    assert theirs < 0.5
    assert ours < 1.15 * theirs
    assert ours_after < 1.25 * theirs_after


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("structures", [BlockDiagonal(3), "diagonal"], ids=repr)
def test_structures_have_the_fixed_point_of_their_projection(structures):
    """Each block is whitened by its own moment, over all columns."""
    gradients = random_gradients((6, 4), 20)
    scale = singd_optax.scale_by_inverse_free_kl_shampoo(
        structures=(structures, "identity"),
        damping=0.0,
        clip_rms=None,
        factor_learning_rate=1e-3,
    )
    moment = np.mean([g @ g.T for g in gradients], 0) / 4
    size = 3 if isinstance(structures, BlockDiagonal) else 1
    root = np.zeros((6, 6))
    for start in range(0, 6, size):
        part = slice(start, start + size)
        root[part, part] = inverse_root(moment[part, part])
    for gradient, got in zip(gradients, after_many(scale, gradients, 20_000), strict=True):
        want = root @ gradient
        assert np.linalg.norm(got - want) < 0.01 * np.linalg.norm(want)


def test_spikes_are_bounded_and_zeros_change_nothing():
    gradients = [g.astype(np.float32) for g in random_gradients((4, 3), 5)]
    scale = singd_optax.scale_by_inverse_free_kl_shampoo(clip_rms=None)
    _, own = run(scale, gradients)
    _, spiked = run(scale, [*gradients, 1e4 * gradients[0]])
    for factor, after in ((own.K, spiked.K), (own.C, spiked.C)):
        values = [np.linalg.svd(f.to_dense())[1] for f in (factor, after)]
        assert values[1].min() > 0.45 * values[0].min()  # half of a direction at most
    _, same = run(scale, [*gradients, *[0 * gradients[0]] * 3])
    np.testing.assert_array_equal(same.K.to_dense(), own.K.to_dense())


def test_errors():
    for options, match in (
        ({"polar_steps": 0}, "`polar_steps` must be an int >= 1, got 0"),
        ({"damping": -1}, "`damping` must be a finite number >= 0, got -1"),
        ({"clip_rms": 0}, "`clip_rms` must be a finite number > 0, got 0"),
    ):
        with pytest.raises(ValueError, match=match):
            InverseFreeKLShampoo(**options)
    tx = singd_optax.scale_by_inverse_free_kl_shampoo(structures="hierarchical:1,1")
    with pytest.raises(ValueError, match=r"InverseFreeKLShampoo.*takes no root"):
        tx.init(jnp.ones((3, 2)))


def test_a_step_without_a_refresh_is_split_over_devices():
    """As that of a refresh: of the steps on K and C each device does a part."""
    params = {"kernel": jax.ShapeDtypeStruct((16, 16), jnp.float32)}
    found, flops = singd_optax.find_matrices(params, structures="dense"), {}
    for devices in (1, 4):
        mesh = meshes.make_mesh({"data": devices}, "Auto")
        shardings = {"kernel": NamedSharding(mesh, P("data", None))}
        layers = sharding.spread(found, shardings)
        tx = singd_optax.scale_by_inverse_free_kl_shampoo(layers)
        of_state = sharding.state_shardings(tx.init, params, shardings, layers)
        both = (shardings, of_state)
        update = functools.partial(tx.update, refresh=False)
        step = jax.jit(update, in_shardings=both, out_shardings=both)
        compiled = step.lower(params, jax.eval_shape(tx.init, params)).compile(meshes.QUICK)
        flops[devices] = _hlo.read(compiled.as_text()).flops
    assert flops[1] > 10 * 2 * 16**3
    assert flops[4] < 0.3 * flops[1]
