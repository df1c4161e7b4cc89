"""SINGD's structured factors at fixed parameters: one refresh on each batch."""

import dataclasses
import functools
import itertools
from collections.abc import Hashable

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.curvature._batches import (
    Batches,
    arguments,
    check_batch,
    copied_to,
    form_of,
    no_batch,
    whole_beside,
)
from singd_optax.curvature._curvature import Curvature
from singd_optax.curvature._estimate import Estimate
from singd_optax.curvature._fit_state import FitState, OnBatch, check_fit_state
from singd_optax.curvature._from_state import from_opt_state
from singd_optax.optimizers import scale_by_singd

DEFAULTS: dict[str, PyTree] = {"damping": 1e-3, "factor_learning_rate": 0.05}


def fit_singd(
    estimate: Estimate,
    params: PyTree,
    batches: Batches,
    options: dict[str, PyTree],
    on_batch: OnBatch | None,
    state: FitState | None,
) -> Curvature:
    """What the factors are after the last batch, see ``fit``."""
    tx = scale_by_singd(estimate.layers, **(DEFAULTS | options))
    grad_fn = estimate.loss.value_and_grad(
        estimate.layers,
        fisher=estimate.fisher,
        seed=estimate.seed,
        precision=estimate.precision,
    )

    where = whole_beside(params)

    @functools.partial(jax.jit, out_shardings=where)
    def step(params: PyTree, sums: PyTree, batch: tuple[PyTree, ...]) -> PyTree:
        opt_state, nll, terms = sums
        value, grads, curvature = grad_fn(params, *batch, opt_state=opt_state, refresh=True)
        _, opt_state = tx.update(grads, opt_state, params, curvature=curvature, refresh=True)
        new = estimate.terms(params, batch)
        return opt_state, nll + value * new, terms + new

    sums: PyTree = (tx.init(params), jnp.zeros([]), jnp.zeros([]))
    seen = 0
    if state is not None:
        check_fit_state(state, sums, 1)
        sums, seen = state.sums, int(state.seen)
    sums = copied_to(sums, where)
    forms: set[Hashable] = set()
    for batch in itertools.islice(arguments(batches), seen, None):
        form = form_of(batch)
        if form not in forms:
            forms.add(form)
            check_batch(estimate.loss.loss_fn, params, batch)
        sums = step(params, sums, batch)
        seen += 1
        if on_batch is not None:
            on_batch(FitState(0, seen, sums))
    if seen == 0:
        raise no_batch("batches", batches)
    opt_state, nll, terms = sums
    found = from_opt_state(opt_state, estimate.layers, params, terms=terms)
    return dataclasses.replace(found, nll=nll)
