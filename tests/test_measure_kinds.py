"""Measures beside moments, of every kind of layer, from explicit rows by plain autodiff."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import randomized
from test_kinds import CASES, close, dense, explicit, flat, loss_of, projection, weights_of

import singd_optax
from singd_optax.layers import RuleState
from singd_optax.measures import (
    Cross,
    Mean,
    Moments,
    MomentTotals,
    Sketch,
    Squares,
    SquareTotals,
)
from singd_optax.optimizers import KFAC
from singd_optax.structures import Diagonal, Identity, StructuredMatrix

pytestmark = pytest.mark.usefixtures("x64")

BASIS, WEIGHTS = ("K", "C"), ("S_K", "S_C")
ALL = (
    Moments(structures=(Diagonal(), Identity())),
    Mean(0),
    Mean(1),
    Squares(),
    Squares(BASIS),
    Cross(),
    Cross(weighted_by=WEIGHTS),
    Cross(whitened_by=BASIS),
    Sketch(0, 3),
    Sketch(1, 2),
    MomentTotals(),
    SquareTotals(BASIS),
)
EXACT = Squares(BASIS, exact=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measuring(KFAC):
    """KFAC with all that can be measured."""

    wanted: tuple = ALL

    @property
    def measures(self):
        return self.wanted


def prepared(state):
    """Random K and C, and S = K Kᵀ, positive semi-definite."""

    def put(node):
        if not isinstance(node, RuleState):
            return node
        own = {
            path: one._replace(
                S_K=one.S_K.structure.project(gram(one.K)),
                S_C=one.S_C.structure.project(gram(one.C)),
            )
            for path, one in node.rule_states.items()
        }
        return node._replace(rule_states=own)

    def gram(matrix):
        dense = matrix.to_dense()
        return dense @ jnp.swapaxes(dense, -1, -2)

    return jax.tree.map(put, randomized(state), is_leaf=lambda x: isinstance(x, RuleState))


def collapsed(spec, a, g, w):
    """Rows (batch, shared, features) as the layer's approximation wants them, and their count."""
    g = g * (w > 0)[..., None]
    if spec.kfac_approx != "reduce":
        return a, g, w, w.sum()
    keep = (w > 0).any(1)
    a = (np.einsum("ns,nsi->ni", w, a)[keep] / w.sum(1)[keep, None])[:, None]
    return a, g[keep].sum(1, keepdims=True), np.ones((keep.sum(), 1)), keep.sum()


def expected(measure, spec, a, g, w, own):
    """One matrix; a and g are (batch, shared, features)."""
    undo = {"batch": (w > 0).any(1).sum(), "batch+sequence": w.sum(), None: 1}[spec.loss_average]
    a, g, w, count = collapsed(spec, a, g, w)
    if isinstance(measure, Moments):  # of inputs, diagonal
        return [np.diagflat(np.einsum("ns,nsi->i", w, a**2)) / count]
    if isinstance(measure, Mean):
        return [g.sum((0, 1)) if measure.side else np.einsum("ns,nsi->i", w, a) / count]
    if isinstance(measure, Sketch):
        rows, scale = (g, undo) if measure.side else (a * w[..., None] ** 0.5, 1 / count)
        moment = np.einsum("nsi,nsj->ij", rows, rows) * scale
        if spec.structures[measure.side] == Diagonal():
            return [np.diagflat(np.diag(moment))]
        return [moment @ own[f"columns {measure.side}"]]
    if isinstance(measure, Squares):
        K, C = (own[name] for name in measure.basis or ("I_K", "I_C"))
        a, g = a @ K, g @ C
        undo = undo**2 if isinstance(measure, SquareTotals) else undo
        if measure.exact:
            return [(np.einsum("nsi,nso->nio", a, g) ** 2).sum(0) * undo]
        return [np.einsum("nsi,nso->io", a**2, g**2) * undo]
    if isinstance(measure, MomentTotals):
        moments = np.einsum("ns,nsi,nsj->ij", w, a, a), np.einsum("nsi,nsj->ij", g, g)
        return [moments[0], moments[1] * undo**2, count]
    W_K, W_C = (own[name] for name in measure.weighted_by or ("I_K", "I_C"))
    if measure.weighted_by:
        W_K, W_C = (W / np.linalg.norm(W) for W in (W_K, W_C))
    if measure.whitened_by:
        a, g = a @ own["K"], g @ own["C"]
    sizes = np.einsum("nsi,ij,nsj->ns", a, W_K, a), np.einsum("nsi,ij,nsj->ns", g, W_C, g)
    return [
        np.einsum("ns,nsi,nsj->ij", sizes[1], a, a) * undo,
        np.einsum("ns,nsi,nsj->ij", sizes[0], g, g) * undo,
        (sizes[0] * sizes[1]).sum() * undo,
    ]


