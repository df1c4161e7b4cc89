"""The main job, at a small size."""

import json
import subprocess
import sys
from pathlib import Path

QUICKSTART = Path(__file__).parents[1] / "benchmarks" / "quickstart.py"


def test_quickstart(tmp_path):
    command = [sys.executable, str(QUICKSTART), "--steps", "40", "--output", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "validation loss, 40 steps" in result.stdout
    assert (tmp_path / "quickstart.png").stat().st_size > 10_000
    runs = json.loads((tmp_path / "quickstart.json").read_text())["runs"]
    for run in runs.values():
        assert run["validation"][-1] < run["validation"][0] - 1
