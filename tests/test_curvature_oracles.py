"""What the curvature family claims of the Fisher of one layer, in float64, from explicit rows."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import problem
from test_curvature_rules import local_steps

import singd_optax
from singd_optax.optimizers import (
    EKFAC,
    FOOF,
    KFAC,
    KPSVD,
    MKOR,
    RSKFAC,
    SINGD,
    SKFAC,
    TEKFAC,
    TKFAC,
    Eva,
    LocoProp,
)
from singd_optax.rules import ConjugateGradients, inverse
from singd_optax.rules._low_rank import leading_of, leading_of_sketch, orthonormal
from singd_optax.rules._roots import eigh
from singd_optax.structures import DenseMatrix
from singd_optax.structures._in_turn import decomposed
from singd_optax.testing._rule_problem import (
    Setup,
    Step,
    directions_of,
    gradients_of,
    layers_of,
    params_of,
    step_of,
    steps_of,
)

pytestmark = pytest.mark.usefixtures("x64")

EXACT = {"damping": 1e-3, "damping_mode": "absolute", "factor_learning_rate": 1.0}


def same_steps(count, seed=0):
    """One batch, again and again."""
    return {path: steps * count for path, steps in steps_of(seed, 1).items()}


def state_of(rule, steps):
    """The state of the layer without a stack."""
    return directions_of(rule, Setup("dense"), steps)[1].rule_states["single"]


def fisher(step):
    """E[vec(a gᵀ) vec(a gᵀ)ᵀ], with g of each example."""
    a, g = step.inputs, step.output_gradients * len(step.inputs)
    rows = np.einsum("ni,no->nio", a, g).reshape(len(a), -1)
    return rows.T @ rows / len(a)


def partial_traces(F, shape):
    F = F.reshape(*shape, *shape)
    return np.einsum("iojo->ij", F), np.einsum("ioip->op", F)


def dense(state, *names):
    return (np.asarray(getattr(state, name).to_dense()) for name in names)


def of_bases(state):
    """What EKFAC takes the Fisher for."""
    K, C = dense(state, "K", "C")
    Q = np.kron(K, C)
    return Q @ np.diag(np.asarray(state.scales).reshape(-1)) @ Q.T, Q


def kronecker(state):
    return np.kron(*dense(state, "S_K", "S_C"))


@pytest.mark.parametrize("rule", [EKFAC(**EXACT), TEKFAC(**EXACT)], ids=lambda r: type(r).__name__)
def test_ekfac_has_the_diagonal_of_the_fisher_and_its_trace(rule):
    steps = same_steps(3)
    F = fisher(steps["single"][0])
    approximation, Q = of_bases(state_of(rule, steps))
    np.testing.assert_allclose(np.diag(Q.T @ approximation @ Q), np.diag(Q.T @ F @ Q), rtol=1e-8)
    np.testing.assert_allclose(np.trace(approximation), np.trace(F), rtol=1e-10)


def test_errors_in_the_frobenius_norm():
    """EKFAC <= KFAC, TEKFAC <= TKFAC, KPSVD <= all Kronecker products."""
    for seed in range(3):
        steps = same_steps(60, seed)
        F = fisher(steps["single"][0])
        few = {path: several[:3] for path, several in steps.items()}
        tkfac = state_of(TKFAC(**EXACT), few)
        kpsvd = state_of(KPSVD(**EXACT), steps)
        total = np.trace(next(dense(tkfac, "S_K")))
        norms = [np.linalg.norm(m) for m in dense(kpsvd, "S_K", "S_C")]
        found = {
            "kfac": kronecker(state_of(KFAC(**EXACT), few)),
            "ekfac": of_bases(state_of(EKFAC(**EXACT), few))[0],
            "tkfac": kronecker(tkfac) / total,
            "tekfac": of_bases(state_of(TEKFAC(**EXACT), few))[0],
            "kpsvd": kronecker(kpsvd) / np.sqrt(norms[0] * norms[1]),
        }
        errors = {name: np.linalg.norm(F - own) for name, own in found.items()}
        assert errors["ekfac"] < errors["kfac"]
        assert errors["tekfac"] < errors["tkfac"]
        assert errors["kpsvd"] < min(errors["kfac"], errors["tkfac"])


def test_tkfac_has_both_partial_traces():
    steps = same_steps(1)
    step = steps["single"][0]
    state = state_of(TKFAC(**EXACT), steps)
    S_K, S_C = dense(state, "S_K", "S_C")
    approximation = np.kron(S_K, S_C) / np.trace(S_K)
    for got, want in zip(
        partial_traces(approximation, step.gradient.shape),
        partial_traces(fisher(step), step.gradient.shape),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
    plain = kronecker(state_of(KFAC(**EXACT), steps))
    assert abs(np.trace(plain) / np.trace(fisher(step)) - 1) > 1e-3


def test_kpsvd_is_the_leading_singular_pair():
    steps = same_steps(60)
    step = steps["single"][0]
    rows, columns = step.gradient.shape
    F = fisher(step).reshape(rows, columns, rows, columns)
    rearranged = F.transpose(0, 2, 1, 3).reshape(rows**2, columns**2)
    left, values, right = np.linalg.svd(rearranged)
    state = state_of(KPSVD(**EXACT), steps)
    S_K, S_C = dense(state, "S_K", "S_C")
    want = values[0] * np.outer(left[:, 0], right[0])
    got = np.outer(S_K.reshape(-1), S_C.reshape(-1))
    got = got / np.sqrt(np.linalg.norm(S_K) * np.linalg.norm(S_C))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-8 * np.abs(want).max())


def test_a_second_term_is_the_second_singular_pair():
    """From the first refresh on, two terms are not further from the Fisher than one."""
    rule = KPSVD(**EXACT, second_term=True)
    steps = same_steps(40)
    step = steps["single"][0]
    F, sizes = fisher(step), step.gradient.shape
    layers = layers_of(Setup("dense"))
    take, init = step_of(rule, layers)
    state, compiled = init(params_of(Setup("dense"))), jax.jit(take)
    now = {path: several[0] for path, several in steps.items()}
    for _ in range(40):
        _, state = compiled(gradients_of(now, "float64"), state, now)
        own = state.rule_states["single"]
        norms = [np.linalg.norm(m) for m in dense(own, "S_K", "S_C")]
        first = kronecker(own) / np.sqrt(norms[0] * norms[1])
        second = np.kron(*dense(own, "T_K", "T_C"))
        assert np.linalg.norm(F - first - second) <= np.linalg.norm(F - first) * (1 + 1e-9)
    rearranged = F.reshape(*sizes, *sizes).transpose(0, 2, 1, 3).reshape(sizes[0] ** 2, -1)
    left, values, right = np.linalg.svd(rearranged)
    want = values[1] * np.outer(left[:, 1], right[1])
    got = np.outer(*(m.reshape(-1) for m in dense(own, "T_K", "T_C")))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-8 * np.abs(want).max())
    np.testing.assert_allclose(
        np.linalg.norm(F - first - second), np.linalg.norm(values[2:]), rtol=1e-10
    )


def test_a_second_term_that_takes_too_much_is_bounded():
    """The preconditioner stays positive, and below 1 / floor times that of the first term."""
    steps = steps_of(0, 6)
    rule = KPSVD(damping=1e-4, second_term=True, floor=0.8)
    state = state_of(rule, steps)
    values = 1 + np.outer(state.values_K, state.values_C)
    assert values.min() < 0.7  # so that there is something to bound
    K, C = dense(state, "K", "C")
    scaled = np.kron(K, C) / np.sqrt(np.maximum(values, 0.8).reshape(-1))
    P, one = scaled @ scaled.T, np.kron(K @ K.T, C @ C.T)
    assert np.linalg.eigvalsh(P)[0] > 0
    assert np.linalg.eigvalsh(one / 0.8 - P)[0] > -1e-6 * np.linalg.norm(P)
    found = directions_of(rule, Setup("dense"), steps)[0]["single"][-1]
    want = (P @ steps["single"][-1].gradient.reshape(-1)).reshape(found.shape)
    np.testing.assert_allclose(found, want, rtol=1e-8, atol=1e-8 * np.abs(want).max())


def test_conjugate_gradients_are_the_best_of_their_krylov_space():
    """In the norm of the system; a warm start is never worse than none, whatever it is."""
    rng = np.random.default_rng(0)
    (a, b), V = (rng.normal(size=(n, n)) for n in (5, 4)), rng.normal(size=(5, 4))
    A, B, damping = a @ a.T, b @ b.T, 0.1
    M = np.kron(A, B) + damping * np.eye(20)
    solution = np.linalg.solve(M, V.reshape(-1))
    error = lambda x: float((d := np.reshape(x, -1) - solution) @ M @ d)
    factors = DenseMatrix(jnp.asarray(A)), DenseMatrix(jnp.asarray(B))
    for count in (1, 3, 6):
        solver = ConjugateGradients(iterations=count)
        got = solver.solved(factors, jnp.asarray(damping), jnp.asarray(V))
        columns = [V.reshape(-1)]
        for _ in range(count - 1):
            columns.append(M @ columns[-1] / np.linalg.norm(M @ columns[-1]))
        Q = np.linalg.qr(np.stack(columns, 1))[0]
        best = Q @ np.linalg.solve(Q.T @ M @ Q, Q.T @ V.reshape(-1))
        np.testing.assert_allclose(np.reshape(got, -1), best, rtol=1e-6, atol=1e-9)
        for start in (1e4 * V, -got, 0.9 * solution.reshape(5, 4), 0 * V):
            warm = solver.solved(factors, jnp.asarray(damping), jnp.asarray(V), jnp.asarray(start))
            assert error(warm) <= error(0 * V)
    full = ConjugateGradients(iterations=40)
    got = full.solved(factors, jnp.asarray(damping), jnp.asarray(V))
    np.testing.assert_allclose(np.reshape(got, -1), solution, rtol=1e-8)


def test_locoprop_by_rmsprop_and_of_many_steps():
    """By rows of weights and targets; and without end it is FOOF."""
    steps = steps_of(0, 3)
    options = {"damping": 0.02, "damping_mode": "absolute", "factor_learning_rate": 0.3}
    local = {"local_steps": 4, "local_learning_rate": 0.8, "local_method": "rmsprop"}
    got = directions_of(LocoProp(**options, **local), Setup("dense"), steps)[0]["single"]
    for own, want in zip(got, local_steps(steps["single"], "rmsprop"), strict=True):
        np.testing.assert_allclose(own, want, rtol=1e-9, atol=1e-12)
    many = directions_of(LocoProp(**options, local_steps=10_000), Setup("dense"), steps)[0]
    for path, want in directions_of(FOOF(**options), Setup("dense"), steps)[0].items():
        np.testing.assert_allclose(many[path], want, rtol=1e-8, atol=1e-10)


def test_foof_is_ridge_regression():
    """The step that moves outputs the most like their gradients, for a penalty on the step."""
    steps = same_steps(1)
    step, damping = steps["single"][0], 0.1
    rule = FOOF(damping=damping, damping_mode="absolute")
    (got,) = directions_of(rule, Setup("dense"), steps)[0]["single"]
    a, count = step.inputs, len(step.inputs)
    target = step.output_gradients * count
    rows = np.concatenate([a, np.sqrt(damping * count) * np.eye(a.shape[1])])
    goal = np.concatenate([target, np.zeros((a.shape[1], target.shape[1]))])
    want = np.linalg.lstsq(rows, goal, rcond=None)[0]
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_foof_with_cross_moments_has_the_mean_block_of_the_fisher():
    steps = same_steps(1)
    (step,) = steps["single"]
    rows, columns = step.gradient.shape
    blocks = fisher(step).reshape(rows, columns, rows, columns)
    mean = np.einsum("iojo->ij", blocks) / columns
    rule = FOOF(damping=0.1, damping_mode="absolute", cross_moments=True)
    found, state = directions_of(rule, Setup("dense"), steps)
    (S_K,) = dense(state.rule_states["single"], "S_K")
    np.testing.assert_allclose(S_K, mean, rtol=1e-10, atol=1e-12)
    want = np.linalg.solve(mean + 0.1 * np.eye(rows), step.gradient)
    np.testing.assert_allclose(found["single"][0], want, rtol=1e-9, atol=1e-12)


def test_eva_of_one_row_is_kfac():
    steps = steps_of(0, 1)
    one = {}
    for path, (step,) in steps.items():
        a, g = step.inputs[..., :1, :], step.output_gradients[..., :1, :]
        one[path] = [Step(np.swapaxes(a, -1, -2) @ g, a, g)]
    eva = directions_of(Eva(damping=0.1, damping_mode="absolute"), Setup("dense"), one)[0]
    rule = KFAC(damping=0.1, damping_mode="absolute", inverse_method="eigh")
    kfac = directions_of(rule, Setup("dense"), one)[0]
    for path, want in kfac.items():
        np.testing.assert_allclose(eva[path], want, rtol=1e-8, atol=1e-10)


def test_mkor_that_grows_is_drawn_back():
    steps = same_steps(30)
    options = {"factor_learning_rate": 0.5, "largest": 5.0}
    state = state_of(MKOR(**options, stabilizer=0.6), steps)
    K, C = dense(state, "K", "C")
    assert max(K.max(), C.max()) < 10
    wild = state_of(MKOR(**options | {"largest": 1e9}, stabilizer=0.6), steps)
    assert next(dense(wild, "K")).max() > 1e6


def few_rows(count):
    """Steps of two rows."""
    return {
        path: [
            Step(
                np.swapaxes(s.inputs[..., :2, :], -1, -2) @ s.output_gradients[..., :2, :],
                s.inputs[..., :2, :],
                s.output_gradients[..., :2, :],
            )
            for s in several
        ]
        for path, several in steps_of(0, count).items()
    }


def test_skfac_is_kfac_of_one_batch():
    """By products with as many columns as there are rows, and without any matrix as large as U."""
    steps = few_rows(3)
    rule = SKFAC(rank=3, damping=0.1, damping_mode="absolute")
    got, state = directions_of(rule, Setup("dense"), steps)
    kfac = KFAC(damping=0.1, damping_mode="absolute", factor_learning_rate=1.0)
    for path, want in directions_of(kfac, Setup("dense"), steps)[0].items():
        np.testing.assert_allclose(got[path], want, rtol=1e-6, atol=1e-9 * np.abs(want).max())
    sizes = [leaf.size for leaf in jax.tree.leaves(state.rule_states["single"])]
    assert max(sizes) <= 6 * 3


@pytest.mark.parametrize("sketched", [False, True])
def test_leading_eigenvectors(sketched):
    """Where the spectrum falls, the error is hardly above that of the best of this rank."""
    rng = np.random.default_rng(0)
    dim, rank = 60, 10
    Q = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    values = 0.5 ** np.arange(dim)
    moment = (Q * values) @ Q.T
    columns = np.linalg.qr(rng.normal(size=(dim, rank + (0 if sketched else 5))))[0]
    if sketched:
        found = leading_of_sketch(jnp.asarray(moment @ columns), jnp.asarray(columns), "highest")
    else:
        found = leading_of(jnp.asarray(moment), jnp.asarray(columns), rank, 2, "highest")
    V, D = (np.asarray(x) for x in found)
    np.testing.assert_allclose(V.T @ V, np.eye(rank), atol=1e-6)
    error = np.linalg.norm(moment - (V * D) @ V.T, 2)
    assert error <= (20 if sketched else 1.001) * values[rank]


@pytest.mark.parametrize(
    "decompose", [eigh, orthonormal, lambda moment: inverse(DenseMatrix(moment)).entries]
)
def test_decompositions_of_a_vmap_are_one_by_one_on_a_cpu(decompose):
    """In XLA's own threads a batch of them can wait for ever; and they keep their gradients."""
    moments = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3, 4, 4)))
    moments = moments + jnp.swapaxes(moments, -1, -2) + 10 * jnp.eye(4)
    text = jax.jit(jax.vmap(decompose)).lower(moments).as_text()
    calls = [line for line in text.splitlines() if "custom_call @lapack" in line]
    assert calls
    assert not any(re.search(r"tensor<[2-9]x4x4x|tensor<15x4x4x", line) for line in calls)
    total = lambda m: sum(jnp.sum(part**3) for part in jax.tree.leaves(decompose(m)))
    slope = jax.vmap(jax.grad(total))(moments)
    move = jnp.asarray(np.random.default_rng(1).normal(size=moments.shape))
    move = 1e-6 * (move + jnp.swapaxes(move, -1, -2))
    want = [(total(m + d) - total(m - d)) / 2 for m, d in zip(moments, move, strict=True)]
    np.testing.assert_allclose(jnp.sum(slope * move, (1, 2, 3)), want, rtol=1e-5, atol=1e-9)


