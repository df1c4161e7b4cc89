"""The rules of the library, each one entry, and what the kit must find wrong."""

import dataclasses
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singd_optax.layers import Role
from singd_optax.optimizers import (
    CASPR,
    IKFAC,
    KFAC,
    KLSOAP,
    SINGD,
    SM3,
    SOAP,
    TNT,
    EvaS,
    InverseFreeKLShampoo,
    InverseFreeShampoo,
    Jorge,
    KLShampoo,
    MiniBlockFisher,
    NorMuon,
    PSGDKron,
    Shampoo,
    Sketchy,
    SPlus,
)
from singd_optax.rules import (
    Moments,
    Polar,
    RowFactor,
    RowMoment,
    Rule,
    hyperparameter_at,
)
from singd_optax.testing import check_rule


def gram(rows):
    return np.swapaxes(rows, -1, -2) @ rows


def trace(matrix):
    return np.trace(matrix, axis1=-2, axis2=-1)[..., None, None] / matrix.shape[-1]


def power(matrix, exponent, ridge=0.0):
    values, vectors = np.linalg.eigh(matrix)
    values = values + ridge * values.max(-1, keepdims=True)
    return (vectors * values[..., None, :] ** exponent) @ np.swapaxes(vectors, -1, -2)


def singd(steps, damping=1e-2, rate=0.1, momentum=0.5):
    """Figure 1 of the paper, with numbers of its own."""
    K, C, m_K, m_C, found = 1.0 * np.eye(0), None, 0, 0, []
    for gradient, a, g in steps:
        U, G = gram(a) / a.shape[-2], gram(g) * g.shape[-2]
        if C is None:
            K, C = (
                np.broadcast_to(np.eye(n), (*gradient.shape[:-2], n, n))
                for n in gradient.shape[-2:]
            )
        turned = lambda F, M: np.swapaxes(F, -1, -2) @ M @ F
        H_K, H_C, I_K, I_C = turned(K, U), turned(C, G), np.eye(K.shape[-1]), np.eye(C.shape[-1])
        new_K = trace(H_C) * H_K + damping * trace(gram(C)) * gram(K) - I_K
        new_C = trace(H_K) * H_C + damping * trace(gram(K)) * gram(C) - I_C
        m_K, m_C = momentum * m_K + new_K / 2, momentum * m_C + new_C / 2
        K, C = K @ (I_K - rate * m_K), C @ (I_C - rate * m_C)
        found.append(K @ np.swapaxes(K, -1, -2) @ gradient @ C @ np.swapaxes(C, -1, -2))
    return found


def ikfac(steps, damping=1e-2, rate=0.1):
    """Figure 1 of the paper: each side by itself."""
    K, C, found = None, None, []
    for gradient, a, g in steps:
        moments = gram(a) / a.shape[-2], gram(g) * g.shape[-2]
        if C is None:
            K, C = (
                np.broadcast_to(np.eye(n), (*gradient.shape[:-2], n, n))
                for n in gradient.shape[-2:]
            )
        K, C = (
            F
            @ (
                np.eye(F.shape[-1]) * (1 + rate / 2)
                - rate / 2 * (np.swapaxes(F, -1, -2) @ M @ F + damping * gram(F))
            )
            for F, M in zip((K, C), moments, strict=True)
        )
        found.append(K @ np.swapaxes(K, -1, -2) @ gradient @ C @ np.swapaxes(C, -1, -2))
    return found


def kfac(steps, damping=1e-2, rate=0.05):
    """Averages with corrected bias, and damping shared out by traces."""
    S_K, S_C, found = 0, 0, []
    for count, (gradient, a, g) in enumerate(steps, 1):
        S_K = (1 - rate) * S_K + rate * gram(a) / a.shape[-2]
        S_C = (1 - rate) * S_C + rate * gram(g) * g.shape[-2]
        A, B = (S / (1 - (1 - rate) ** count) for S in (S_K, S_C))
        pi, root = np.sqrt(trace(A) / trace(B)), np.sqrt(damping)
        A, B = A + pi * root * np.eye(A.shape[-1]), B + root / pi * np.eye(B.shape[-1])
        found.append(np.linalg.inv(A) @ gradient @ np.linalg.inv(B))
    return found


