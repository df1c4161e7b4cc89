"""All matrix-shaped parameters of a tree as layers, for methods that need gradients only."""

from collections.abc import Mapping
from typing import cast

import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax._types import PyTree
from singd_optax.layers._layers import Layers, OtherParameter
from singd_optax.layers._matrices import matrix_specs
from singd_optax.layers._matrix_axes import MatrixAxes, check_matrix_axes, cut
from singd_optax.layers._spec import LayerSpec
from singd_optax.layers._tree import Leaves
from singd_optax.structures import Structure


def find_matrices(
    params: PyTree,
    *,
    structures: str | Structure | tuple[str | Structure, str | Structure] = "auto",
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
) -> Layers:
    """The parameters that are matrices, as ``Layers``: to print, to change, and to spread.

    Optimizers of gradients alone find the same by themselves. With this they can be looked at
    (``print``), given other structures by path (``replace``), left to the fallback (``without``),
    and spread over a mesh (``sharding.spread``).

    Args:
      params: Parameters, or ``jax.ShapeDtypeStruct``s of them.
      structures: Of the factors of (rows, columns), or one for both, as ``parse_structure`` takes.
      factor_dtype: Of the factors, one or a pair; None for float32 (float64 for float64).
      matrix_axes: Regular expression on a parameter's path -> (axes of rows, axes of columns),
        ``Tiles``, ``Merged``, ``UpTo``, "cut", "each", or None to leave it out; see
        ``scale_by_rule``.

    Returns:
      The layers: one for each array of two axes or more. All others are listed with the reason.

    Raises:
      ValueError: Axes do not fit, an option is not legal, or there is no matrix.
      TypeError: An option is of another type.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> matrices = singd_optax.find_matrices(params, structures="diagonal")
      >>> list(matrices), matrices.others
      (['kernel'], (OtherParameter(path='bias', shape=(2,), reason='no matrix'),))
      >>> tx = singd_optax.inverse_free_shampoo(1e-2, matrices)
    """
    check_matrix_axes(matrix_axes)
    leaves = Leaves(params)
    specs = matrix_specs(
        leaves, structures=structures, factor_dtype=factor_dtype, matrix_axes=matrix_axes
    )
    if not specs:
        raise ValueError(
            f"`params` have no array of two axes or more among {list(leaves)[:20]}: there is "
            "nothing to precondition. Use optax.adamw."
        )
    inside = {path for spec in specs.values() for path in spec.shapes}
    others = tuple(
        OtherParameter(path, tuple(leaves[path].shape), _reason(leaves[path]))
        for path in leaves
        if path not in inside
    )
    return Layers(cast(tuple[LayerSpec, ...], tuple(specs.values())), others)


def _reason(leaf: PyTree) -> str:
    """Why a parameter makes no matrix: it may have been left out, as an embedding is."""
    could = jnp.issubdtype(leaf.dtype, jnp.floating) and cut(tuple(leaf.shape)) is not None
    return "left out by `matrix_axes`" if could else "no matrix"