def test_functions_with_defaults_are_made_in_turn():
    """Their defaults are not traced: those of ``eigh`` have to be known."""
    moments = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4, 4)))
    moments = moments + jnp.swapaxes(moments, -1, -2)
    values, _ = jax.jit(lambda m: decomposed(jnp.linalg.eigh, m))(moments)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(moments), rtol=1e-5, atol=1e-6)


def test_the_rest_of_a_spectrum():
    """Other eigenvalues are taken for the least that is kept, or for 0."""
    steps = same_steps(1)
    step = steps["single"][0]
    U, G = (m.T @ m for m in (step.inputs / 4, step.output_gradients * 4))
    for continued in (True, False):
        rule = RSKFAC(
            rank=2,
            damping=0.1,
            damping_mode="absolute",
            continued=continued,
            use_pi=False,
            power_iterations=100,
        )
        (got,) = directions_of(rule, Setup("dense"), steps)[0]["single"]
        inverses = []
        for moment in (U, G):
            values, vectors = np.linalg.eigh(moment)
            values[:-2] = values[-2] if continued else 0
            inverses.append((vectors / (values + 0.1**0.5)) @ vectors.T)
        want = inverses[0] @ step.gradient @ inverses[1]
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8 * np.abs(want).max())


def independent_steps(count):
    """All pairs of some inputs and some gradients, so that the two are independent."""
    found = {}
    for path, several in steps_of(0, count).items():
        found[path] = []
        for step in several:
            a, g = step.inputs[..., :4, :], step.output_gradients[..., :4, :]
            a = np.repeat(a, 4, axis=-2)
            g = np.concatenate([g] * 4, axis=-2)
            found[path].append(Step(np.swapaxes(a, -1, -2) @ g, a, g))
    return found


