"""The main job and the benchmarks, at a small size."""

import dataclasses
import functools
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import _public
import _report
import gpt
import influence
import jax
import jax.numpy as jnp
import numpy as np
import peer_curvature
import price
import pytest
import quickstart
import spread
import structures
import uncertainty
from _command import main
from _corpus import corpus
from _harness import best_of, draws, load
from _optimizers import OPTIMIZERS, compiled
from _price_report import write_between_markers
from _results import append, cached, read
from _tasks import TASKS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def run_script(capsys):
    """Run a script as its command line would, but in this process; gives what it prints."""
    cached = jax.config.jax_enable_compilation_cache

    def run(script, *options):
        capsys.readouterr()
        script.main([*options])
        return capsys.readouterr().out

    yield run
    jax.config.update("jax_enable_compilation_cache", cached)


def test_a_script_starts_in_a_process_of_its_own():
    command = [sys.executable, str(BENCHMARKS / "quickstart.py"), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--optimizers" in result.stdout


def test_quickstart(tmp_path, run_script, monkeypatch):
    monkeypatch.setattr(quickstart, "GPT", functools.partial(quickstart.GPT, blocks=1))
    monkeypatch.setattr(quickstart, "BATCH", 4)
    printed = run_script(quickstart, "--steps", "20", "--output", str(tmp_path))
    assert "validation loss, 20 steps" in printed
    assert (tmp_path / "quickstart.png").stat().st_size > 10_000
    runs = json.loads((tmp_path / "quickstart.json").read_text())["runs"]
    for run in runs.values():
        assert run["validation"][-1] < run["validation"][0] - 1


def test_structures(tmp_path, run_script):
    printed = run_script(structures, "--small", "--output", str(tmp_path))
    assert "block_diagonal:32" in printed
    assert (tmp_path / "structures_small.png").stat().st_size > 10_000


def test_spread(run_script):
    small = ("--blocks", "0", "--width", "8", "--batch", "1", "--steps", "3")
    printed = run_script(spread, "--optimizers", "soap", *small)
    _, rule, *rows = printed.splitlines()
    assert [row.split(" | ")[0] for row in rows] == ["| adamw", "| soap", "| soap, staggered"]
    assert all(row.count("|") == rule.count("|") for row in rows)


def test_peer_curvature():
    """The differences of a net, of results that are there under the same or another name."""
    archive = {"mlp/kfac: product/bias0": np.ones(2), "mlp/kfac: product/kernel0": np.zeros(2)}
    archive |= {"mlp/kfac, bias apart: trace": np.float64(4), "conv/kfac: trace": np.float64(3)}
    theirs = peer_curvature.gathered(archive | {"mlp/kfac: scores": np.ones(3)}, "mlp")
    assert list(theirs["kfac: product"]) == ["bias0", "kernel0"]
    ours = {"kfac: product": {"bias0": np.ones(2), "kernel0": np.ones(2)}, "kfac: trace": 3.0}
    ours |= {"kfac, both factors means: scores": 2 * np.ones(3)}
    found = peer_curvature.apart(ours, theirs)
    assert found.pop("kfac: product") == pytest.approx(1.0)
    assert found.pop("kfac, bias apart: trace") == pytest.approx(0.25)
    assert found == {"kfac, both factors means: scores": pytest.approx(1.0)}
    published = (BENCHMARKS / "published" / "peer_curvature.json").read_text()
    rows = peer_curvature.table(json.loads(published)["relative_differences"])
    assert rows in (BENCHMARKS / "README.md").read_text()


def test_calibration():
    """Of probabilities whose metrics are known, and the table of medians."""
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    strange = np.array([[0.6, 0.4], [0.25, 0.75]])
    row = uncertainty.metrics(p, np.array([0, 1, 1, 1]), strange)
    assert row["accuracy"] == 0.75
    np.testing.assert_allclose(row["nll"], -np.log([0.9, 0.1, 0.8, 0.7]).mean())
    np.testing.assert_allclose(row["ece"], (2 * 0.4 + 0.2 + 0.3) / 4)
    assert row["auroc"] == 7 / 8  # of the eight pairs one is the wrong way round
    table = uncertainty.table([{"a": row | {"prior_precision": tau}} for tau in (1, 10, 3)])
    assert table.splitlines()[-1] == "| a | 0.75 | 0.747 | 0.325 | 0.875 | 3 |"


def test_published_tables():
    """Those of the README are made from the committed runs."""
    runs = read(BENCHMARKS / "published" / "uncertainty.jsonl").values()
    records = read(BENCHMARKS / "published" / "influence.jsonl")
    of_scores = influence.table(records["leave one out"], records["linear datamodel"])
    tables = uncertainty.table(list(runs)), of_scores
    text = (BENCHMARKS / "README.md").read_text()
    assert len(runs) == 3
    assert all(table in text for table in tables)


def test_price(tmp_path, run_script, monkeypatch):
    """Each part, at a small size; tables and the plot come from the file alone."""
    # What else has run in this process stays compiled; each program here is new.
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    here = ("--output", str(tmp_path))
    optimizers = {
        "steps": ("singd diagonal", "singd dense, refresh=False"),
        "width": ("adamw",),
        "depth": ("adamw", "singd dense, refresh=False"),
    }
    printed = ""
    for part, names in optimizers.items():
        options = ("--quick", "--parts", part, "--optimizers", *names, *here)
        printed += run_script(price, *options)
    assert all(f"\n{title} " in printed for title in ("wine", "width 8", "1 blocks"))
    ((device, parts),) = json.loads((tmp_path / "price.json").read_text()).items()
    assert list(parts) == list(optimizers)
    for part, names in optimizers.items():
        (rows,) = parts[part]["cases"].values()
        assert list(rows) == list(dict.fromkeys(("adamw", *names)))
        shortest_first = ("adamw", "singd dense, refresh=False", "singd diagonal")
        programs = [rows[name] for name in shortest_first if name in rows]
        for lines in ("hlo_lines", "stablehlo_lines"):
            counts = [row[lines] for row in programs]
            assert counts[0] > 0
            assert counts == sorted(set(counts))
        for name, row in rows.items():
            assert (row["conditionals"] > 0) == (name == "singd diagonal")
        for row in rows.values():
            assert row["compile_seconds"] > 0
            assert row["params"] + row["state"] <= row["arguments"] < row["peak"]
    assert "ratio" not in parts["depth"]["cases"]["1"]["adamw"]  # where nothing is run
    assert parts["width"]["cases"]["8"]["adamw"]["ratio"] == 1
    (tmp_path / "price.png").unlink()
    run_script(price, "--plot", *here)
    assert (tmp_path / "price.png").stat().st_size > 10_000
    document = tmp_path / "README.md"
    document.write_text(
        "a\n<!-- price.py --table: begin -->\nold\n<!-- price.py --table: end -->\nb"
    )
    table = run_script(price, "--table", *here).strip()
    run_script(price, "--table", str(document), *here)
    assert document.read_text() == (
        f"a\n<!-- price.py --table: begin -->\n\n{table}\n\n<!-- price.py --table: end -->\nb"
    )
    assert table.startswith(f"On {device} (jax {jax.__version__}")
    assert "| adamw | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) |\n" in table
    document.write_text("no place")
    with pytest.raises(ValueError, match="0 places for the table"):
        write_between_markers(document, table)


def test_gpt(tmp_path, run_script, monkeypatch):
    """The command of the larger language models, at its smallest size."""
    monkeypatch.setitem(gpt.SIZES, "tiny", dataclasses.replace(gpt.SIZES["tiny"], blocks=1))
    optimizers = ("adamw", "muon", "singd diagonal polar@0.03 refresh=0")
    here = ("--output", str(tmp_path))
    options = ("--steps", "4", "--rates", "4e-3", "--optimizers", *optimizers)
    printed = run_script(gpt, "tiny", *options, *here)
    rows = [json.loads(line) for line in (tmp_path / "gpt_tiny.jsonl").read_text().splitlines()]
    assert [row["optimizer"] for row in rows] == list(optimizers)
    assert len({row["text"] for row in rows}) == 1
    for row in rows:
        (first, _, start), (last, seconds, end) = row["curve"]
        assert (first, last) == (0, 4)
        assert seconds > 0
        assert end < start
        assert row["conditionals"] == 0
        assert row["state_bytes"] + row["params_bytes"] < row["peak_bytes"]
    assert all(f"| {name} | 0.004 |" in printed for name in optimizers)
    assert run_script(gpt, "tiny", "--table", *here) in printed


def test_corpus(tmp_path):
    """No file is in both parts, what was kept is used again, and pairs are fewer than bytes."""
    pytest.importorskip("tokenizers")
    text = corpus("bytes", tmp_path, 1.0)
    assert 0.02 < text.held_out.size / text.training.size < 0.5
    (kept,) = tmp_path.glob("*.npz")
    before = kept.stat().st_mtime_ns
    assert corpus("bytes", tmp_path, 1.0).name == text.name
    assert kept.stat().st_mtime_ns == before
    pairs = corpus("bpe", tmp_path, 1.0)
    assert pairs.name == text.name
    assert 2 < text.held_out.size / pairs.held_out.size == pytest.approx(pairs.bytes_per_token)


def test_harness(tmp_path, capsys):
    """Runs are made once; tables and plots come from their file alone."""
    command = ["run", "wine", "--optimizers", "adamw", "singd", "--trials", "2", "--seeds", "2"]
    command += ["--steps", "20", "--carry-over", "--output", str(tmp_path)]
    main(command)
    file = tmp_path / "small" / "wine.jsonl"
    first, *others = file.read_text().splitlines()
    assert len(others) == 9
    file.write_text("\n".join(others) + "\n")
    main(command)
    *kept, made = file.read_text().splitlines()
    assert kept == others
    assert json.loads(made)["name"] == json.loads(first)["name"] == "adamw.trial0"
    assert json.loads(made)["curve"] == json.loads(first)["curve"]
    records = load(file, "seed")
    assert sorted(records) == ["adamw", "singd", "singd@adamw"]
    searched = load(file, "trial")["adamw"]
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
    main(["plot", "wine", "--output", str(tmp_path), "--optimizers", "singd", "--suffix", "_few"])
    assert (tmp_path / "small_wine_few.png").stat().st_size > 10_000
    main(["memory", "wine", "--optimizers", "adamw", "--output", str(tmp_path)])
    taken = read(file)["memory"]["optimizers"]["adamw"]
    assert taken["arguments"] >= taken["params"] + taken["state"] > 2 * taken["params"]
    main(["memory", "wine", "--optimizers", "sgd", "--output", str(tmp_path)])
    both = read(file)["memory"]["optimizers"]
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


def test_held_out_and_training_losses_have_tables_of_their_own(tmp_path):
    kinds = {"a": "training loss (nats)", "b": "held-out loss", "c": "training loss"}
    for name, measure in kinds.items():
        for label, final in (("adamw", 0.5), ("singd", 0.25)):
            record = {"measure": measure, "final": final}
            append(tmp_path / f"{name}.jsonl", f"{label}.seed1", record)
    files = [tmp_path / f"{name}.jsonl" for name in kinds]
    assert _report.summary(files) == (
        "| held-out loss | b |\n|---|---|\n| adamw | 0.5000 |\n| singd | **0.2500** |\n\n"
        "| training loss | a | c |\n|---|---|---|\n| adamw | 0.5000 | 0.5000 |\n"
        "| singd | **0.2500** | **0.2500** |\n"
    )


def test_of_equal_names_the_last_line_holds(tmp_path):
    file = tmp_path / "of" / "task.jsonl"
    assert read(file) == {}
    append(file, "b", {"x": 1})
    append(file, "a", {"x": 2})
    append(file, "b", {"x": 3})
    assert list(read(file).items()) == [("a", {"name": "a", "x": 2}), ("b", {"name": "b", "x": 3})]
    assert cached(file, "a", dict)["x"] == 2
    assert cached(file, "c", lambda: {"x": 4})["x"] == 4
    assert len(file.read_text().splitlines()) == 4


def test_draws_are_equal_where_ranges_are():
    assert draws("singd", 5) == draws("ikfac", 5)
    assert draws("adamw", 7)[:5] == draws("adamw", 5)
    for name, optimizer in OPTIMIZERS.items():
        for setting in draws(name, 9):
            assert all(low <= setting[k] <= high for k, (low, high) in optimizer.ranges.items())


@functools.cache
def wine():
    """The task, the shapes of its parameters and a batch."""
    task = TASKS["wine"]()
    params = jax.eval_shape(task.init, jax.random.key(0))
    return task, params, next(iter(task.batches(1, 0)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_step(name):
    """As far as tracing goes; the shapes of parameters and state stay."""
    task, params, batch = wine()
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
        rows = rng.integers(0, 256, (100, 3074), np.uint8)
        rows[:, 1] = range(100)
        archive(
            file, {f"cifar-100-binary/{part}.bin": rows.tobytes() for part in ("train", "test")}
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
