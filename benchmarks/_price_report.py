"""Tables and a plot of prices, from the JSON file alone.

The file: device -> part -> {"environment", "rounds", "cases": case -> contestant -> row}. A case is
one interleaved run, and is replaced as a whole.
"""

import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
from _harness import environment
from _price_parts import PARTS, Rows

mpl.use("Agg")
import matplotlib.pyplot as plt

Record = dict[str, Any]

TITLES = {"steps": "{}", "width": "width {}", "depth": "{} blocks"}


def device_name() -> str:
    """What figures are kept apart by."""
    kind = jax.devices()[0].device_kind
    if kind.lower() != "cpu":
        return kind
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return f"CPU {platform.machine()}, {len(affinity(0))} cores"


def load(file: Path) -> Record:
    """All devices; empty if there is no file."""
    return json.loads(file.read_text()) if file.exists() else {}


def save(file: Path, part: str, case: str, rows: Rows, rounds: int) -> None:
    """Put one case into the file; all others stay."""
    record = load(file)
    own = record.setdefault(device_name(), {}).setdefault(part, {"cases": {}})
    own["environment"] = environment()
    own["rounds"] = None if part == "depth" else rounds
    own["cases"][case] = rows
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")


def case_table(part: str, case: str, rows: Rows) -> str:
    """All figures of one case, for people."""
    heads = [TITLES[part].format(case), "ms a step", "to AdamW's (quartiles)"]
    heads += ["compile", "StableHLO", "HLO", "cond.", "while", "peak", "state"]
    lines = [heads]
    for name, row in rows.items():
        lines.append(
            [
                name,
                f"{row['milliseconds']:.2f}" if "milliseconds" in row else "",
                _step(row, rows),
                _compile(row, rows),
                *(str(row[key]) for key in ("stablehlo_lines", "hlo_lines")),
                *(str(row[key]) for key in ("conditionals", "whiles")),
                *(_ratio(key)(row, rows) for key in ("peak", "state")),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def tables(record: Record) -> str:
    """Markdown, as it is in benchmarks/README.md."""
    parts = []
    for device, own in record.items():
        some = next(iter(own.values()))["environment"]
        parts.append(f"On {device} (jax {some['jax']}, optax {some['optax']}):")
        timed = _columns(own, ("steps", "width"))
        deep = _columns(own, ("depth",))
        parts += _table("step time to AdamW's (quartiles)", timed, _step)
        parts += _table("peak memory of a step to AdamW's", timed, _ratio("peak"))
        parts += _table("optimizer state to AdamW's", timed, _ratio("state"))
        deep = deep or timed
        parts += _table("CPU seconds to compile, to AdamW's (in all)", deep, _compile)
        parts += _table("instructions of HLO (conditionals, while loops)", deep, _program)
    return "\n\n".join(parts)


def write_between_markers(file: Path, text: str) -> None:
    """Replace what a document has between the two markers of this table."""
    document = file.read_text()
    begin, end = "<!-- price.py --table: begin -->", "<!-- price.py --table: end -->"
    found = re.findall(f"{begin}.*?{end}", document, re.DOTALL)
    if len(found) != 1:
        raise ValueError(
            f"{file} has {len(found)} places for the table, not one: put the lines {begin!r} and "
            f"{end!r} where it belongs."
        )
    file.write_text(document.replace(found[0], f"{begin}\n\n{text}\n\n{end}"))


def plot(record: Record, file: Path) -> None:
    """Compile time over depth and step time over width, to AdamW's; a row for each device."""
    figure, axes = plt.subplots(
        max(len(record), 1), 2, figsize=(11, 4 * max(len(record), 1)), squeeze=False
    )
    for (deep, wide), (device, own) in zip(axes, record.items(), strict=False):
        for axis, part in ((deep, "depth"), (wide, "width")):
            cases = own.get(part, {"cases": {}})["cases"]
            for index, name in enumerate(dict.fromkeys(n for rows in cases.values() for n in rows)):
                if name == "adamw" or (part == "depth" and "=" in name):
                    continue
                points = [(int(case), rows) for case, rows in cases.items() if name in rows]
                x, found = zip(*sorted(points, key=lambda point: point[0]), strict=True)
                style = {"marker": "o", "color": f"C{index}", "label": name}
                if part == "depth":
                    key = "compile_seconds"
                    axis.plot(x, [rows[name][key] / rows["adamw"][key] for rows in found], **style)
                    continue
                y = [rows[name]["ratio"] for rows in found]
                ends = [rows[name]["quartiles"] for rows in found]
                spread = [
                    [middle - low for middle, (low, _) in zip(y, ends, strict=True)],
                    [high - middle for middle, (_, high) in zip(y, ends, strict=True)],
                ]
                axis.errorbar(x, y, yerr=spread, capsize=3, **style)
            axis.axhline(1, color="gray", linewidth=1)
            axis.set_xscale("log", base=2)
            ticks = sorted(int(case) for case in cases)
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
            axis.set_title(device, fontsize=9)
            if axis.lines[1:]:
                axis.legend(fontsize=7)
        deep.set(xlabel="blocks, not scanned", ylabel="CPU seconds to compile, to AdamW's")
        wide.set(xlabel="width of the transformer", ylabel="seconds a step, to AdamW's")
        wide.set_yscale("log", base=2)
        wide.yaxis.set_major_formatter("{x:g}")
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)


Cell = Callable[[dict[str, Any], Rows], str]


def _columns(own: Record, parts: tuple[str, ...]) -> dict[str, Rows]:
    """The cases of some parts, in the order of ``PARTS``, by what a table calls them."""
    return {
        TITLES[part].format(case): rows
        for part in PARTS
        if part in parts and part in own
        for case, rows in own[part]["cases"].items()
    }


def _table(title: str, columns: dict[str, Rows], cell: Cell) -> list[str]:
    """One table; none if nothing was measured."""
    if not columns:
        return []
    names = list(dict.fromkeys(name for rows in columns.values() for name in rows))
    lines = [f"| {title} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        cells = [cell(rows[name], rows) if name in rows else "" for rows in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return ["\n".join(lines)]


def _step(row: dict[str, Any], rows: Rows) -> str:
    if "ratio" not in row:
        return ""
    low, high = row["quartiles"]
    return f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"


def _compile(row: dict[str, Any], rows: Rows) -> str:
    return f"{_ratio('compile_seconds')(row, rows)} ({row['compile_seconds']:.1f})"


def _program(row: dict[str, Any], rows: Rows) -> str:
    return f"{row['hlo_lines']} ({row['conditionals']}, {row['whiles']})"


def _ratio(key: str) -> Cell:
    return lambda row, rows: f"{row[key] / rows['adamw'][key]:.2f}"