def test_where_inputs_and_gradients_are_independent_all_are_kfac():
    """Equal trajectories, and of SINGD with cross moments that of SINGD without."""
    steps = independent_steps(3)
    run = lambda rule: directions_of(rule, Setup("dense"), steps)[0]
    options = {"damping": 0.05, "factor_learning_rate": 1.0}
    by_eigenvectors = KFAC(**options, inverse_method="eigh")
    pairs = [
        (TKFAC(**options), KFAC(**options)),
        (TKFAC(**options, inverse_method="eigh"), by_eigenvectors),
        (SINGD(cross_moments=True), SINGD()),
    ]
    for rule, other in pairs:
        for path, want in run(other).items():
            # π is another number: both sides of TKFAC have one trace.
            got = np.asarray(run(rule)[path])
            np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9 * np.abs(want).max())
    one = {path: several[:1] * 2 for path, several in steps.items()}
    first = lambda rule: directions_of(rule, Setup("dense"), one)[0]
    for rule in (EKFAC(**options), TEKFAC(**options)):
        for path, want in first(by_eigenvectors).items():
            got = first(rule)[path]
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8 * np.abs(want).max())


def test_fixed_point_of_cross_moments():
    """Without damping, E[|Cᵀg|² Kᵀ a aᵀ K] tends to d_o I: the matrix normal of most likelihood."""
    steps = same_steps(600)
    rule = SINGD(damping=0.0, factor_learning_rate=0.2, cross_moments=True)
    state = directions_of(rule, Setup("dense"), steps)[1].rule_states["single"]
    K, C = dense(state, "K", "C")
    step = steps["single"][0]
    a, g = step.inputs @ K, step.output_gradients @ C * len(step.inputs)
    sizes = (a**2).sum(1), (g**2).sum(1)
    for rows, size, dim in ((a, sizes[1], C.shape[0]), (g, sizes[0], K.shape[0])):
        got = (rows * size[:, None]).T @ rows / len(rows) / dim
        np.testing.assert_allclose(got, np.eye(len(got)), atol=1e-3)


