"""Tables and plots, from the files of runs alone."""

import math
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from _harness import load
from _results import read

mpl.use("Agg")
import matplotlib.pyplot as plt

Records = dict[str, list[dict[str, Any]]]

HEAD = (
    "| optimizer | final, median (lowest to highest) | held-out accuracy | "
    "steps to AdamW's final | time to it, of AdamW's whole | "
    "ms a step beside AdamW's (quartiles) | state | step's memory |\n"
    "|---|---|---|---|---|---|---|---|"
)


def finals(records: list[dict[str, Any]]) -> list[float]:
    """Final losses, sorted; a run that diverged counts as infinite."""
    return sorted(math.inf if r["final"] is None else r["final"] for r in records)


def median_curve(records: list[dict[str, Any]]) -> np.ndarray:
    """The median over seeds at each point; infinite where runs diverged."""
    length = max(len(r["curve"]) for r in records)
    rows = [
        [math.inf if x is None else x for x in r["curve"]] + [math.inf] * (length - len(r["curve"]))
        for r in records
    ]
    return np.median(np.array(rows), axis=0)


def share_to_reach(records: list[dict[str, Any]], goal: float) -> float:
    """The share of all steps after which the median curve is at or below a loss."""
    curve = median_curve(records)
    hits = np.flatnonzero(curve <= goal + 1e-6 + 1e-5 * abs(goal))  # curves are kept rounded
    return hits[0] / (len(curve) - 1) if len(hits) else math.inf


def times(file: Path) -> dict[str, Any]:
    """Interleaved times of steps, if they were measured."""
    return read(file).get("times", {}).get("steps", {})


def memory(file: Path) -> dict[str, Any]:
    """Bytes of compiled steps, if they were measured."""
    return read(file).get("memory", {}).get("optimizers", {})


def table(file: Path) -> str:
    """One task as Markdown, the best optimizer first."""
    records, timed, bytes_of = load(file, "seed"), times(file), memory(file)
    if not records:
        return ""
    first = next(iter(records.values()))[0]
    goal = statistics.median(finals(records["adamw"])) if "adamw" in records else -math.inf
    lines = [f"### {file.stem}: {first['measure']}, {first['steps']} steps", "", HEAD]
    for label, runs in sorted(records.items(), key=lambda item: statistics.median(finals(item[1]))):
        own = finals(runs)
        share = share_to_reach(runs, goal)
        time_, taken = (found.get(label.split("@")[0]) for found in (timed, bytes_of))
        accuracies = [r["accuracy"] for r in runs if r["accuracy"] is not None]
        cells = [
            f"{label} {_settings(runs[0]['setting'])}",
            f"{_loss(statistics.median(own))} ({_loss(own[0])} to {_loss(own[-1])})",
            f"{statistics.median(accuracies):.3f}" if accuracies else "",
            f"{share:.2f}" if math.isfinite(share) else "not reached",
            f"{share * time_['ratio']:.2f}" if time_ and math.isfinite(share) else "",
            f"{time_['ratio']:.2f} ({time_['quartiles'][0]:.2f} to {time_['quartiles'][1]:.2f})"
            if time_
            else "",
            f"{runs[0]['state_bytes'] / 1e6:.2f} MB",
            f"{(taken['arguments'] + taken['temporaries']) / 1e6:.2f} MB" if taken else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _loss(value: float) -> str:
    return f"{value:.4f}" if value >= 0.01 else f"{value:.1e}"


def _settings(setting: dict[str, float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in setting.values()) + ")"


def plot(file: Path, picture: Path, only: list[str] | None = None) -> None:
    """Loss over steps and over time, with the range over seeds; final loss over the rates tried."""
    records, searched, timed = load(file, "seed"), load(file, "trial"), times(file)
    records = {k: v for k, v in records.items() if only is None or k in only}
    if not records:
        return
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6))
    lows, highs = [], []
    for index, (label, runs) in enumerate(records.items()):
        whole, color = [r for r in runs if r["final"] is not None], f"C{index}"
        if not whole:
            continue
        curves = np.array([r["curve"] for r in whole])
        steps = np.linspace(0, whole[0]["steps"], curves.shape[1])
        time_ = timed.get(label.split("@")[0])
        axes_and_x = [(axes[0], steps)]
        if time_:
            axes_and_x.append((axes[1], steps * time_["milliseconds"] / 1e3))
        for axis, x in axes_and_x:
            axis.plot(x, np.median(curves, axis=0), label=label, lw=1.2, color=color)
            axis.fill_between(x, curves.min(0), curves.max(0), alpha=0.15, color=color)
        points = sorted(
            (r["setting"]["learning_rate"], r["final"])
            for r in searched.get(label, [])
            if r["final"] is not None
        )
        if points:
            axes[2].plot(*zip(*points, strict=True), "o-", label=label, ms=3, lw=1, color=color)
        lows.append(curves.min())
        highs.append(np.median(curves, axis=0)[max(curves.shape[1] // 8, 1)])
    limits = (min(lows) - 0.03 * (max(highs) - min(lows)), max(highs))
    for axis, label in zip(
        axes, ("steps", "seconds (steps x interleaved median)", "learning rate"), strict=True
    ):
        axis.set(xlabel=label, ylim=limits)
        axis.grid(alpha=0.3)
    axes[2].set_xscale("log")
    axes[0].set_ylabel(next(iter(records.values()))[0]["measure"])
    axes[0].set_title(file.stem, loc="left", fontsize=9)
    axes[0].legend(fontsize=6)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=80)
    plt.close(figure)


def summary(files: list[Path]) -> str:
    """Tasks x optimizers: medians of the final measure, the lowest of each task in bold.

    One table for the tasks that are judged by their held-out loss, one for those by the training's.
    """
    kinds: dict[str, dict[str, Records]] = {}
    for file in files:
        if records := load(file, "seed"):
            kind = next(iter(records.values()))[0]["measure"].split(" (")[0]
            kinds.setdefault(kind, {})[file.stem] = records
    return "\n".join(_medians(kind, tasks) for kind, tasks in sorted(kinds.items()))


def _medians(kind: str, tasks: dict[str, Records]) -> str:
    labels = sorted({label for records in tasks.values() for label in records})
    medians = {
        name: {label: statistics.median(finals(runs)) for label, runs in records.items()}
        for name, records in tasks.items()
    }
    lines = [f"| {kind} | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for label in labels:
        cells = []
        for own in medians.values():
            value = own.get(label)
            text = "" if value is None else _loss(value)
            cells.append(
                f"**{text}**" if value is not None and value == min(own.values()) else text
            )
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
