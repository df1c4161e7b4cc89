"""Pictures of structures."""

import math
from collections.abc import Sequence

import jax
import numpy as np

from singd_optax._types import PyTree
from singd_optax.structures import STRUCTURES, Structure, parse_structure

_DIM = 24


def draw_structures(
    structures: Sequence[str | Structure] | None = None, *, dim: int = _DIM, columns: int = 5
) -> PyTree:
    """Draw which entries of a matrix each structure keeps, and which of them it shares.

    Each picture is the projection of one random symmetric matrix: white entries are zero, and
    entries that are one stored number have one color.

    Args:
      structures: The structures to draw, as ``parse_structure`` takes them; None draws an example
        of every structure of the library.
      dim: The number of rows of the matrices.
      columns: The largest number of pictures side by side.

    Returns:
      A ``matplotlib.figure.Figure``, which a notebook shows; ``figure.savefig(path)`` keeps it.

    Raises:
      ImportError: matplotlib is not installed.
      ValueError: There is nothing to draw, or a structure is unknown.

    ::

        figure = singd_optax.testing.draw_structures(["block_diagonal:6", "lower_toeplitz"])
        figure.savefig("structures.png")
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "draw_structures needs matplotlib: pip install matplotlib, or singd-optax[bench]."
        ) from error
    if structures is None:
        structures = [example for entry in STRUCTURES for example in entry.examples]
    parsed = [parse_structure(structure).resolve(dim) for structure in structures]
    if not parsed:
        raise ValueError("`structures` must not be empty: pass at least one, or None for all.")
    columns = min(columns, len(parsed))
    rows = math.ceil(len(parsed) / columns)
    # A Figure of its own, not pyplot's: no global state, and no backend is chosen.
    figure = Figure(figsize=(2.4 * columns, 2.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(parsed) :]:
        axis.set_axis_off()
    square = np.random.default_rng(0).uniform(0.2, 1, (dim, dim))
    for axis, structure in zip(axes, parsed, strict=False):
        matrix = structure.project(jax.numpy.asarray(np.minimum(square, square.T)))
        entries = np.asarray(matrix.to_dense())
        axis.imshow(np.ma.masked_equal(entries, 0), cmap="viridis", interpolation="nearest")
        numbers = sum(leaf.size for leaf in jax.tree.leaves(matrix))
        title = repr(structure).replace("(", "\n(", 1)
        axis.set_title(f"{title}\n{numbers} of {dim * dim} numbers", fontsize=7)
        axis.set_xticks([])
        axis.set_yticks([])
    return figure
