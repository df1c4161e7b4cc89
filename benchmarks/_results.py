"""A file of results: JSON lines, each with the name of a run; of equal names the last line holds.

A run is appended at its end, in one write, so that several processes may share a file and what is
interrupted is not lost.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def read(file: Path) -> dict[str, Record]:
    """Name -> record, by name."""
    if not file.exists():
        return {}
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return {record["name"]: record for record in sorted(records, key=lambda r: r["name"])}


def append(file: Path, name: str, record: Record) -> None:
    """One more line; it takes the place of earlier ones of this name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps({"name": name} | record, separators=(",", ":")) + "\n")


def cached(file: Path, name: str, make: Callable[[], Record]) -> Record:
    """The record that is there, or is made and appended now."""
    if name not in read(file):
        append(file, name, make())
    return read(file)[name]


def rounded(tree: Any) -> Any:
    """A record with numbers of four digits."""
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    return float(f"{tree:.4g}") if isinstance(tree, float) else tree
