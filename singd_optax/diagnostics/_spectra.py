"""Pictures of the spectra of factors."""

import math
import re

import jax.numpy as jnp
import numpy as np

from singd_optax._types import PyTree
from singd_optax.layers import factors


def plot_spectra(opt_state: PyTree, pattern: str = "", *, columns: int = 4) -> PyTree:
    """Draw the singular values of the factors K and C of each layer, in falling order.

    At the start all are 1. A curve that falls steeply is a factor that learned which directions
    are flat and which are steep; one that stays at 1 was hardly refreshed.

    Args:
      opt_state: The optimizer's state.
      pattern: A regular expression, searched in the path of each layer; all layers by default.
      columns: The largest number of pictures side by side.

    Returns:
      A ``matplotlib.figure.Figure``, which a notebook shows; ``figure.savefig(path)`` keeps it.

    Raises:
      ImportError: matplotlib is not installed.
      ValueError: The state has no factors, or no layer's path matches.

    ::

        figure = singd_optax.diagnostics.plot_spectra(opt_state)
        figure.savefig("spectra.png")
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot_spectra needs matplotlib: pip install matplotlib, or singd-optax[bench]."
        ) from error
    all_pairs = factors(opt_state)
    pairs = {path: pair for path, pair in all_pairs.items() if re.search(pattern, path)}
    if not pairs:
        raise ValueError(
            f"`pattern` must match the path of a layer, got {pattern!r}. The paths are "
            f"{sorted(all_pairs)}."
        )
    columns = min(columns, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    # A Figure of its own, not pyplot's: no global state, and no backend is chosen.
    figure = Figure(figsize=(3 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(pairs) :]:
        axis.set_axis_off()
    for axis, (path, pair) in zip(axes, pairs.items(), strict=False):
        for color, name, factor in (("C0", "K", pair.K), ("C1", "C", pair.C)):
            dense = np.asarray(factor.to_dense().astype(jnp.float32))
            spectra = np.linalg.svd(dense, compute_uv=False).reshape(-1, factor.dim)
            for index, spectrum in enumerate(spectra):
                position = np.linspace(0, 1, factor.dim)
                label = f"{name}, {factor.dim}" if index == 0 else None
                axis.plot(position, spectrum, color=color, label=label, alpha=0.8)
        axis.set_yscale("log")
        axis.set_title(path or "(root)", fontsize=8)
        axis.set_xlabel("share of singular values", fontsize=7)
        axis.legend(fontsize=7)
    return figure
