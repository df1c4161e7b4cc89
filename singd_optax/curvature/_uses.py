"""Other uses of a curvature: penalties that keep what was learned, and what can be removed."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_choice, check_number
from singd_optax.curvature._curvature import Curvature, Damping
from singd_optax.curvature._views import arrays_of
from singd_optax.layers._tree import Leaves
from singd_optax.placement import laid_out_like, on_auto_axes, partitions_of

Group = Literal["inputs", "outputs", "entries"]
GROUPS: tuple[Group, ...] = ("inputs", "outputs", "entries")


def quadratic_penalty(
    curvature: Curvature, params: PyTree, strength: ArrayLike = 1.0
) -> Callable[[PyTree], jax.Array]:
    """Elastic weight consolidation: ½ strength (θ - θ_0)ᵀ H (θ - θ_0).

    Add it to the loss of the next task; with several tasks, add one of each. H is that of the
    summed negative log-likelihood: for a mean loss over M terms, ``strength=1 / M`` weighs the old
    data as the new ones.

    Args:
      curvature: From ``fit`` on the old data: ``kind="diagonal"`` is the published method, all
        others have correlations as well.
      params: θ_0, where it was fitted.
      strength: >= 0; may be traced.

    Returns:
      A function of parameters that returns a scalar. Inside a loss that ``value_and_grad``
      differentiates it changes no statistics.

    Raises:
      ValueError: The parameters are of other layers, or the strength is below zero.

    References:
      Kirkpatrick et al., PNAS 2017, arXiv 1612.00796. By Kronecker factors: Ritter et al., NeurIPS
      2018, arXiv 1805.07810.

    Example:
      >>> import jax.numpy as jnp
      >>> from singd_optax.curvature import from_diagonal
      >>> penalty = quadratic_penalty(from_diagonal({"w": jnp.array([1.0, 3.0])}),
      ...                             {"w": jnp.zeros(2)})
      >>> float(penalty({"w": jnp.ones(2)}))
      2.0
    """
    check_number("strength", strength, schedule=False)
    curvature.check(params, "params")
    anchor = Leaves(params)
    paths = [path for view in curvature.views for path in view.shapes]

    def of_distances(off: dict[str, jax.Array], curvature: Curvature) -> jax.Array:
        parts = [
            curvature.blocks[view.path].quadratic(
                view.to_matrix(*(off[path] for path in view.shapes))
            )
            for view in curvature.views
        ]
        return sum(parts, jnp.zeros([]))

    def penalty(params: PyTree) -> jax.Array:
        now = Leaves(params)
        off = {path: now[path] - anchor[path] for path in paths}
        return 0.5 * jnp.asarray(strength) * on_auto_axes(of_distances, off, curvature)

    return penalty


def saliency(
    curvature: Curvature, params: PyTree, *, damping: Damping, group: Group = "inputs"
) -> dict[str, jax.Array]:
    """By how much the summed loss rises if a part of a layer is removed, and the rest adapts.

    With w the part and S = ((H + d I)^-1) restricted to it: ½ wᵀ S^-1 w, to second order at an
    optimum (Hassibi and Stork, Optimal Brain Surgeon, 1993; for whole rows by Kronecker factors,
    Wang et al., EigenDamage, 2019, arXiv 1905.05934). In the eigenbases S is diagonal for a whole
    row or column, so that nothing is inverted.

    Args:
      curvature: From ``fit`` at the trained parameters.
      params: These.
      damping: d.
      group: ``"inputs"``: each row of a layer's matrix (an input with all its weights; the bias is
        the last row), ``"outputs"``: each column, with its bias; ``"entries"``: each weight.

    Returns:
      Path of a block -> (*stack, rows), (*stack, columns) or (*stack, rows, columns).

    Raises:
      ValueError: H + d I is singular, or the parameters are of other layers.

    Example:
      >>> import jax.numpy as jnp
      >>> from singd_optax.curvature import from_diagonal
      >>> curvature = from_diagonal({"w": jnp.array([1.0, 3.0])})
      >>> saliency(curvature, {"w": jnp.ones(2)}, damping=0.0, group="outputs")["w"].tolist()
      [0.5, 1.5]
    """
    check_choice("group", group, GROUPS)
    dampings = curvature.dampings(damping, inverted=True)
    found: dict[str, jax.Array] = {}
    for path, matrix in curvature.matrices(params, "params").items():
        block = curvature.blocks[path]
        matrix = matrix.astype(block.values.dtype)
        if group == "entries":
            found[path] = 0.5 * matrix**2 / block.diagonal(-1.0, dampings[path])
        else:
            coefficients, scales = _group_of(curvature, path, matrix, dampings[path], group)
            found[path] = 0.5 * (coefficients**2 / scales).sum(-1 if group == "inputs" else -2)
    return found


def remove(
    curvature: Curvature,
    params: PyTree,
    path: str,
    index: int,
    *,
    damping: Damping,
    group: Literal["inputs", "outputs"] = "inputs",
) -> PyTree:
    """The parameters without one input or output of a layer, the rest adapted to the second order.

    Args:
      curvature: From ``fit``.
      params: The trained parameters.
      path: Of the layer, which is no stack.
      index: Of the row or column, as in ``saliency``.
      damping: d.
      group: ``"inputs"`` or ``"outputs"``.

    Returns:
      Parameters in which this row or column is zero, and the rest of the layer has moved by
      -(H + d I)^-1 E S^-1 w.

    Raises:
      ValueError: H + d I is singular, the layer is a stack, or there is no such row or column.
      KeyError: There is no such layer.

    Example:
      >>> import jax.numpy as jnp
      >>> from singd_optax.curvature import from_diagonal
      >>> curvature = from_diagonal({"w": jnp.array([1.0, 3.0])})
      >>> remove(curvature, {"w": jnp.ones(2)}, "w", 0, damping=0.0, group="outputs")["w"].tolist()
      [0.0, 1.0]
    """
    check_choice("group", group, ("inputs", "outputs"))
    block = curvature[path]
    number = curvature.dampings(damping, inverted=True)[path]
    axis = 0 if group == "inputs" else 1
    if block.values.ndim != 2:
        raise ValueError(
            f"Layer {path!r} is a stack {block.values.shape[:-2]} of layers, of which `remove` "
            "takes one. Zero a row of the stack by hand, by the scores of `saliency`."
        )
    if not 0 <= index < block.values.shape[axis]:
        raise ValueError(
            f"`index` must be from 0 to {block.values.shape[axis] - 1}, the {group} of layer "
            f"{path!r}, got {index}."
        )
    matrix = curvature.matrices(params, "params")[path].astype(block.values.dtype)
    coefficients, scales = _group_of(curvature, path, matrix, number, group)
    # S^-1 w, back from the basis of the other side, in its place.
    solved = coefficients / scales
    own = jnp.take(solved, jnp.array([index]), axis)
    if group == "inputs":
        vector = jnp.swapaxes(block.C.matmul(jnp.swapaxes(own, 0, 1), precision="highest"), 0, 1)
        placed = jnp.zeros_like(matrix).at[index].set(vector[0])
    else:
        vector = block.K.matmul(own, precision="highest")
        placed = jnp.zeros_like(matrix).at[:, index].set(vector[:, 0])
    moved = matrix - block.power(placed, -1.0, number)
    gone = jnp.arange(matrix.shape[axis]) == index
    moved = jnp.where(gone[:, None] if group == "inputs" else gone, 0, moved)
    leaves = Leaves(params)
    views = tuple(view for view in curvature.views if view.path == path)
    before = {p: leaves[p] for view in views for p in view.shapes}
    arrays = laid_out_like(
        lambda moved: arrays_of(views, {path: moved}), partitions_of(before), moved
    )
    return leaves.replaced({p: a.astype(leaves[p].dtype) for p, a in arrays.items()})


def _group_of(
    curvature: Curvature, path: str, matrix: jax.Array, damping: ArrayLike, group: Group
) -> tuple[jax.Array, jax.Array]:
    """W in the basis of the other side, and the diagonal of S there.

    For row i, S = C Diag_j(Σ_k K_ik² / (values_kj + d)) Cᵀ.
    """
    block = curvature.blocks[path]
    inverse = block.powers(-1.0, damping)
    swap = lambda x: jnp.swapaxes(x, -1, -2)
    if group == "inputs":
        coefficients = swap(block.C.transpose_matmul(swap(matrix), precision="highest"))
        squares = jax.tree.map(jnp.square, block.K)
        return coefficients, squares.matmul(inverse, precision="highest")
    coefficients = block.K.transpose_matmul(matrix, precision="highest")
    squares = jax.tree.map(jnp.square, block.C)
    return coefficients, swap(squares.matmul(swap(inverse), precision="highest"))
