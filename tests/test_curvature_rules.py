"""The curvature family of the literature: each rule against a few lines of NumPy, and the kit."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from test_check_rule import Entry, gram, trace

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
    AdaFisher,
    Eva,
    EvaF,
    LocoProp,
)
from singd_optax.rules import ConjugateGradients, Gated, Mixed, Polar
from singd_optax.structures import DenseMatrix
from singd_optax.testing import check_rule

ALL = ("orthogonal", "permutation")
RATE, DAMPING = 0.3, 0.02


def T(matrix):
    return np.swapaxes(matrix, -1, -2)


def averaged(values, rate=RATE):
    """The moving average with corrected bias after each value."""
    total = 0
    for count, value in enumerate(values, 1):
        total = (1 - rate) * total + rate * value
        yield total / (1 - (1 - rate) ** count)


def each(oracle):
    """An oracle for one matrix as one for stacks."""

    @functools.wraps(oracle)
    def of_stack(steps):
        stack = steps[0].gradient.shape[:-2]
        found = [
            oracle([type(step)(*(x[index] for x in step)) for step in steps])
            for index in np.ndindex(*stack)
        ]
        return [
            np.reshape([one[i] for one in found], steps[0].gradient.shape)
            for i in range(len(steps))
        ]

    return of_stack


def inverted(steps, pairs, damping=DAMPING, use_pi=True):
    """(A + π √λ)^-1 ∇ (B + √λ / π)^-1 of each step."""
    found = []
    for (gradient, *_), (A, B) in zip(steps, pairs, strict=True):
        pi = np.sqrt(trace(A) / trace(B)) if use_pi else 1
        A = A + pi * damping**0.5 * np.eye(A.shape[-1])
        B = B + damping**0.5 / pi * np.eye(B.shape[-1])
        found.append(np.linalg.inv(A) @ gradient @ np.linalg.inv(B))
    return found


def cross(step, W_K=None, W_C=None):
    """E[(gᵀ W g) a aᵀ] and E[(aᵀ W a) g gᵀ], with g of each example and not of the mean."""
    a, g = step.inputs, step.output_gradients
    size = lambda x, W: ((x if W is None else x @ W) * x).sum(-1, keepdims=True)
    count = a.shape[-2]
    return T(a * size(g, W_C)) @ a * count, T(g * size(a, W_K)) @ g * count


def tkfac(steps):
    pairs = zip(*(averaged(m) for m in zip(*(cross(s) for s in steps), strict=True)), strict=True)
    scaled = []
    for A, B in pairs:
        root = np.sqrt(trace(A) * A.shape[-1])
        scaled.append((A / root, B / root))
    return inverted(steps, scaled)


def kpsvd(steps):
    norm = lambda m: np.linalg.norm(m, axis=(-2, -1), keepdims=True)
    W = tuple(np.eye(n) for n in steps[0].gradient.shape[-2:])
    totals, pairs = [0, 0], []
    for count, step in enumerate(steps, 1):
        new = cross(step, *W)
        new = new[0] / norm(W[1]), new[1] / norm(W[0])
        totals = [(1 - RATE) * t + RATE * n for t, n in zip(totals, new, strict=True)]
        W = tuple(totals)
        A, B = (t / (1 - (1 - RATE) ** count) for t in totals)
        root = (norm(A) * norm(B)) ** 0.25
        pairs.append((A / root, B / root))
    return inverted(steps, pairs)


@each
def two_terms(steps):
    """By the inverse of a dense matrix, with the second term fitted to the dense rest of F."""
    norm, found = np.linalg.norm, []
    W = [np.eye(n) for n in steps[0].gradient.shape]
    totals, T = [0, 0], [0, W[1]]
    for count, step in enumerate(steps, 1):
        new = cross(step, *W)
        new = new[0] / norm(W[1]), new[1] / norm(W[0])
        totals = [(1 - RATE) * t + RATE * n for t, n in zip(totals, new, strict=True)]
        W = totals
        A, B = (t / (1 - (1 - RATE) ** count) for t in totals)
        root = (norm(A) * norm(B)) ** 0.25
        A, B = A / root, B / root
        a, g = step.inputs, step.output_gradients * len(step.inputs)
        F = np.einsum("ni,nj,no,np->ijop", a, a, g, g) / len(a) - np.einsum("ij,op->ijop", A, B)
        if count == 1:
            T = [0 * A, T[1] - B * np.trace(B) / norm(B) ** 2]
        else:
            w = RATE / (1 - (1 - RATE) ** (count - 1))
            side = count % 2
            length = norm(T[1 - side])
            other = T[1 - side] / length
            fitted = np.einsum("ijop,op->ij" if side == 0 else "ijop,ij->op", F, other)
            T[1 - side], T[side] = other, (1 - w) * T[side] * length + w * fitted
        pi, lam = np.sqrt(trace(A) / trace(B))[0, 0], DAMPING**0.5
        sides = A + pi * lam * np.eye(len(A)), B + lam / pi * np.eye(len(B))
        dense = np.kron(*sides)
        total = dense + np.kron(*T)
        half = np.linalg.inv(np.linalg.cholesky(dense))
        assert np.linalg.eigvalsh(half @ total @ half.T)[0] > 0.1  # the floor
        found.append(np.linalg.solve(total, step.gradient.reshape(-1)).reshape(len(A), len(B)))
    return found


def in_bases(steps, moments, first, exact_first=False):
    """EKFAC: scales in the bases of moments, carried over when these turn."""
    found, weights = [], [r / (1 - (1 - r) ** n) for n in range(1, 9) for r in (RATE,)]
    bases = None
    for count, (step, pair) in enumerate(zip(steps, moments, strict=True)):
        gradient, a, g = step
        eigen = [np.linalg.eigh(m) for m in pair]
        new = [e.eigenvectors for e in eigen]
        if bases is None:
            s = first(pair, [e.eigenvalues for e in eigen])
        else:
            fresh = T((a @ bases[0]) ** 2) @ (g @ bases[1]) ** 2 * len(a)
            s = s + weights[count] * (fresh - s)
            R = [(old.T @ fresh) ** 2 for old, fresh in zip(bases, new, strict=True)]
            s = R[0].T @ s @ R[1]
        bases = new
        turned = bases[0].T @ gradient @ bases[1] / (s + DAMPING)
        found.append(bases[0] @ turned @ bases[1].T)
    return found


@each
def ekfac(steps):
    moments = zip(
        averaged(gram(s.inputs) / len(s.inputs) for s in steps),
        averaged(gram(s.output_gradients) * len(s.inputs) for s in steps),
        strict=True,
    )
    return in_bases(steps, moments, lambda _, values: np.outer(*values))


@each
def tekfac(steps):
    moments = zip(*(averaged(m) for m in zip(*(cross(s) for s in steps), strict=True)), strict=True)
    first = lambda pair, values: np.outer(*values) / np.trace(pair[0])
    return in_bases(steps, moments, first)


@each
def ekfac_of_gradients(steps):
    moments = zip(
        averaged(gram(s.inputs) / len(s.inputs) for s in steps),
        averaged(gram(s.output_gradients) * len(s.inputs) for s in steps),
        strict=True,
    )
    found, s, bases = [], None, None
    for count, (step, pair) in enumerate(zip(steps, moments, strict=True), 1):
        new = [np.linalg.eigh(m)[1] for m in pair]
        if s is None:
            s = (new[0].T @ step.gradient @ new[1]) ** 2
        else:
            fresh = (bases[0].T @ step.gradient @ bases[1]) ** 2
            s = s + RATE / (1 - (1 - RATE) ** count) * (fresh - s)
            R = [(old.T @ fresh) ** 2 for old, fresh in zip(bases, new, strict=True)]
            s = R[0].T @ s @ R[1]
        bases = new
        turned = bases[0].T @ step.gradient @ bases[1] / (s + DAMPING)
        found.append(bases[0] @ turned @ bases[1].T)
    return found


def foof(steps):
    moments = averaged(gram(s.inputs) / s.inputs.shape[-2] for s in steps)
    eye = DAMPING * np.eye(steps[0].inputs.shape[-1])
    return [np.linalg.solve(S + eye, s.gradient) for s, S in zip(steps, moments, strict=True)]


def local_steps(steps, method="gradient", count=4, rate=0.8):
    """The local steps of each layer on its own loss, by rows of weights and targets."""
    found = []
    for step, S in zip(steps, averaged(gram(s.inputs) / len(s.inputs) for s in steps), strict=True):
        H = S + DAMPING * np.eye(len(S))
        bound = float(DenseMatrix(jnp.asarray(H)).spectral_norm_bound())
        assert bound >= np.linalg.norm(H, 2)
        W, shift = np.ones(step.gradient.shape), 7.0  # neither matters
        V, v = W, 0
        size = np.sqrt(np.mean(step.gradient**2))
        for i in range(count):
            slope = H @ (V - W) + shift * step.gradient
            if method == "gradient":
                V = V - rate / bound * slope
                continue
            v = 0.9 * v + 0.1 * (slope / shift) ** 2
            root = np.sqrt(v / (1 - 0.9 ** (i + 1))) + 1e-5 * size
            V = V - rate * max(1 - i / count, 0.25) * size / bound * slope / root
        found.append((W - V) / shift)
    return found


locoprop = each(local_steps)


@each
def eva(steps):
    """By the inverse of a dense matrix."""
    means = zip(
        averaged(s.inputs.mean(0) for s in steps),
        averaged(s.output_gradients.sum(0) for s in steps),
        strict=True,
    )
    found = []
    for step, (a, g) in zip(steps, means, strict=True):
        F = np.kron(np.outer(a, a), np.outer(g, g)) + DAMPING * np.eye(a.size * g.size)
        found.append(np.linalg.solve(F, step.gradient.reshape(-1)).reshape(step.gradient.shape))
    return found


@each
def eva_f(steps):
    means = averaged(s.inputs.mean(0) for s in steps)
    inverses = [np.linalg.inv(np.outer(a, a) + DAMPING * np.eye(a.size)) for a in means]
    return [inverse @ s.gradient for s, inverse in zip(steps, inverses, strict=True)]


@each
def mkor(steps):
    """By inverses of the averages themselves."""
    L = [np.eye(n) for n in steps[0].gradient.shape]
    found = []
    for step in steps:
        means = step.inputs.mean(0), step.output_gradients.sum(0)
        L = [(1 - RATE) * m + RATE * np.outer(v, v) for m, v in zip(L, means, strict=True)]
        found.append(np.linalg.inv(L[0]) @ step.gradient @ np.linalg.inv(L[1]))
    return found


def adafisher(steps):
    found = []
    normalized = lambda x: (x - x.min(-1, keepdims=True)) / np.ptp(x, axis=-1, keepdims=True)
    sides = [
        averaged([normalized((getattr(s, name) ** 2).sum(-2)) for s in steps])
        for name in ("inputs", "output_gradients")
    ]
    for step, u, w in zip(steps, *sides, strict=True):
        found.append(step.gradient / (u[..., :, None] * w[..., None, :] + DAMPING))
    return found


def crossed_singd(steps, damping=1e-2, rate=0.1, momentum=0.5):
    """SINGD's equations with moments that are weighted by the size of the other side."""
    K, C = (
        np.broadcast_to(np.eye(n), (*steps[0].gradient.shape[:-2], n, n))
        for n in steps[0].gradient.shape[-2:]
    )
    m_K, m_C, found = 0, 0, []
    for gradient, a, g in steps:
        I_K, I_C = np.eye(K.shape[-1]), np.eye(C.shape[-1])
        X_K, X_C = cross(type(steps[0])(gradient, a @ K, g @ C))
        new_K = X_K / len(I_C) + damping * trace(gram(C)) * gram(K) - I_K
        new_C = X_C / len(I_K) + damping * trace(gram(K)) * gram(C) - I_C
        m_K, m_C = momentum * m_K + new_K / 2, momentum * m_C + new_C / 2
        K, C = K @ (I_K - rate * m_K), C @ (I_C - rate * m_C)
        found.append(K @ T(K) @ gradient @ C @ T(C))
    return found


