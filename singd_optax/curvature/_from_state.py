"""The curvature that an optimizer has in its state."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_number
from singd_optax.curvature._block import Block
from singd_optax.curvature._blocks import moments_block
from singd_optax.curvature._curvature import Curvature
from singd_optax.curvature._make import make_curvature
from singd_optax.curvature._views import View
from singd_optax.layers import Layers
from singd_optax.layers._check import check_layers, check_params
from singd_optax.layers._check_state import check_factors
from singd_optax.layers._states import known_rule_states
from singd_optax.layers._tree import Leaves
from singd_optax.optimizers._ekfac import EKFACState
from singd_optax.optimizers._ikfac import IKFACState
from singd_optax.optimizers._kfac import EigenKFACState, KFACState, RootKFACState
from singd_optax.optimizers._singd import SINGDState
from singd_optax.placement import on_auto_axes
from singd_optax.rules._inverse import eigen
from singd_optax.structures import (
    BlockDiagonalMatrix,
    DenseMatrix,
    DiagonalMatrix,
    StructuredMatrix,
)


def from_opt_state(
    opt_state: PyTree,
    layers: Layers,
    params: PyTree,
    *,
    terms: ArrayLike,
    factor_learning_rate: float | None = 0.05,
) -> Curvature:
    """The curvature of the last batches, from the state of an optimizer that keeps it.

    States of singd, ingd and ikfac have roots of a damped inverse: H = terms * (K Kᵀ ⊗ C Cᵀ)^-1,
    in which their damping is a part of H. Those of kfac have moving averages of second moments,
    H = terms * S_K ⊗ S_C, without any damping; those of ekfac the diagonal in the eigenbases of
    these. Averages are of batches at parameters of the past, so that ``fit`` is what to trust; this
    is at hand, and costs one eigendecomposition for each side of each layer. The optimizer's
    gradient function should have had ``fisher="mc"``, for a Gauss-Newton matrix.

    Args:
      opt_state: Of singd, ingd, ikfac, kfac or ekfac, also inside of what optax wraps around.
      layers: Those of the optimizer.
      params: Like the parameters; their values do not matter.
      terms: Over how many terms the summed negative log-likelihood runs: training examples for a
        loss that is a mean over examples (``loss_average="batch"``), tokens for
        ``"batch+sequence"``; 1 for a sum.
      factor_learning_rate: That of ``kfac``, whose averages start at 0 and are divided by
        1 - (1 - rate)^t here; None for ``bias_correction=False``. Others do not need it.

    Returns:
      A ``Curvature`` in the units of that sum; ``nll`` is NaN.

    Raises:
      TypeError: ``layers`` is something else.
      ValueError: The state is of another optimizer or other layers, or has no statistics yet.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> tx = singd_optax.singd(0.1, layers)
      >>> opt_state = tx.init(params)
      >>> curvature = singd_optax.curvature.from_opt_state(opt_state, layers, params, terms=8)
      >>> float(curvature.trace())  # factors are I at the start: 8 for each of 18 parameters
      144.0
    """
    check_layers(layers)
    check_number("terms", terms, strict=True, schedule=False)
    if factor_learning_rate is not None:
        check_number(
            "factor_learning_rate", factor_learning_rate, strict=True, maximum=1, schedule=False
        )
    own = {
        path: one
        for state in known_rule_states(opt_state)
        for path, one in dict(state.rule_states).items()
    }
    if not set(own) <= set(layers):
        raise ValueError(
            f"`opt_state` is of other layers: it has {sorted(set(own) - set(layers))[:10]}, and "
            f"`layers` have {list(layers)}. Pass the layers that the optimizer was made with."
        )
    views: dict[str, View] = {path: layers[path] for path in layers if path in own}
    check_params([layers[path] for path in views], Leaves(params), "params")
    blocks = {}
    for path in views:
        if isinstance(own[path], tuple(_READERS)):
            check_factors(layers[path], own[path])
        blocks[path] = _block(path, own[path], factor_learning_rate).scaled(terms)
    return make_curvature(blocks, views, params, terms=terms)


def _block(path: str, state: PyTree, rate: float | None) -> Block:
    for kind, read in _READERS.items():
        if isinstance(state, kind):
            if not _has_statistics(state):
                raise ValueError(
                    f"The state of layer {path!r} has no statistics yet. Take a step with the "
                    "optimizer first, or use fit."
                )
            if read is _of_moments:
                read = functools.partial(_of_averages, rate)
            return on_auto_axes(read, jax.tree.map(_wide, state))
    raise ValueError(
        f"No curvature can be read from a {type(state).__name__}, of layer {path!r}: it must be of "
        "singd, ingd, ikfac, kfac or ekfac. Use singd_optax.curvature.fit, which needs no "
        "optimizer."
    )


def _has_statistics(state: PyTree) -> bool:
    averaged: PyTree = getattr(state, "averaged", 1)
    return isinstance(averaged, jax.core.Tracer) or bool(np.all(np.asarray(averaged) > 0))


def _of_roots(state: SINGDState | IKFACState) -> Block:
    """(K Kᵀ)^-1 ⊗ (C Cᵀ)^-1."""
    (K, rows), (C, columns) = eigen(_gram(state.K)), eigen(_gram(state.C))
    return Block(K, C, 1 / (rows[..., :, None] * columns[..., None, :]))


def _of_moments(state: KFACState | RootKFACState | EigenKFACState) -> Block:
    return moments_block(state.S_K, state.S_C)


def _of_averages(rate: float | None, state: KFACState | RootKFACState | EigenKFACState) -> Block:
    """Of averages that started at 0."""
    if rate is None:
        return _of_moments(state)
    weight = 1 - (1 - rate) ** state.averaged.astype(state.S_K.dtype)
    return _of_moments(state._replace(S_K=state.S_K * (1 / weight), S_C=state.S_C * (1 / weight)))


def _of_scales(state: EKFACState) -> Block:
    return Block(state.K, state.C, jnp.maximum(state.scales, 0))


_READERS: dict[type, Callable[[PyTree], Block]] = {
    SINGDState: _of_roots,
    IKFACState: _of_roots,
    KFACState: _of_moments,
    RootKFACState: _of_moments,
    EigenKFACState: _of_moments,
    EKFACState: _of_scales,
}


def _gram(matrix: StructuredMatrix) -> StructuredMatrix:
    """A Aᵀ, dense where the structure has no eigenvectors of its own."""
    if isinstance(matrix, DiagonalMatrix):
        return DiagonalMatrix(matrix.diagonal**2)
    if not isinstance(matrix, DenseMatrix | BlockDiagonalMatrix):
        matrix = DenseMatrix(matrix.to_dense())
    return jax.tree.map(
        lambda one: jnp.einsum("...ij,...kj->...ik", one, one, precision="highest"), matrix
    )


def _wide(leaf: jax.Array) -> jax.Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
