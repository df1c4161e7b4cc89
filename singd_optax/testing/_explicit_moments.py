"""Second moments by hand: the table of scalings of arXiv 2311.00636, in float64 and in numpy."""

from typing import NamedTuple

import numpy as np

from singd_optax.layers import LayerSpec
from singd_optax.layers._lookup import Lookup
from singd_optax.layers._operation import Operation
from singd_optax.layers._product import Product
from singd_optax.structures import Diagonal
from singd_optax.testing._explicit_rows import input_rows, output_rows, times

_TINY = np.finfo(np.float64).tiny


class Moment(NamedTuple):
    """One side of what a call adds to its layer's statistics.

    Attributes:
      matrix: (kernel batch, dim, dim); its diagonal alone where the structure keeps no more.
    """

    matrix: np.ndarray

    @property
    def trace(self) -> np.ndarray:
        """For each kernel."""
        if self.matrix.ndim == 2:
            return self.matrix.sum(-1)
        return np.trace(self.matrix, axis1=-2, axis2=-1)


def moments(
    spec: LayerSpec,
    operation: Operation,
    inputs: np.ndarray,
    gradient: np.ndarray,
    weights: np.ndarray | None,
    transposed: bool,
) -> tuple[Moment, Moment]:
    """What one call adds to the second moments on the sides of K and of C (arXiv 2311.00636).

    Args:
      spec: The layer.
      operation: How the call uses the kernel.
      inputs: The inputs of the call.
      gradient: The gradient of its outputs.
      weights: The weights of positions, for the first leading axes; or None.
      transposed: Whether the call uses the kernel as its transpose.
    """
    rows, columns = input_rows(operation, inputs), output_rows(operation, gradient)
    examples, shared = columns.shape[1:3]
    w = np.ones((examples, shared))
    if weights is not None:
        w = _spread(weights, operation, gradient).reshape(examples, shared).astype(np.float64)
    present = np.where((w > 0).any(1), 1.0, 0.0)
    undo = {"batch": present.sum(), "batch+sequence": w.sum(), None: 1.0}[spec.loss_average]
    columns = columns * (w > 0)[..., None]
    share = w / np.maximum(w.sum(1, keepdims=True), _TINY)
    if spec.kfac_approx == "reduce":
        columns = columns.sum(2, keepdims=True)
        if not isinstance(operation, Lookup):
            rows = (rows * share[..., None]).sum(2, keepdims=True)
            w = present[:, None]
    if spec.bias_shape is not None:
        rows = np.concatenate([rows, np.ones_like(rows[..., :1])], axis=-1)
    sides = spec.structures[::-1] if transposed else spec.structures
    only_diagonal = [structure == Diagonal() for structure in sides]
    if not isinstance(operation, Lookup):
        U = _gram(rows, w, only_diagonal[0])
    elif spec.kfac_approx == "reduce":
        U = np.zeros((1, operation.size))
        for indices, parts in zip(rows, share, strict=True):
            U += np.bincount(indices, parts, minlength=operation.size) ** 2
    else:
        U = np.bincount(rows.reshape(-1), w.reshape(-1), minlength=operation.size)[None]
    total = present.sum() if spec.kfac_approx == "reduce" else w.sum()
    of_inputs = Moment(U / max(total, _TINY))
    of_gradients = Moment(_gram(columns, None, only_diagonal[1]) * undo)
    return (of_gradients, of_inputs) if transposed else (of_inputs, of_gradients)


def _spread(weights: np.ndarray, operation: Operation, gradient: np.ndarray) -> np.ndarray:
    """Weights with all leading axes of the outputs, pixels included."""
    own = 1
    if isinstance(operation, Product):
        own = len(operation.outputs) + len(operation.output_batch)
        used = {axis % gradient.ndim for axis in (*operation.outputs, *operation.output_batch)}
        leading = tuple(n for axis, n in enumerate(gradient.shape) if axis not in used)
    else:
        leading = gradient.shape[:-own]
    return np.broadcast_to(
        weights.reshape(weights.shape + (1,) * (len(leading) - weights.ndim)), leading
    )


def _gram(rows: np.ndarray, weights: np.ndarray | None, only_diagonal: bool) -> np.ndarray:
    weighted = rows if weights is None else rows * weights[..., None]
    return (weighted * rows).sum((1, 2)) if only_diagonal else times(weighted, rows)