OPTIONS = {"damping": DAMPING, "damping_mode": "absolute", "factor_learning_rate": RATE}
PAPER = SINGD(
    damping=1e-2,
    damping_mode="absolute",
    factor_learning_rate=0.1,
    factor_momentum=0.5,
    factor_step_norm=None,
    factor_init="identity",
    cross_moments=True,
)

RULES = {
    "EKFAC": Entry(EKFAC(), symmetries=("scale",), structures=("dense", "diagonal")),
    "EKFAC, absolute": Entry(
        EKFAC(**OPTIONS),
        ekfac,
        symmetries=ALL,
        structures=("dense", ("block_diagonal:2", "diagonal")),
        equal_to=(EKFAC(**OPTIONS, exact_squares=True),),
        tolerance=1e-8,
    ),
    "EKFAC of gradients": Entry(
        EKFAC(**OPTIONS, scale_source="gradients"),
        ekfac_of_gradients,
        symmetries=ALL,
        structures=("dense",),
        tolerance=1e-8,
    ),
    "TEKFAC": Entry(TEKFAC(**OPTIONS), tekfac, symmetries=ALL, tolerance=1e-8),
    "TKFAC": Entry(
        TKFAC(**OPTIONS), tkfac, symmetries=ALL, structures=("dense", "block_diagonal:2")
    ),
    "TKFAC, relative": Entry(TKFAC(), symmetries=("scale",), structures=("diagonal",)),
    "polar TKFAC": Entry(Polar(TKFAC()), symmetries=("scale",), structures=("dense",)),
    "KPSVD": Entry(KPSVD(**OPTIONS), kpsvd, symmetries=ALL),
    "KPSVD with two terms": Entry(
        KPSVD(**OPTIONS, second_term=True),
        two_terms,
        symmetries=ALL,
        structures=("dense", ("block_diagonal:2", "diagonal")),
        equal_to=(KPSVD(**OPTIONS, second_term=True, inverse_method="root"),),
        tolerance=1e-9,
    ),
    "KFAC by conjugate gradients": Entry(
        KFAC(**OPTIONS, inverse_method=ConjugateGradients(iterations=60, warm_start=True)),
        symmetries=ALL,
        equal_to=(KFAC(**OPTIONS, inverse_method="eigh"),),
        structures=("dense", ("block_diagonal:2", "diagonal")),
        tolerance=1e-7,
    ),
    "LocoProp": Entry(
        LocoProp(**OPTIONS, local_steps=4, local_learning_rate=0.8),
        locoprop,
        symmetries=ALL[1:],
        structures=("dense", ("block_diagonal:2", "diagonal")),
    ),
    "KPSVD, relative": Entry(
        KPSVD(inverse_method="eigh"), symmetries=("scale",), structures=("dense",), tolerance=1e-8
    ),
    "FOOF": Entry(FOOF(**OPTIONS), foof, symmetries=ALL, structures=("dense", "diagonal")),
    "FOOF, relative": Entry(
        FOOF(), symmetries=("scale",), structures=(("block_diagonal:2", "dense"),)
    ),
    "FOOF with cross moments": Entry(FOOF(cross_moments=True), symmetries=("scale",)),
    "Eva": Entry(Eva(**OPTIONS), eva, symmetries=ALL, structures=("dense",)),
    "Eva, relative": Entry(
        Eva(), symmetries=("scale", *ALL), structures=("dense", "hierarchical:1,1")
    ),
    "EvaF": Entry(EvaF(**OPTIONS), eva_f, symmetries=ALL, structures=("dense",)),
    "EvaF, relative": Entry(EvaF(), symmetries=("scale",), structures=("dense",)),
    "MKOR": Entry(MKOR(), symmetries=("scale",), structures=("dense", ("diagonal", "dense"))),
    "MKOR, absolute": Entry(
        MKOR(factor_learning_rate=RATE, damping_mode="absolute", largest=1e3, stabilizer=0.5),
        mkor,
        symmetries=ALL,
        structures=("dense",),
    ),
    "AdaFisher": Entry(
        AdaFisher(**OPTIONS),
        adafisher,
        symmetries=("permutation", "scale"),
        structures=("dense", "lower_toeplitz"),
    ),
    "AdaFisher as KFAC": Entry(
        AdaFisher(**OPTIONS, normalized=False),
        equal_to=(KFAC(**OPTIONS, inverse_method="eigh"),),
        structures=("diagonal",),
    ),
    "RSKFAC of full rank": Entry(
        RSKFAC(**OPTIONS),
        equal_to=(KFAC(**OPTIONS), RSKFAC(**OPTIONS, sketched=True)),
        symmetries=ALL,
        structures=("dense", "diagonal"),
        tolerance=1e-8,
    ),
    "RSKFAC": Entry(RSKFAC(rank=3), symmetries=("scale",), structures=(("dense", "diagonal"),)),
    "RSKFAC, sketched": Entry(RSKFAC(rank=3, sketched=True), symmetries=("scale",)),
    "SKFAC": Entry(SKFAC(rank=4), structures=("dense",)),
    "EKFAC, gated at 0": Entry(Gated(EKFAC(), threshold=0.0), equal_to=(EKFAC(),)),
    "KFAC, gated": Entry(Gated(KFAC(), threshold=0.1), symmetries=("scale",), tolerance=1e-9),
    "KFAC by eigenvectors, gated and polar": Entry(
        Polar(Gated(KFAC(inverse_method="eigh"), threshold=0.1)), symmetries=("scale",)
    ),
    "mixed": Entry(Mixed(Gated(KFAC()), share=0.3), symmetries=("scale",)),
    "mixed, all of the rule": Entry(Mixed(KFAC(), share=1.0), equal_to=(KFAC(),)),
    "EKFAC with an exponent of 0": Entry(
        EKFAC(exponent=0.0), equal_to=(Mixed(EKFAC(exponent=0.0), share=0.0),)
    ),
    "polar EKFAC": Entry(Polar(EKFAC()), symmetries=("scale",)),
    "SINGD with cross moments": Entry(PAPER, crossed_singd, symmetries=ALL),
    "SINGD with cross moments, in structures": Entry(
        SINGD(cross_moments=True),
        symmetries=("scale",),
        structures=("diagonal", ("dense", "identity"), ("hierarchical:1,2", "lower_triangular:1")),
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
    entry = RULES[name]
    check_rule(
        entry.rule,
        oracle=entry.oracle,
        equal_to=entry.equal_to,
        symmetries=entry.symmetries,
        structures=entry.structures,
        tolerance=entry.tolerance,
    )
