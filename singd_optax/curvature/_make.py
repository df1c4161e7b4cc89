"""A curvature of blocks that somebody has."""

import functools
from collections.abc import Mapping

import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._types import PyTree
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

    Example:
      >>> import jax.numpy as jnp
      >>> curvature = from_diagonal({"w": jnp.array([1.0, 3.0])})
      >>> float(curvature.trace())
      4.0
    """
    leaves = Leaves(diagonal)
    views: dict[str, View] = {path: Single(path, jnp.shape(leaves[path])) for path in leaves}
    check_tree(views.values(), diagonal, "diagonal")
    matrices = on_auto_axes(functools.partial(matrices_of, views.values()), diagonal)
    blocks = {path: diagonal_block(matrix) for path, matrix in matrices.items()}
    return make_curvature(blocks, views, diagonal)
