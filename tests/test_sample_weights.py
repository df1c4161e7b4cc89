"""Weights drawn around the mean: their covariance is the preconditioner of the rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import loss_fn, problem

import singd_optax
from singd_optax.layers import rule_states
from singd_optax.optimizers import EKFAC, KFAC, SINGD, Shampoo
from singd_optax.transforms import sample_weights

RULES = {
    "KFAC by roots": (KFAC(inverse_method="root"), "dense"),
    "KFAC by eigenvectors": (KFAC(inverse_method="eigh"), "dense"),
    "EKFAC": (EKFAC(), "dense"),
    "VOGN": (EKFAC(damping=1e-3, damping_mode="absolute"), "diagonal"),
    "SINGD": (SINGD(), ("dense", "diagonal")),
    "SINGD with cross moments": (SINGD(cross_moments=True), ("hierarchical:1,1", "dense")),
}


def trained(rule, structures):
    """Layers and a state after one step."""
    params, layers, x, y = problem()
    layers = layers.replace("", structures=structures)
    tx = singd_optax.scale_by_rule(rule, layers)
    opt_state = tx.init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    _, grads, curvature = jax.jit(grad_fn)(params, x, y, opt_state=opt_state)
    return params, layers, jax.jit(tx.update)(grads, opt_state, params, curvature=curvature)[1]


@pytest.mark.parametrize("name", RULES)
def test_covariance(name):
    rule, structures = RULES[name]
    params, layers, opt_state = trained(rule, structures)
    spec = layers["second"]
    (state,) = rule_states(opt_state)
    own = state.rule_states["second"]
    units = jnp.eye(12).reshape(12, *spec.dims)
    want = jax.vmap(lambda u: rule.direction(spec, own, u, u, state.rule_count)[0])(units)
    want = want.reshape(12, 12)

    def drawn(key):
        moved = sample_weights(rule, layers, opt_state, params, key, scale=0.25)
        off = jax.tree.map(jnp.subtract, moved, params)
        return off["second"]["kernel"].reshape(-1), off["norm"]["scale"]

    kernels, others = jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(0), 40_000))
    assert not others.any()
    got = kernels.T @ kernels / len(kernels)
    assert np.linalg.norm(got - 0.25 * want) < 0.03 * np.linalg.norm(0.25 * want)
    assert np.abs(kernels.mean(0)).max() < 0.05 * np.sqrt(np.diag(got).max())


def test_vogn_has_the_squares_of_each_example():
    """The variances of diagonal EKFAC, from explicit gradients of one example at a time."""
    rule, structures = RULES["VOGN"]
    params, layers, opt_state = trained(rule, structures)
    (state,) = rule_states(opt_state)
    _, _, x, y = problem()
    each = jax.vmap(lambda a, b: jax.grad(loss_fn)(params, a[None], b[None]))(x, y)
    squares = jnp.mean(each["second"]["kernel"] ** 2, 0)
    spec = layers["second"]
    deviations = rule.unwhiten(spec, state.rule_states["second"], jnp.ones(spec.dims))
    np.testing.assert_allclose(deviations**2, 1 / (squares + 1e-3), rtol=1e-4)


def test_errors():
    params, layers, opt_state = trained(KFAC(), "dense")
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="not a root"):
        sample_weights(KFAC(), layers, opt_state, params, key)
    with pytest.raises(ValueError, match="no factors that whiten"):
        sample_weights(Shampoo(), layers, opt_state, params, key)
    with pytest.raises(ValueError, match="is of the rule 'KFAC'"):
        sample_weights(SINGD(), layers, opt_state, params, key)
    rule = KFAC(inverse_method="root")
    with pytest.raises(ValueError, match="keeps a RootKFACState"):
        sample_weights(rule, layers, opt_state, params, key)
    with pytest.raises(ValueError, match="which `layers` have not"):
        sample_weights(rule, layers.without("second"), opt_state, params, key)
    with pytest.raises(TypeError, match="must be a singd_optax"):
        sample_weights(SINGD, layers, opt_state, params, key)
