"""The types of ``singd_optax.optimizers`` as editors and type checkers read them.

Signatures of complete optimizers are made of rules as the package is imported; what does not import
it reads ``singd_optax/optimizers/__init__.pyi``. ``python tests/stub.py`` writes that file, and
``test_optimizers.py`` fails if it is not what is written here.
"""

import ast
import inspect
import textwrap
from pathlib import Path

import singd_optax.optimizers
from singd_optax.optimizers._recipe import optimizer
from singd_optax.transforms import scale_by_rule

PATH = Path(singd_optax.optimizers.__file__).with_suffix(".pyi")

HEADER = '''"""Written by tests/stub.py: what editors and type checkers read."""

from collections.abc import Mapping
from typing import Literal

import optax
from jax.typing import DTypeLike

from singd_optax.layers import Layers, MatrixAxes
from singd_optax.optimizers._ekfac import ScaleSource
from singd_optax.optimizers._kfac import InverseMethod
from singd_optax.optimizers._locoprop import LocalMethod
from singd_optax.optimizers._psgd_kron import Geometry
from singd_optax.optimizers._recipe import Mask
from singd_optax.optimizers._singd import FactorInit
from singd_optax.rules import (
    Damping,
    DampingMode,
    FactorStepNorm,
    Hyperparameter,
    Interval,
    Iteration,
    RootMethod,
    Rule,
)
from singd_optax.rules._eigenbasis import BasisMethod
from singd_optax.rules._second_moment import SecondMoment
from singd_optax.structures import Precision, Structure
from singd_optax.transforms import KLClip
from singd_optax.transforms._direction_options import DirectionName
from singd_optax.transforms._grafting import GraftedStep
'''


def types():
    """Name of an option -> its type as it is written where the option is."""
    found = {}
    rules = [r for r in vars(singd_optax.optimizers).values() if inspect.isclass(r)]
    for source in (optimizer, scale_by_rule, *(c for rule in rules for c in rule.__mro__[:-2])):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(source))).body
        entries = tree.args.kwonlyargs + tree.args.args if hasattr(tree, "args") else tree.body
        for entry in entries:
            name = entry.arg if isinstance(entry, ast.arg) else getattr(entry, "target", None)
            name = getattr(name, "id", name)
            kind = "" if name is None else ast.unparse(entry.annotation)
            if kind and not kind.startswith("ClassVar"):
                found.setdefault((source.__name__, name), kind)
                found.setdefault(name, kind)
    return found


def text():
    known = types()
    parts, lines = [HEADER], []
    for name in singd_optax.optimizers.__all__:
        value = getattr(singd_optax.optimizers, name)
        if inspect.isclass(value):
            lines.append(f"from {value.__module__} import {name} as {name}\n")
            continue
        rule = next((r for r in RULES if name.removeprefix("scale_by_") in RULES[r]), None)
        arguments = []
        for parameter in inspect.signature(value).parameters.values():
            of_rule = [(c.__name__, parameter.name) for c in (rule.__mro__ if rule else ())]
            kind = next((known[k] for k in of_rule if k in known), None) or known[parameter.name]
            has_default = parameter.default is not parameter.empty
            plain = isinstance(parameter.default, str | int | float | None)
            default = f" = {parameter.default!r}" if plain else " = ..."
            if parameter.name == "layers":
                kind = "Layers | None" if has_default else "Layers"
            if parameter.kind is parameter.KEYWORD_ONLY and "*" not in arguments:
                arguments.append("*")
            arguments.append(f"{parameter.name}: {kind}{default if has_default else ''}")
        doc = textwrap.indent(inspect.getdoc(value), "    ").lstrip()
        head = f"def {name}(\n    " + ",\n    ".join(arguments) + ",\n)"
        parts.append(
            f'{head} -> optax.GradientTransformationExtraArgs:\n    """{doc}\n    """\n    ...\n'
        )
    return parts[0] + "".join(lines) + "\n" + "\n".join(parts[1:])


_OPTIMIZERS = singd_optax.optimizers
#: Rule -> what is made of it.
RULES = {
    _OPTIMIZERS.SINGD: ("singd", "ingd"),
    _OPTIMIZERS.IKFAC: ("ikfac",),
    _OPTIMIZERS.KFAC: ("kfac",),
    _OPTIMIZERS.Shampoo: ("shampoo",),
    _OPTIMIZERS.CASPR: ("caspr",),
    _OPTIMIZERS.InverseFreeShampoo: ("inverse_free_shampoo",),
    _OPTIMIZERS.InverseFreeKLShampoo: ("inverse_free_kl_shampoo",),
    _OPTIMIZERS.SPlus: ("splus",),
    _OPTIMIZERS.SM3: ("sm3",),
    _OPTIMIZERS.EvaS: ("eva_s",),
    _OPTIMIZERS.Jorge: ("jorge",),
    _OPTIMIZERS.Sketchy: ("sketchy",),
    _OPTIMIZERS.TNT: ("tnt",),
    _OPTIMIZERS.MiniBlockFisher: ("mini_block_fisher",),
    _OPTIMIZERS.SOAP: ("soap",),
    _OPTIMIZERS.KLShampoo: ("kl_shampoo",),
    _OPTIMIZERS.KLSOAP: ("kl_soap",),
    _OPTIMIZERS.PSGDKron: ("psgd_kron",),
    _OPTIMIZERS.NorMuon: ("normuon",),
}

if __name__ == "__main__":
    PATH.write_text(text())