def roots(steps, b2=0.95, eps=0.03):
    L, R = 0, 0
    for count, (gradient, *_) in enumerate(steps, 1):
        L = b2 * L + (1 - b2) * gradient @ np.swapaxes(gradient, -1, -2)
        R = b2 * R + (1 - b2) * gram(gradient)
        yield gradient, *(power(M / (1 - b2**count), -1 / 4, eps) for M in (L, R))


def shampoo(steps):
    return [A @ gradient @ B for gradient, A, B in roots(steps)]


def trace_scaled(root, eps, b2=0.95):
    def directions(steps):
        L, R = 0, 0
        for count, (G, *_) in enumerate(steps, 1):
            L, R = b2 * L + (1 - b2) * G @ np.swapaxes(G, -1, -2), b2 * R + (1 - b2) * gram(G)
            own = [M / (1 - b2**count) for M in (L, R)]
            scale = (trace(own[0]) * own[0].shape[-1]) ** (1 / root)
            A, B = (power(M, -1 / root, eps) for M in own)
            yield scale * A @ G @ B

    return lambda steps: list(directions(steps))


def jorge(steps, moment=0.5):
    """Two terms of the series for (1 + y)^(-1/4)."""
    A = B = None
    for G, *_ in steps:
        if A is None:
            A, B = (moment ** (-1 / 4) * np.eye(n) for n in G.shape[-2:])
        A, B = jorge_root(A, G), jorge_root(B, np.swapaxes(G, -1, -2))
        yield A @ G @ B


def jorge_root(A, G):
    X = A @ A @ G
    X = X @ np.swapaxes(X, -1, -2)
    norm = np.sqrt((X**2).sum((-2, -1), keepdims=True))
    Y, b = X / norm, norm / (norm + 1)
    moved = b ** (-1 / 4) * A @ (np.eye(Y.shape[-1]) - Y / 4 + 5 / 32 * Y @ Y)
    return (moved + np.swapaxes(moved, -1, -2)) / 2


def mini_block_fisher(steps, b2=0.8, damping=0.3):
    S, weight = 0, 0
    for G, _, _ in steps:
        S = b2 * S + (1 - b2) * gram(np.swapaxes(G, -1, -2)) / G.shape[-1]
        weight = b2 * weight + 1 - b2
        yield np.linalg.solve(S / weight + damping * trace(S / weight) * np.eye(G.shape[-2]), G)


def eva_s(steps, damping=0.5, rate=0.3):
    """By the whole matrix of rank one."""
    r = c = 0
    for count, (G, *_) in enumerate(steps, 1):
        r, c = (1 - rate) * r + rate * G.mean(-1), (1 - rate) * c + rate * G.mean(-2)
        v = (r[..., :, None] * c[..., None, :]).reshape(*G.shape[:-2], -1)
        v = v / (1 - (1 - rate) ** count) ** 2
        F = v[..., :, None] * v[..., None, :] + damping * np.eye(v.shape[-1])
        g = G.reshape(*G.shape[:-2], -1, 1)
        yield np.linalg.solve(F, g).reshape(G.shape)


def caspr(steps):
    return [(A @ A @ G + 2 * A @ G @ B + G @ B @ B) / 4 for G, A, B in roots(steps)]


def inverse_free_shampoo(steps, damping=1e-2, rate=0.1, momentum=0.5):
    """Figure 3 of arXiv 2402.03496."""
    K, C, m_K, m_C, found = None, None, 0, 0, []
    for gradient, *_ in steps:
        rows, columns = gradient.shape[-2:]
        if C is None:
            K, C = (
                np.broadcast_to(np.eye(n), (*gradient.shape[:-2], n, n)) for n in (rows, columns)
            )
        W = np.swapaxes(K, -1, -2) @ gradient @ C
        new_K = (
            W @ np.swapaxes(W, -1, -2) / columns + damping * trace(gram(C)) * gram(K) - np.eye(rows)
        )
        new_C = gram(W) / rows + damping * trace(gram(K)) * gram(C) - np.eye(columns)
        m_K, m_C = (
            momentum * m + (1 - momentum) / 2 * new for m, new in ((m_K, new_K), (m_C, new_C))
        )
        K, C = K @ (np.eye(rows) - rate * m_K), C @ (np.eye(columns) - rate * m_C)
        found.append(K @ np.swapaxes(K, -1, -2) @ gradient @ C @ np.swapaxes(C, -1, -2))
    return found


