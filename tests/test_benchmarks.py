"""The main job and the benchmarks, at a small size."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run_script(script, *options):
    command = [sys.executable, str(BENCHMARKS / script), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_quickstart(tmp_path):
    printed = run_script("quickstart.py", "--steps", "40", "--output", str(tmp_path))
    assert "validation loss, 40 steps" in printed
    assert (tmp_path / "quickstart.png").stat().st_size > 10_000
    runs = json.loads((tmp_path / "quickstart.json").read_text())["runs"]
    for run in runs.values():
        assert run["validation"][-1] < run["validation"][0] - 1


def test_structures(tmp_path):
    printed = run_script("structures.py", "--small", "--output", str(tmp_path))
    assert "block_diagonal:32" in printed
    assert (tmp_path / "structures_small.png").stat().st_size > 10_000
