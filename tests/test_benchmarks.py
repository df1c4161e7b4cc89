"""The main job and the benchmarks, at a small size."""

import io
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import _public
import _report
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _command import main
from _harness import best_of, draws, load
from _optimizers import OPTIMIZERS, compiled
from _tasks import TASKS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run_script(script, *options):
    command = [sys.executable, str(BENCHMARKS / script), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_quickstart(tmp_path):
    printed = run_script("quickstart.py", "--steps", "20", "--output", str(tmp_path))
    assert "validation loss, 20 steps" in printed
    assert (tmp_path / "quickstart.png").stat().st_size > 10_000
    runs = json.loads((tmp_path / "quickstart.json").read_text())["runs"]
    for run in runs.values():
        assert run["validation"][-1] < run["validation"][0] - 1


def test_structures(tmp_path):
    printed = run_script("structures.py", "--small", "--output", str(tmp_path))
    assert "block_diagonal:32" in printed
    assert (tmp_path / "structures_small.png").stat().st_size > 10_000


def test_harness(tmp_path, capsys):
    """Runs are made once; tables and plots come from their files alone."""
    command = ["run", "wine", "--optimizers", "adamw", "singd", "--trials", "2", "--seeds", "2"]
    command += ["--steps", "20", "--carry-over", "--output", str(tmp_path)]
    main(command)
    folder = tmp_path / "small" / "wine"
    files = sorted(folder.glob("*.json"))
    assert len(files) == 10
    before = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    main(command)
    assert [file for file in files if file.stat().st_mtime_ns != before[file]] == files[:1]
    records = load(folder, "seed")
    assert sorted(records) == ["adamw", "singd", "singd@adamw"]
    searched = load(folder, "trial")["adamw"]
    assert (
        records["adamw"][0]["setting"] == best_of(searched) == records["singd@adamw"][0]["setting"]
    )
    for record in (record for runs in records.values() for record in runs):
        assert record["final"] == pytest.approx(record["curve"][-1], abs=1e-5)
        assert record["final"] < record["curve"][0]
        assert 0 <= record["accuracy"] <= 1
        assert record["environment"]["jax"] == jax.__version__
    main(
        [
            "time",
            "wine",
            "--optimizers",
            "adamw",
            "singd",
            "--rounds",
            "2",
            "--output",
            str(tmp_path),
        ]
    )
    main(["table", "wine", "--output", str(tmp_path)])
    table = (tmp_path / "small.md").read_text()
    assert all(f"| {label} (" in table for label in records)
    main(["plot", "wine", "--output", str(tmp_path)])
    assert (tmp_path / "small_wine.png").stat().st_size > 10_000
    main(["memory", "wine", "--optimizers", "adamw", "--output", str(tmp_path)])
    taken = json.loads((folder / "memory.json").read_text())["optimizers"]["adamw"]
    assert taken["arguments"] >= taken["params"] + taken["state"] > 2 * taken["params"]
    main(["memory", "wine", "--optimizers", "sgd", "--output", str(tmp_path)])
    both = json.loads((folder / "memory.json").read_text())["optimizers"]
    assert both["adamw"] == taken
    assert both["sgd"]["state"] < taken["state"]
    main(["list"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*TASKS, *OPTIMIZERS, *_public.PUBLIC))
    with pytest.raises(SystemExit):
        main(["run", "mnist"])


def test_report_counts_runs_that_diverged():
    good = {"final": 0.5, "curve": [2.0, 1.0, 0.5]}
    bad = {"final": None, "curve": [2.0, None]}
    assert _report.finals([good, bad]) == [0.5, np.inf]
    assert _report.share_to_reach([good, good, bad], 1.0) == 0.5
    assert _report.share_to_reach([good, bad, bad], 1.0) == np.inf
    assert best_of([bad, bad]) is None


def test_draws_are_equal_where_ranges_are():
    assert draws("singd", 5) == draws("ikfac", 5)
    assert draws("adamw", 7)[:5] == draws("adamw", 5)
    for name, optimizer in OPTIMIZERS.items():
        for setting in draws(name, 9):
            assert all(low <= setting[k] <= high for k, (low, high) in optimizer.ranges.items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_step(name):
    """As far as tracing goes; the shapes of parameters and state stay."""
    task = TASKS["wine"]()
    params = jax.eval_shape(task.init, jax.random.key(0))
    batch = next(iter(task.batches(1, 0)))
    built = compiled(task, name, 100)
    state = jax.eval_shape(built.init, params)
    settings = {key: jnp.float32(low) for key, (low, _) in OPTIMIZERS[name].ranges.items()}
    new = jax.eval_shape(built.step, params, state, batch, settings)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, (params, state), new[:2]))


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_batches_and_a_loss(name):
    task = TASKS[name]()
    params = jax.eval_shape(task.cast("bfloat16").init, jax.random.key(0))
    batches = list(task.batches(2, 0))
    again = list(task.batches(2, 0))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), batches, again))
    assert jax.eval_shape(task.loss_fn, params, batches[0]).dtype == jnp.float32
    assert jax.eval_shape(task.evaluate, params).shape == ()
    assert task.accuracy is None or jax.eval_shape(task.accuracy, params).shape == ()


def archive(file, members):
    with tarfile.open(file, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def stand_in(name, folder):
    """A small archive of the same form as the public one."""
    file = folder / _public.ADDRESSES[name].rsplit("/", 1)[-1]
    rng = np.random.default_rng(0)
    if name == "cifar100":
        labels = list(range(100))
        entry = {b"data": rng.integers(0, 256, (100, 3072), np.uint8), b"fine_labels": labels}
        archive(
            file, {f"cifar-100-python/{part}": pickle.dumps(entry) for part in ("train", "test")}
        )
    elif name == "imagewoof":
        from PIL import Image

        members = {}
        for part in ("train", "val"):
            for breed in range(10):
                stream = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(stream, "JPEG")
                members[f"imagewoof2-160/{part}/n{breed}/a.JPEG"] = stream.getvalue()
        archive(file, members)
    else:
        papers = [(f"p{i}", rng.integers(0, 2, 12), f"class{i % 7}") for i in range(200)]
        content = "\n".join(" ".join([p, *map(str, words), label]) for p, words, label in papers)
        cites = "\n".join(f"p{a} p{b}" for a, b in rng.integers(0, 210, (300, 2)))
        archive(file, {"cora/cora.content": content.encode(), "cora/cora.cites": cites.encode()})


@pytest.mark.parametrize("name", _public.PUBLIC)
def test_public_sets(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SINGD_OPTAX_DATA", str(tmp_path))
    stand_in(name, tmp_path)
    task = _public.PUBLIC[name]("small")
    params = jax.eval_shape(task.init, jax.random.key(0))
    batch = next(iter(task.batches(1, 0)))
    built = compiled(task, "singd_block", 100)
    state = jax.eval_shape(built.init, params)
    settings = {"learning_rate": jnp.float32(1e-3), "weight_decay": jnp.float32(0)}
    new = jax.eval_shape(built.step, params, state, batch, settings)
    assert jax.tree.structure(new[0]) == jax.tree.structure(params)
    assert jax.eval_shape(task.accuracy, params).shape == ()
