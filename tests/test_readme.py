"""The examples of the README and of the pages run as they stand; their links lead somewhere."""

import re
import sys
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

TOP = Path(__file__).parents[1]
README = TOP / "README.md"
RESULTS = TOP / "benchmarks" / "published"
PAGES = sorted(
    page for part in (".", "benchmarks", "notebooks/**") for page in TOP.glob(f"{part}/*.md")
)


def test_commands(monkeypatch):
    """Any Python from the oldest on does; an older one is told so before it installs anything."""
    commands = re.findall(r"```sh\n(python3 -c .*?)```", README.read_text(), flags=re.DOTALL)
    assert len(commands) == 2
    project = tomllib.loads(README.with_name("pyproject.toml").read_text())["project"]
    for command in commands:
        check, rest = re.fullmatch(r"python3 -c '(.*?)' &&\n(.*)", command, re.DOTALL).groups()
        assert rest.startswith("python3 -m venv .venv && .venv/bin/pip install -e ")
        monkeypatch.setattr(sys, "version_info", (3, 11, 0))
        with pytest.raises(SystemExit) as stopped:
            exec(check)
        assert stopped.value.code == 0
        monkeypatch.setattr(sys, "version_info", (3, 10, 14))
        with pytest.raises(SystemExit) as stopped:
            exec(check)
        assert stopped.value.code == "needs Python 3.11 or newer"
    assert project["requires-python"] == ">=3.11"


def blocks_of(page):
    return re.findall(r"```python\n(.*?)```", (TOP / page).read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def ran():
    """The names of the README's example, which the pages go on from."""
    (example,) = blocks_of("README.md")
    namespace = {}
    exec(example, namespace)
    return namespace


@pytest.fixture
def readme(ran):
    """These, with parameters of their own: some pages donate them."""
    return ran | {"params": jax.tree.map(jnp.copy, ran["params"])}


def test_example(readme):
    assert 0 < float(readme["loss"]) < 0.1


def test_training_loop(readme, capsys):
    pieces, checkpoint, as_published = blocks_of("notebooks/docs/training_loop.md")
    exec(pieces, readme)
    assert int(readme["state"].step) == 3
    assert "Dense() 9 x 9 float32" in capsys.readouterr().out
    assert len(readme["figure"].axes) == 3
    params = readme["state"].params
    for name in ("accumulating", "lookahead"):
        assert readme[name].init(params)
    exec(checkpoint, readme)
    same = jax.tree.map(jnp.array_equal, readme["run"], readme["restored"])
    assert all(jax.tree.leaves(same))
    exec(as_published, readme)
    assert readme["tx"].init(params)


def test_gradients_only(readme):
    (block,) = blocks_of("notebooks/docs/choose.md")
    exec(block, readme)
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(readme["updates"]))


def test_meshes(readme):
    (block,) = blocks_of("notebooks/docs/meshes.md")
    exec(block, readme)
    found = readme["opt_state"], readme["of_state"]
    shards = jax.tree.map(lambda leaf, wanted: leaf.sharding == wanted, *found)
    assert all(jax.tree.leaves(shards))


def test_teach_it_a_layer(readme):
    for block in blocks_of("notebooks/docs/teach_it_a_layer.md"):
        exec(block, readme)
    assert sorted(readme["tagged"]) == ["hidden/w", "out/w"]


@pytest.mark.filterwarnings("ignore::singd_optax.structures.PerformanceWarning")
def test_write_a_structure():
    (block,) = blocks_of("notebooks/docs/write_a_structure.md")
    namespace = {"__name__": "page"}
    exec(block, namespace)
    assert namespace["EvenOdd"]().project(jnp.ones((3, 3))).to_dense()[0, 1] == 0


def test_the_first_page_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    assert len(text.encode()) <= 12_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_to_files(page):
    """The site's own build checks links among its pages, too; this one knows all of the project."""
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    for link in links:
        target = page.parent / link
        if link.startswith(("http://", "https://")):
            continue
        if RESULTS in target.parents and not RESULTS.exists():
            continue  # a source distribution has none
        assert target.exists(), f"{page} links to {link}"