def test_interval_of_bases():
    steps = steps_of(0, 5)
    layers = layers_of(Setup("dense"))
    step, init = step_of(EKFAC(basis_every=3), layers)
    state = init(params_of(Setup("dense")))
    compiled, turned = jax.jit(step), []
    for index in range(5):
        now = {path: several[index] for path, several in steps.items()}
        before = state.rule_states["single"]
        _, state = compiled(gradients_of(now, "float64"), state, now)
        after = state.rule_states["single"]
        assert not np.array_equal(before.scales, after.scales)
        if not np.array_equal(before.K.entries, after.K.entries):
            turned.append(index)
    assert turned == [0, 3]


def test_errors():
    _, layers, *_ = problem()
    blocks = layers.replace("", structures="block_diagonal:2")
    with pytest.raises(ValueError, match="dense or diagonal"):
        singd_optax.mkor(0.1, blocks).init(problem()[0])
    with pytest.raises(ValueError, match="is for one term"):
        KPSVD(second_term=True, inverse_method="eigh")
    with pytest.raises(ValueError, match="'cholesky', 'root', 'eigh', got 'cg'"):
        TKFAC(inverse_method="cg")
    with pytest.raises(ValueError, match="no roots of inverses"):
        singd_optax.kfac(0.1, layers, inverse_method="cg", direction="polar")
    with pytest.raises(ValueError, match="`iterations`"):
        ConjugateGradients(iterations=0)
    toeplitz = layers.replace("", structures="lower_toeplitz")
    for name in ("ekfac", "tkfac", "kpsvd", "foof", "locoprop"):
        with pytest.raises(ValueError, match="inverts its factors"):
            getattr(singd_optax, name)(0.1, toeplitz).init(problem()[0])
    with pytest.raises(ValueError, match="`stabilizer` must be larger"):
        MKOR(factor_learning_rate=0.2)
    with pytest.raises(ValueError, match="scale_source"):
        dataclasses.replace(EKFAC(), scale_source="columns")
