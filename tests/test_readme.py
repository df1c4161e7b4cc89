"""The README's examples run as they stand."""

import re
from pathlib import Path

import jax

README = Path(__file__).parents[1] / "README.md"


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
    assert int(namespace["state"].step) == 2
    assert "Dense() 9 x 9 float32" in capsys.readouterr().out
    assert len(namespace["figure"].axes) == 3
    params = namespace["state"].params
    for name in ("accumulating", "lookahead"):
        assert namespace[name].init(params)
    exec(blocks[3], namespace)
    found = namespace["opt_state"], namespace["of_state"]
    shards = jax.tree.map(lambda leaf, wanted: leaf.sharding == wanted, *found)
    assert all(jax.tree.leaves(shards))
