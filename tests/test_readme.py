"""The README's examples run as they stand."""

import re
import sys
import tomllib
from pathlib import Path

import jax
import pytest

README = Path(__file__).parents[1] / "README.md"


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


def test_examples(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    namespace = {}
    exec(blocks[0], namespace)
    assert 0 < float(namespace["loss"]) < 0.1
    assert "loss 0.0" in capsys.readouterr().out
    exec(blocks[1], namespace)
    assert namespace["tx"].init(namespace["params"])
    exec(blocks[2], namespace)
    assert int(namespace["state"].step) == 3
    assert "Dense() 9 x 9 float32" in capsys.readouterr().out
    assert len(namespace["figure"].axes) == 3
    params = namespace["state"].params
    for name in ("accumulating", "lookahead"):
        assert namespace[name].init(params)
    exec(blocks[3], namespace)
    found = namespace["opt_state"], namespace["of_state"]
    shards = jax.tree.map(lambda leaf, wanted: leaf.sharding == wanted, *found)
    assert all(jax.tree.leaves(shards))
