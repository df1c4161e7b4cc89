"""Names, parameters and defaults of all that is public, as text.

``python tests/signatures.py`` writes ``signatures.txt``; ``test_package.py`` fails if it is not
what is written here, so that no signature changes unseen. Types are left out: each version of
Python shows them in another way.
"""

import importlib
import inspect
import re
from pathlib import Path

import singd_optax

PATH = Path(__file__).with_suffix(".txt")
#: Where public names are; one that another module has already is written there alone.
MODULES = (
    "",
    *("capture", "curvature", "diagnostics", "layers", "measures", "nnx", "optimizers", "rules"),
    *("sharding", "structures", "testing", "training", "transforms"),
)


def text():
    """What the file holds."""
    lines, seen = [], set()
    for module_name in MODULES:
        name = f"singd_optax.{module_name}".rstrip(".")
        if importlib.util.find_spec(name) is None:
            continue
        module = importlib.import_module(name)
        for public in sorted(module.__all__):
            value = getattr(module, public)
            if inspect.ismodule(value) or id(value) in seen:
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                seen.add(id(value))
            lines += _of(f"{name}.{public}", value)
    return "\n".join(lines) + "\n"


def _of(name, value):
    """The lines of a function, or of a class and its public methods."""
    if not inspect.isclass(value):
        return [name + (_signature(value) if inspect.isfunction(value) else "")]
    lines = [name + _signature(value)]
    for method, own in sorted(vars(value).items()):
        if method.startswith("_"):
            continue
        own = own.__func__ if isinstance(own, classmethod | staticmethod) else own
        if inspect.isfunction(own):
            lines.append(f"{name}.{method}{_signature(own)}")
        elif isinstance(own, property):
            lines.append(f"{name}.{method}")
    return lines


def _signature(function):
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    short = signature.replace(parameters=parameters, return_annotation=signature.empty)
    return re.sub(r" at 0x[0-9a-f]+", "", str(short))


if __name__ == "__main__":
    PATH.write_text(text())
    print(f"{PATH}: {len(PATH.read_text().splitlines())} lines, {singd_optax.__version__}")
