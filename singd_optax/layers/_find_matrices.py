"""All matrix-shaped parameters of a tree as layers, for methods that need gradients only."""

import re
from collections.abc import Mapping, Sequence
from typing import cast

import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax._types import PyTree
from singd_optax.layers._layers import Layers, OtherParameter
from singd_optax.layers._matrices import matrix_specs
from singd_optax.layers._matrix_axes import (
    MatrixAxes,
    check_matrix_axes,
    cut,
    with_embeddings_left,
)
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
    """Find the parameters that are matrices, as ``Layers``: to print, to change, and to spread.

    Optimizers of gradients alone (Shampoo, SOAP, ...) find the same matrices by themselves. With
    this function these can be looked at (``print``), given other structures by path
    (``replace``), left to the fallback, the optimizer of all other parameters (``without``), and
    spread over a mesh (``sharding.spread``).

    Args:
      params: The parameters, or ``jax.ShapeDtypeStruct``s of them.
      structures: The structures in which the factors (the matrices that multiply gradients) of
        (rows, columns) are kept, or one for both, as ``parse_structure`` takes.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), ``Tiles``, ``Merged``, ``UpTo``, "cut",
        "each", or None to leave the parameter out; see ``scale_by_rule``. Parameters that match
        none are "cut", but for embeddings; ``{".*": "cut"}`` takes these, too.

    Returns:
      The layers: one for each array of two axes or more, or several where axes are taken one by
      one ("each"). All other parameters are listed in ``others``, each with the reason.

    Raises:
      ValueError: Axes do not fit, an option is not legal, or there is no matrix.
      TypeError: An option is of another type.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> params = {"embedding": jnp.ones((9, 3)), "kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> matrices = singd_optax.find_matrices(params, structures="diagonal")
      >>> list(matrices), [(other.path, other.reason) for other in matrices.others]
      (['kernel'], [('bias', 'no matrix'), ('embedding', 'an embedding, by its name')])
      >>> tx = singd_optax.inverse_free_shampoo(1e-2, matrices)
    """
    check_matrix_axes(matrix_axes)
    said = tuple(matrix_axes or ())
    matrix_axes = with_embeddings_left(matrix_axes)
    leaves = Leaves(params)
    specs = matrix_specs(
        leaves, structures=structures, factor_dtype=factor_dtype, matrix_axes=matrix_axes
    )
    if not specs:
        raise ValueError(
            f"`params` have no array of two axes or more among {list(leaves)[:20]}: there is "
            "nothing to precondition, as embeddings are left to the fallback unless `matrix_axes` "
            "say how they are matrices. Use optax.adamw, or matrix_axes={'.*': 'cut'}."
        )
    inside = {path for spec in specs.values() for path in spec.shapes}
    others = tuple(
        OtherParameter(path, tuple(leaves[path].shape), _reason(path, leaves[path], said))
        for path in leaves
        if path not in inside
    )
    return Layers(cast(tuple[LayerSpec, ...], tuple(specs.values())), others)


def _reason(path: str, leaf: PyTree, said: Sequence[str]) -> str:
    """Why a parameter makes no matrix: it may have been left out, as an embedding is."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating) or cut(tuple(leaf.shape)) is None:
        return "no matrix"
    if any(re.fullmatch(pattern, path) for pattern in said):
        return "left out by `matrix_axes`"
    return "an embedding, by its name"
