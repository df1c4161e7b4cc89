"""Pictures of a training run."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from jax.typing import ArrayLike

from singd_optax._types import PyTree

#: What a picture is of -> the names that ``metrics`` gives it.
PICTURES = {
    "update, root mean square": ("update_rms",),
    "refreshes without effect": ("skipped_refreshes",),
    "condition of K (–) and C (--)": ("condition_K", "condition_C"),
}


def plot_run(
    losses: Sequence[ArrayLike] | np.ndarray,
    recorded: Mapping[int, Mapping[str, ArrayLike]] | None = None,
) -> PyTree:
    """Draw the loss of each step and what ``metrics`` recorded of the layers on some of them.

    Beside the loss there is a picture for each of these that was recorded: the sizes of updates,
    which are nearly equal unless gradients fade or a size policy is off; the refreshes that had no
    effect, which should stay few; and how unequally a factor treats directions, which starts at 1
    and grows as it learns.

    Args:
      losses: The loss of each step.
      recorded: A dict from some of the steps, for example every tenth, to what ``metrics`` returned
        after them; None for the loss alone.

    Returns:
      A ``matplotlib.figure.Figure``, which a notebook shows; ``figure.savefig(path)`` keeps it.

    Raises:
      ImportError: matplotlib is not installed.
      ValueError: There are no losses.

    ::

        losses, recorded = [], {}
        for step in range(200):
            params, opt_state, loss, updates = train_step(params, opt_state, batch)
            losses.append(loss)
            if step % 10 == 0:
                recorded[step] = metrics(layers, opt_state, updates=updates)
        plot_run(losses, recorded)
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot_run needs matplotlib: pip install matplotlib, or singd-optax[bench]."
        ) from error
    if not len(losses):
        raise ValueError(
            "`losses` must have the loss of one step or more, got none. Pass a list of them."
        )
    curves = {title: _curves(names, recorded or {}) for title, names in PICTURES.items()}
    curves = {title: found for title, found in curves.items() if found}
    figure = Figure(figsize=(3.6 * (1 + len(curves)), 3), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(curves), squeeze=False).ravel()
    first.plot(np.asarray(losses, float))
    first.set_title("loss", fontsize=9)
    first.set_xlabel("step")
    for axis, (title, found) in zip(others, curves.items(), strict=True):
        places = list(dict.fromkeys(place for place, _ in found))
        shared = os.path.commonprefix([f"{place}/" for place in places]).rfind("/") + 1
        for (place, name), points in found.items():
            color = f"C{places.index(place) % 10}"
            is_first = name == PICTURES[title][0]
            axis.plot(
                *zip(*points, strict=True),
                color=color,
                linestyle="-" if is_first else "--",
                label=(place[shared:] or place) if is_first else None,
            )
        if title.startswith("condition"):
            axis.set_yscale("log")
        else:
            axis.set_ylim(0, max(1.05 * axis.dataLim.y1, 1e-6))
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step")
        if len(places) <= 10:
            axis.legend(fontsize=6)
    return figure


def _curves(
    names: tuple[str, ...], recorded: Mapping[int, Mapping[str, ArrayLike]]
) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(Layer, name) -> its points."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for step, numbers in sorted(recorded.items()):
        for key, value in numbers.items():
            place, _, name = key.rpartition("/")
            if name in names:
                found.setdefault((place, name), []).append((step, float(np.asarray(value))))
    return found
