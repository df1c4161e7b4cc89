"""Every operation of the contract of structures, once by a structure and once by dense algebra."""

from collections.abc import Callable
from types import ModuleType

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.structures import StructuredMatrix

#: Fewer and more rows than columns: a gram may choose its order of products.
FEW, MANY = 3, 200

#: Results that are stored numbers, so that they have the matrix's own dtype and rounding.
STORED = {
    "to_dense", "add", "subtract", "times a number", "add_identity", "max_abs", "eye", "zeros",
}  # fmt: skip

#: Results whose dtype is promoted with that of the numbers given.
PROMOTED = {"times one number each", "add_identity each"}


def operations(
    A: StructuredMatrix, B: StructuredMatrix, x: jax.Array, scale: jax.Array
) -> dict[str, PyTree]:
    """By the structure.

    Args:
      A: A matrix.
      B: Another one of the same structure.
      x: Columns (..., dim, MANY).
      scale: One number for each matrix.

    Returns:
      The results, matrices as they are but for "to_dense".
    """
    structure, batch = A.structure, A.batch_shape
    few, many = (jnp.swapaxes(x, -1, -2)[..., :n, :] for n in (FEW, MANY))
    return {
        "to_dense": A.to_dense(),
        "multiply": A @ B,
        "matmul": A @ x,
        "transpose_matmul": A.transpose_matmul(x),
        "gram": A.gram(),
        "gram of few rows": A.gram(few),
        "gram of many rows": A.gram(many),
        "project_gram": structure.project_gram(many),
        "add": A + B,
        "subtract": A - B,
        "times a number": A * 3.0,
        "times one number each": scale * A,
        "add_identity": A.add_identity(2.0),
        "add_identity each": A.add_identity(scale),
        "average_trace": A.average_trace(),
        "frobenius_norm": A.frobenius_norm(),
        "max_abs": A.max_abs(),
        "eye": structure.eye(A.dim, A.dtype, batch),
        "zeros": structure.zeros(A.dim, A.dtype, batch),
    }


def entries(
    xp: ModuleType, results: dict[str, PyTree], to_dense: Callable[[PyTree], PyTree]
) -> PyTree:
    """The results with matrices as their entries in float64, by one call of ``to_dense``."""
    matrices = {k: v for k, v in results.items() if isinstance(v, StructuredMatrix)}
    stacked = jax.tree.map(
        lambda *leaves: xp.stack([leaf.astype(xp.float64) for leaf in leaves]), *matrices.values()
    )
    return results | dict(zip(matrices, to_dense(stacked), strict=True))


def references(
    xp: ModuleType,
    project: Callable[[PyTree], PyTree],
    a: PyTree,
    b: PyTree,
    x: PyTree,
    scale: PyTree,
) -> dict[str, PyTree]:
    """By dense algebra.

    Args:
      xp: numpy, or jax.numpy for gradients.
      project: From entries of symmetric matrices to entries of their projections.
      a: The entries of A.
      b: The entries of B.
      x: Columns (..., dim, MANY).
      scale: One number for each matrix.

    Returns:
      The same as ``operations``, matrices as their entries.
    """

    def product(left: PyTree, right: PyTree) -> PyTree:
        # Not numpy's @, whose threads cost more than these small products.
        return xp.einsum("...ij,...jk->...ik", left, right)

    eye = xp.eye(a.shape[-1])
    each = scale[..., None, None]
    transposed = xp.swapaxes(a, -1, -2)
    few, many = (x[..., :n] for n in (FEW, MANY))
    halves = [transposed, product(transposed, few), product(transposed, many), many]
    grams = project(xp.stack([product(half, xp.swapaxes(half, -1, -2)) for half in halves]))
    return {
        "to_dense": a,
        "multiply": product(a, b),
        "matmul": product(a, x),
        "transpose_matmul": product(transposed, x),
        "gram": grams[0],
        "gram of few rows": grams[1],
        "gram of many rows": grams[2],
        "project_gram": grams[3],
        "add": a + b,
        "subtract": a - b,
        "times a number": 3 * a,
        "times one number each": each * a,
        "add_identity": a + 2 * eye,
        "add_identity each": a + each * eye,
        "average_trace": xp.trace(a, axis1=-2, axis2=-1) / a.shape[-1],
        "frobenius_norm": xp.sqrt((a**2).sum((-2, -1))),
        "max_abs": xp.abs(a).max((-2, -1)),
        "eye": xp.broadcast_to(eye, a.shape),
        "zeros": xp.zeros(a.shape),
    }
