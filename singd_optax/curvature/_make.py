"""A curvature of blocks that somebody has."""

import functools
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import is_known
from singd_optax.curvature._block import Block, diagonal_block
from singd_optax.curvature._curvature import Curvature, _Template
from singd_optax.curvature._views import Single, View, check_tree, matrices_of
from singd_optax.layers._tree import Leaves
from singd_optax.placement import gathered, on_auto_axes


def make_curvature(
    blocks: Mapping[str, Block],
    views: Mapping[str, View],
    params: PyTree,
    nll: ArrayLike = jnp.nan,
    terms: ArrayLike = jnp.nan,
) -> Curvature:
    """A ``Curvature`` of these blocks, whole on each device, in the order of the views."""
    return Curvature(
        gathered({path: blocks[path] for path in views}),
        jnp.asarray(nll),
        jnp.asarray(terms),
        tuple(views.values()),
        _Template(params),
    )


def from_diagonal(diagonal: PyTree) -> Curvature:
    """The curvature with this diagonal, for methods that have one: squares of gradients, a prior.

    Args:
      diagonal: A tree like the parameters, >= 0, in the units of the summed negative
        log-likelihood.

    Returns:
      A ``Curvature`` with a block for each array.

    Raises:
      ValueError: An entry is below zero, or NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> curvature = from_diagonal({"w": jnp.array([1.0, 3.0])})
      >>> float(curvature.trace())
      4.0
    """
    leaves = Leaves(diagonal)
    for path in leaves:
        array = leaves[path]
        if is_known(array) and not bool(np.all(np.asarray(array) >= 0)):
            raise ValueError(
                f"`diagonal` must be >= 0, got {np.min(array):.3g} at {path!r}. Pass the diagonal "
                "of a Gauss-Newton or Fisher matrix, as squares of gradients are."
            )
    views: dict[str, View] = {path: Single(path, jnp.shape(leaves[path])) for path in leaves}
    check_tree(views.values(), diagonal, "diagonal")
    matrices = on_auto_axes(functools.partial(matrices_of, views.values()), diagonal)
    blocks = {path: diagonal_block(matrix) for path, matrix in matrices.items()}
    return make_curvature(blocks, views, diagonal)