def check(name, measures=ALL, weights=None, **options):
    module = CASES[name][0]
    params, x, a, g = explicit(name)

    def loss_fn(params, x):
        with singd_optax.position_weights(*([] if weights is None else [jnp.asarray(weights)])):
            return loss_of(module.apply({"params": params["layer"]}, x))

    tree = {"layer": params}
    layers = singd_optax.find_layers(loss_fn, tree, x, strict=True, **options)
    spec = layers["layer"]
    tx = singd_optax.scale_by_rule(Measuring(wanted=measures), layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    def entries(value):
        """Arrays (matrices, ...), dense ones of structured matrices."""
        is_matrix = lambda node: isinstance(node, StructuredMatrix)
        form = lambda node: dense(node, spec) if is_matrix(node) else flat(node, spec)
        return jax.tree.leaves(jax.tree.map(form, value, is_leaf=is_matrix))

    @jax.jit
    def run(tree, x):
        state = prepared(tx.init(tree))
        found = grad_fn(tree, x, opt_state=state)[2]["layer"]
        own = state.rule_states["layer"]
        assert not jax.tree.leaves(found.H_C)
        values = [
            found.H_K if isinstance(measure, Moments) else found.value_of(measure)
            for measure in measures
        ]
        columns = {f"columns {m.side}": m.columns(spec) for m in measures if isinstance(m, Sketch)}
        fields = {n: dense(getattr(own, n), spec) for n in (*BASIS, *WEIGHTS)}
        return fields, [entries(value) for value in values], columns

    fields, values, columns = jax.tree.map(np.asarray, run(tree, x))
    w = weights_of(weights, g)
    for i in range(len(a)):
        mine = {n: field[i] for n, field in fields.items()} | columns
        mine |= {"I_K": np.eye(spec.fan_in), "I_C": np.eye(spec.fan_out)}
        for measure, value in zip(measures, values, strict=True):
            want = expected(measure, spec, a[i], g[i], w, mine)
            assert len(value) == len(want)
            if isinstance(measure, Cross | MomentTotals):
                for found, full, structure in zip(
                    value[:2], want[:2], spec.structures, strict=True
                ):
                    close(found[i], projection(structure)(full), np.abs(full).max())
                close(value[2][i], want[2])
            else:
                close(value[0][i], want[0])


@pytest.mark.parametrize("name", CASES)
def test_every_kind(name):
    check(name, measures=(*ALL, EXACT))


@pytest.mark.parametrize("loss_average", ["batch", "batch+sequence", None])
@pytest.mark.parametrize("name", ["conv2_strides", "transpose1", "einsum_batch", "embed"])
def test_reduce_and_averages(name, loss_average):
    check(name, kfac_approx="reduce", loss_average=loss_average)


@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
@pytest.mark.parametrize("name", ["dense", "conv2", "embed"])
def test_position_weights(name, kfac_approx):
    weights = np.ones((4, 5))
    weights[0, 3:] = weights[2, 1:] = weights[3] = 0
    if name == "conv2":
        weights = np.array([1.0, 0.0, 1.0, 1.0])
    check(
        name,
        weights=weights,
        structures=("block_diagonal:4", "diagonal"),
        kfac_approx=kfac_approx,
        loss_average="batch+sequence",
    )


def test_exact_squares_of_collapsed_positions_are_refused():
    with pytest.raises(ValueError, match="kfac_approx='expand'"):
        check("dense", measures=(EXACT,), kfac_approx="reduce")