def polar(oracle, softness=0.0):
    """The polar direction of a preconditioner A G B that has an oracle, by roots of A and B."""

    def one(steps):
        rows, columns = steps[-1].gradient.shape[-2:]

        def probed(i, j):
            unit = np.zeros_like(steps[-1].gradient)
            unit[..., i, j] = 1
            return oracle([*steps[:-1], steps[-1]._replace(gradient=unit)])[-1]

        A = np.stack([probed(i, 0)[..., :, 0] for i in range(rows)], -1)  # times B's first entry
        B = np.stack([probed(0, j)[..., 0, :] for j in range(columns)], -2) / A[..., :1, :1]
        A, B = power(A, 0.5), power(B, 0.5)
        U, values, V = np.linalg.svd(A @ steps[-1].gradient @ B, full_matrices=False)
        mean = np.sqrt((values**2).mean(-1, keepdims=True))
        made = values / np.sqrt(values**2 + (softness * mean) ** 2)
        made *= (values * made).sum(-1, keepdims=True) / (made**2).sum(-1, keepdims=True)
        return A @ (U * made[..., None, :]) @ V @ B

    return lambda steps: [one(steps[: count + 1]) for count in range(len(steps))]


@dataclasses.dataclass
class Entry:
    """A rule, and what must hold for it beside what must for all."""

    rule: Rule
    oracle: object = None
    equal_to: tuple = ()
    symmetries: tuple = ()
    structures: tuple = ("dense",)
    tolerance: float = 1e-10


ALL = ("orthogonal", "permutation")

