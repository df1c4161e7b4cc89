"""The README's example runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_examples(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    namespace = {}
    exec(blocks[0], namespace)
    assert 0 < float(namespace["loss"]) < 0.1
    assert "loss 0.0" in capsys.readouterr().out
    exec(blocks[1], namespace)
    assert namespace["tx"].init(namespace["params"])
