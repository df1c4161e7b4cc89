"""Real architectures: all layers found, gradients JAX's own, steps finite, one compilation."""

import jax
import numpy as np
import optax
import pytest
from architectures import ARCHITECTURES

import singd_optax

STEPS = 3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(name):
    case = ARCHITECTURES[name]
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = jax.jit(case.model.init)(rngs, *case.inputs(case.batch))
    params = variables.pop("params")

    def loss_fn(params, variables, batch):
        def apply(*args, **kwargs):
            return case.model.apply(
                {"params": params, **variables}, *args, mutable=list(variables), **kwargs
            )

        return case.loss(apply, batch)

    layers = singd_optax.find_layers(loss_fn, params, variables, case.batch, **case.options)
    assert {path: spec.kind for path, spec in layers.items()} == case.kinds
    left = {path: why for path, shape, why in layers.others if len(shape) >= 2}
    for path, why in left.items():
        reasons = [reason for part, reason in case.others.items() if part in path]
        assert reasons, f"{path} is in no layer: {why}"
        assert reasons[0] in why
    assert all(any(part in path for path in left) for part in case.others)

    tx = singd_optax.singd(0.02, layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers, has_aux=True)

    @jax.jit
    def step(params, opt_state, variables):
        (value, mutated), grads, curvature = grad_fn(
            params, variables, case.batch, opt_state=opt_state
        )
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
        new_params = optax.apply_updates(params, updates)
        plain = jax.grad(loss_fn, has_aux=True)(params, variables, case.batch)
        return new_params, opt_state, {**variables, **mutated}, value, grads, plain

    opt_state, values = jax.jit(tx.init)(params), []
    start = singd_optax.factors(opt_state)
    for _ in range(STEPS):
        params, opt_state, variables, value, grads, plain = step(params, opt_state, variables)
        want, mutated = plain
        assert jax.tree.structure(grads) == jax.tree.structure(want)
        largest = max(np.abs(g).max() for g in jax.tree.leaves(want))
        jax.tree.map(
            lambda a, b, scale=largest: np.testing.assert_allclose(a, b, atol=2e-5 * scale),
            grads,
            want,
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            {key: variables[key] for key in mutated},
            dict(mutated),
        )
        values.append(float(value))
    assert step._cache_size() == 1
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves((params, opt_state)))
    skipped = optax.tree.get(opt_state, "skipped_refreshes")
    assert not any(int(np.sum(count)) for count in skipped.values())
    assert values[-1] < values[0]
    factors = singd_optax.factors(opt_state)
    for path, pair in factors.items():
        for factor, first in zip(pair, start[path], strict=True):
            leaves = zip(jax.tree.leaves(factor), jax.tree.leaves(first), strict=True)
            has_moved = any(np.any(np.asarray(a) != np.asarray(b)) for a, b in leaves)
            assert has_moved, f"a factor of {path} has never moved"