RULES = {
    "SINGD": Entry(SINGD(), symmetries=("scale",), structures=("diagonal", ("dense", "identity"))),
    "SINGD's paper": Entry(SINGD.paper(1e-2, 0.1, 0.5), singd, symmetries=ALL),
    "SINGD in blocks": Entry(
        SINGD(factor_momentum=0.5), structures=(("block_diagonal:2", "lower_triangular:1"),)
    ),
    "IKFAC": Entry(IKFAC(), symmetries=("scale",), structures=("diagonal",)),
    "IKFAC's paper": Entry(IKFAC.paper(1e-2, 0.1), ikfac, symmetries=ALL),
    "KFAC": Entry(KFAC(), symmetries=("scale", "permutation"), structures=("diagonal",)),
    "KFAC's paper": Entry(KFAC.paper(1e-2), kfac, structures=("dense", "block_diagonal:2")),
    "KFAC's paper by roots": Entry(
        dataclasses.replace(KFAC.paper(1e-2), inverse_method="root"),
        kfac,
        equal_to=(KFAC.paper(1e-2),),
        structures=("dense", ("block_diagonal:2", "diagonal")),
    ),
    "KFAC by eigenvectors": Entry(
        KFAC(inverse_method="eigh"), symmetries=("scale",), structures=("dense",), tolerance=1e-8
    ),
    "Shampoo": Entry(
        Shampoo(eps=0.03),
        shampoo,
        equal_to=(Shampoo(eps=0.03, root_method="newton"),),
        symmetries=("scale", "transpose", *ALL),
        structures=("dense", ("identity", "block_diagonal:2")),
        tolerance=1e-7,
    ),
    "CASPR": Entry(CASPR(eps=0.03), caspr, symmetries=("transpose",), structures=("dense",)),
    "InverseFreeShampoo": Entry(
        InverseFreeShampoo(),
        symmetries=("scale", "transpose"),
        structures=(("diagonal", "identity"),),
    ),
    "InverseFreeShampoo's paper": Entry(
        InverseFreeShampoo.paper(1.0, 1e-2, 0.1, 0.5), inverse_free_shampoo, symmetries=ALL
    ),
    "polar SINGD": Entry(
        Polar(SINGD()), symmetries=("scale",), structures=("diagonal", ("dense", "identity"))
    ),
    "polar SINGD's paper": Entry(
        Polar(SINGD.paper(1e-2, 0.1, 0.5), iteration="polar_express", steps=12),
        polar(singd),
        equal_to=(Polar(SINGD.paper(1e-2, 0.1, 0.5), iteration="quintic", steps=40),),
        symmetries=ALL,
        tolerance=1e-9,
    ),
    "soft KFAC's paper": Entry(
        Polar(KFAC.paper(1e-2), softness=0.5, iteration="quintic", steps=20),
        polar(kfac, 0.5),
        tolerance=1e-9,
    ),
    "soft KFAC by eigenvectors": Entry(
        Polar(KFAC(inverse_method="eigh"), softness=0.5), symmetries=("scale",), tolerance=1e-8
    ),
    "soft IKFAC": Entry(Polar(IKFAC(), softness=2.0), structures=("lower_toeplitz",)),
    "SOAP": Entry(
        SOAP(), symmetries=("transpose",), structures=("dense", ("identity", "block_diagonal:2"))
    ),
    "SOAP by eigenvectors": Entry(
        SOAP(basis_method="eigh", eps=0.0), symmetries=("scale", "transpose"), tolerance=1e-7
    ),
    "factored SOAP": Entry(SOAP(second_moment="factored"), symmetries=("transpose",)),
    # What the first gradient leaves open is turned at will: a side that it spans is not.
    "KLShampoo": Entry(
        KLShampoo(),
        symmetries=("scale", "transpose"),
        structures=(("dense", "diagonal"), ("dense", "identity")),
        tolerance=1e-7,
    ),
    "KLShampoo in blocks": Entry(KLShampoo(), structures=("dense", ("block_diagonal:2", "dense"))),
    "diagonal KLShampoo": Entry(
        KLShampoo(), symmetries=("scale", "permutation"), structures=("diagonal",)
    ),
    "KLSOAP": Entry(
        KLSOAP(adam_eps=0.0),
        symmetries=("scale", "transpose"),
        structures=(("dense", "diagonal"),),
        tolerance=1e-7,
    ),
    "PSGDKron": Entry(
        PSGDKron(damping=0.0),
        symmetries=("scale", "transpose", "permutation"),
        structures=("dense", ("diagonal", "identity"), ("block_diagonal:2", "diagonal")),
        tolerance=1e-8,
    ),
    "PSGDKron by QUAD": Entry(
        PSGDKron(damping=0.0, geometry="QUAD"), symmetries=("scale", *ALL), tolerance=1e-8
    ),
    "PSGDKron by QEQ": Entry(
        PSGDKron(geometry="QEQ", damping=0.0), structures=("dense", "diagonal")
    ),
    "NorMuon": Entry(
        NorMuon(eps=0.0), symmetries=("scale",), structures=("dense",), tolerance=1e-8
    ),
    "InverseFreeKLShampoo": Entry(
        InverseFreeKLShampoo(),
        symmetries=("scale", "transpose", *ALL),
        structures=("dense", ("block_diagonal:2", "diagonal"), ("identity", "dense")),
        tolerance=1e-6,
    ),
    "SPlus": Entry(SPlus(), symmetries=("scale",), structures=(("dense", "identity"),)),
    "SM3": Entry(SM3(), symmetries=("scale", "transpose")),
    "Sketchy": Entry(
        Sketchy(eps=0.03),
        shampoo,
        equal_to=(Shampoo(eps=0.03),),
        symmetries=("scale", "transpose", *ALL),
        structures=("dense", ("identity", "dense")),
    ),
    "Sketchy of rank 2": Entry(
        Sketchy(eps=0.03, rank=2), symmetries=("scale", "transpose", *ALL), tolerance=1e-8
    ),
    "Shampoo that whitens": Entry(
        Shampoo(eps=0.03, root=2, trace_scaled=True),
        trace_scaled(2, 0.03),
        symmetries=("scale", "transpose", *ALL),
        structures=("dense", ("identity", "block_diagonal:2")),
    ),
    "TNT": Entry(TNT(eps=0.1), trace_scaled(1, 0.1), symmetries=("scale", "transpose", *ALL)),
    "Jorge": Entry(
        Jorge(initial_moment=0.5),
        lambda steps: list(jorge(steps)),
        symmetries=("transpose", *ALL),
        structures=("dense", ("block_diagonal:2", "diagonal")),
    ),
    "EvaS": Entry(
        EvaS(damping=0.5, damping_mode="absolute", factor_learning_rate=0.3),
        lambda steps: list(eva_s(steps)),
        symmetries=("transpose", "permutation"),
    ),
    "relative EvaS": Entry(EvaS(), symmetries=("scale",)),
    "MiniBlockFisher": Entry(
        MiniBlockFisher(b2=0.8, damping=0.3),
        lambda steps: list(mini_block_fisher(steps)),
        symmetries=("scale", *ALL),
        structures=("dense", "diagonal", ("block_diagonal:2", "dense")),
    ),
    "absolute MiniBlockFisher": Entry(
        MiniBlockFisher(damping_mode="absolute"), symmetries=ALL, structures=("dense",)
    ),
    "polar InverseFreeShampoo": Entry(
        Polar(InverseFreeShampoo()), symmetries=("scale", "transpose")
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


class GoodState(NamedTuple):
    K: RowFactor
    S: RowMoment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Good(Rule):
    """One-sided: the inverse of the average second moment of the inputs.

    Attributes:
      damping: λ.
    """

    damping: float = 0.1

    State: ClassVar[type] = GoodState

    @property
    def measures(self):
        return (Moments(),)

    def init(self, view):
        dense = view.structures[0]
        return GoodState(
            dense.eye(view.dims[0], view.factor_dtype[0], view.stack_shape),
            dense.zeros(view.dims[0], view.statistics_dtype, view.stack_shape),
        )

    def refresh(self, view, state, statistics, gradient, count, key):
        S = state.S * 0.9 + statistics.H_K * 0.1
        damped = S.add_identity(hyperparameter_at(self.damping, count) * statistics.mean_U)
        inverse = jax.tree.map(lambda blocks: jnp.linalg.inv(blocks), damped)
        return state._replace(K=inverse, S=S), True

    def direction(self, view, state, vector, gradient, count):
        return state.K @ vector, state


class Unknown(NamedTuple):
    K: jax.Array


class WrongDtype(NamedTuple):
    K: RowFactor
    S: RowMoment
    count: Annotated[jax.Array, Role("counter")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoRoles(Good):
    """No roles."""

    State: ClassVar[type] = Unknown


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixesStacks(Good):
    """Looks at the whole stack."""

    def direction(self, view, state, vector, gradient, count):
        return state.K @ vector / jnp.linalg.norm(vector), state


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountsInFloats(Good):
    """A counter of floats."""

    State: ClassVar[type] = WrongDtype

    def init(self, view):
        return WrongDtype(*super().init(view), jnp.zeros(view.stack_shape))

    def refresh(self, view, state, statistics, gradient, count, key):
        new, ok = super().refresh(
            view, GoodState(state.K, state.S), statistics, gradient, count, key
        )
        return WrongDtype(*new, state.count + 1), ok


@dataclasses.dataclass(frozen=True, kw_only=True)
class DependsOnScale(Good):
    """A constant beside the gradient."""

    def direction(self, view, state, vector, gradient, count):
        return state.K @ vector + 1, state


def test_a_rule_of_ones_own():
    check_rule(Good(), symmetries=["orthogonal", "scale"], structures=["dense"])


@pytest.mark.parametrize(
    ("rule", "error", "match"),
    [
        (NoRoles(), TypeError, "says no role"),
        (MixesStacks(), AssertionError, "another stack"),
        (CountsInFloats(), AssertionError, "The counter 'count'"),
        (DependsOnScale(), AssertionError, "scale symmetry"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Rule) else None,
)
def test_what_is_wrong_is_found(rule, error, match):
    with pytest.raises(error, match=match):
        check_rule(rule, symmetries=["scale"], structures=["dense"])


def test_a_wrong_oracle():
    double = lambda steps: [2 * direction for direction in shampoo(steps)]
    with pytest.raises(AssertionError, match="not as the oracle"):
        check_rule(Shampoo(eps=0.03), oracle=double, structures=["dense"])
    with pytest.raises(ValueError, match=r"'sacle'.*Did you mean 'scale'"):
        check_rule(Shampoo(), symmetries=["sacle"])
