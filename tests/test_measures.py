"""A measure beside moments: formed, scaled, accumulated and handed to its rule as moments are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from contract import loss_fn, problem

import singd_optax
from singd_optax.measures import Measure, Moments
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
    _, grads, curvature = jax.jit(grad_fn)(params, x, y, opt_state=opt_state)
    _, _, scaled = grad_fn(params, x, y, opt_state=opt_state, loss_scale=64.0)
    _, _, parts = microbatch(grad_fn, layers, 8, argnums=(1, 2))(params, x, y, opt_state=opt_state)
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
