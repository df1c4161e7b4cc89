"""A measure beside moments: formed, scaled, accumulated and handed to its rule as moments are."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import loss_fn, problem

import singd_optax
from singd_optax.measures import Cross, Mean, Measure, Moments, Squares
from singd_optax.optimizers import KFAC
from singd_optax.training import microbatch


@dataclasses.dataclass(frozen=True)
class SquaredGradients(Measure):
    """The mean square of each output's gradient: the diagonal of G."""

    @property
    def degrees(self):
        return 0, 2

    @property
    def fields(self):
        return ()

    def zeros(self, view):
        return jnp.zeros((*view.stack_shape, view.dims[1]), view.statistics_dtype)

    def of_rows(self, view, inputs, gradients, state, precision):
        rows = gradients.rows.rows.reshape(-1, view.dims[1])
        return (rows**2).sum(0) * gradients.scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measuring(KFAC):
    """KFAC that wants more, and sees it at each refresh."""

    @property
    def measures(self):
        return (Moments(), SquaredGradients())

    def refresh(self, view, state, statistics, gradient, count, key):
        (other,) = statistics.others
        diagonal = jnp.diagonal(statistics.H_C.to_dense(), axis1=-2, axis2=-1)
        off = jnp.abs(other.value - diagonal).max() > 1e-4 * diagonal.max()
        new, _ = super().refresh(view, state, statistics, gradient, count, key)
        return new, jnp.logical_not(off)


def test_another_measure():
    params, layers, x, y = problem()
    tx = singd_optax.optimizer(0.05, Measuring(), layers)
    opt_state = tx.init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    in_parts = microbatch(grad_fn, layers, 8, argnums=(1, 2))

    @jax.jit
    def measured(params, opt_state, x, y):
        _, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
        _, _, scaled = grad_fn(params, x, y, opt_state=opt_state, loss_scale=64.0)
        return grads, curvature, scaled, in_parts(params, x, y, opt_state=opt_state)[2]

    grads, curvature, scaled, parts = measured(params, opt_state, x, y)
    for path, statistics in curvature.items():
        (other,) = statistics.others
        want = np.diagonal(statistics.H_C.to_dense(), axis1=-2, axis2=-1)
        assert want.max() > 0
        for got in (other, scaled[path].others[0], parts[path].others[0]):
            np.testing.assert_allclose(got.value, want, rtol=1e-3, atol=1e-7)
        assert statistics.weighed(inputs=0.5).others[0].value is other.value
    _, opt_state = jax.jit(tx.update)(grads, opt_state, params, curvature=curvature)
    (state,) = singd_optax.layers.rule_states(opt_state)
    assert all(int(count) == 0 for count in state.skipped_refreshes.values())


ALL = (Mean(0), Mean(1), Squares(("K", "C")), Squares(exact=True), Cross(), Cross(("S_K", "S_C")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuringAll(KFAC):
    """KFAC that measures all there is."""

    @property
    def measures(self):
        return (Moments(), *ALL)


def test_units_and_micro_batches():
    """A scaled loss, micro-batches and lanes of an ensemble have the values of the whole batch."""
    params, layers, x, y = problem()
    tx = singd_optax.optimizer(0.05, MeasuringAll(bias_correction=False), layers)
    opt_state = tx.init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    in_parts = microbatch(grad_fn, layers, 8, argnums=(1, 2))

    @jax.jit
    def measured(params, opt_state, x, y):
        of = lambda how, *args, **kw: how(*args, x, y, opt_state=opt_state, **kw)[2]
        ensemble = jax.tree.map(lambda p: jnp.stack([0.5 * p, p]), (params, opt_state))
        member = lambda params, opt_state: grad_fn(params, x, y, opt_state=opt_state)[2]
        lanes = jax.tree.map(lambda leaf: leaf[1], jax.vmap(member)(*ensemble))
        whole, parts = of(grad_fn, params), of(in_parts, params)
        return whole, of(grad_fn, params, loss_scale=64.0), parts, lanes

    whole, scaled, parts, lanes = measured(params, opt_state, x, y)
    for path in layers:
        for measure in ALL:
            want = whole[path].value_of(measure)
            for other in (scaled, parts, lanes):
                compare = lambda got, want: np.testing.assert_allclose(
                    got, want, rtol=1e-3, atol=1e-5 * np.abs(want).max()
                )
                jax.tree.map(compare, other[path].value_of(measure), want)


@pytest.mark.usefixtures("x64")
def test_tied():
    """Both uses add up in second moments of pairs; means of them are refused."""
    rng = np.random.default_rng(0)
    table, indices = rng.normal(size=(7, 3)), rng.integers(7, size=(4, 5))

    def loss_fn(params, indices):
        embed = nn.Embed(7, 3, param_dtype=jnp.float64)
        h = jnp.tanh(embed.apply({"params": params["embed"]}, indices))
        logits = embed.apply({"params": params["embed"]}, h, method="attend")
        return jnp.sum(jnp.sin(logits)) / 4

    params = {"embed": {"embedding": jnp.asarray(table)}}
    layers = singd_optax.find_layers(loss_fn, params, indices, structures="dense")
    tx = singd_optax.scale_by_rule(MeasuringTied(), layers)
    statistics = singd_optax.value_and_grad(loss_fn, layers)(
        params, indices, opt_state=tx.init(params)
    )[2]["embed"]
    h = np.tanh(table[indices]).reshape(-1, 3)
    g = (np.cos(h @ table.T) / 4).reshape(-1, 7)
    back = (g @ table) * (1 - h**2)
    one_hot = np.eye(7)[indices.reshape(-1)]
    uses = [(one_hot, back, statistics), (g, h, statistics.transposed)]
    for a, b, own in uses:
        squares = own.value_of(Squares())
        np.testing.assert_allclose(squares, 4 * (a**2).T @ b**2, rtol=1e-10, atol=1e-14)
        cross = own.value_of(Cross())
        sizes = (a**2).sum(1), (b**2).sum(1)
        np.testing.assert_allclose(cross.K.diagonal, 4 * sizes[1] @ a**2, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(
            cross.C.to_dense(), 4 * (sizes[0][:, None] * b).T @ b, rtol=1e-10, atol=1e-14
        )
    with pytest.raises(ValueError, match="also used as its transpose"):
        Mean(0).zeros(layers["embed"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuringTied(KFAC):
    """What tied kernels can be measured for."""

    @property
    def measures(self):
        return (Moments(), Squares(), Cross())


@pytest.mark.parametrize("fisher", ["mc", "ggn"])
def test_means_of_drawn_gradients_are_refused(fisher):
    params, layers, x, y = problem()
    opt_state = singd_optax.optimizer(0.05, MeasuringAll(), layers).init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers, fisher=fisher)
    with pytest.raises(ValueError, match="mean zero"):
        grad_fn(params, x, y, opt_state=opt_state)
