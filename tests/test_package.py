"""The house: what is public, and which way imports point."""

import ast
import inspect
import re
import tomllib
from pathlib import Path

import pytest
import signatures
import stub

import singd_optax
import singd_optax.testing

ROOT = Path(singd_optax.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

#: What each part may import of the package, beside itself, ``_validate`` and ``_types``.
ALLOWED = {
    "structures": set(),
    "placement": {"structures"},
    "layers": {"placement", "structures"},
    "measures": {"layers", "placement", "structures"},
    "rules": {"measures", "layers", "structures"},
    "transforms": {"rules", "measures", "layers", "placement", "structures"},
    "optimizers": {"transforms", "rules", "measures", "layers", "structures"},
    "capture": {"measures", "layers", "placement", "structures"},
    "curvature": {
        "optimizers",
        "capture",
        "rules",
        "measures",
        "layers",
        "placement",
        "structures",
    },
    "nnx": {"capture"},
    "training": {"measures", "layers", "structures"},
    "sharding": {"layers", "placement"},
    "diagnostics": {"capture", "layers", "structures"},
    "testing": {
        "sharding",
        "capture",
        "transforms",
        "rules",
        "measures",
        "layers",
        "placement",
        "structures",
    },
    "_validate": set(),
    "_types": set(),
}

PUBLIC = [
    "LayerSpec",
    "Layers",
    "adafisher",
    "caspr",
    "curvature",
    "damping_schedule",
    "diagnostics",
    "ekfac",
    "eva",
    "eva_f",
    "eva_s",
    "factors",
    "find_layers",
    "find_matrices",
    "foof",
    "ikfac",
    "ingd",
    "inverse_free_kl_shampoo",
    "inverse_free_shampoo",
    "jorge",
    "kfac",
    "kl_shampoo",
    "kl_soap",
    "kpsvd",
    "layers",
    "locoprop",
    "mini_block_fisher",
    "mkor",
    "nnx",
    "normuon",
    "optimizer",
    "optimizers",
    "parse_structure",
    "plain_params",
    "position_weights",
    "psgd_kron",
    "refresh_due",
    "refresh_schedule",
    "register_layer",
    "rs_kfac",
    "rules",
    "sampling_damping",
    "scale_by_adafisher",
    "scale_by_caspr",
    "scale_by_ekfac",
    "scale_by_eva",
    "scale_by_eva_f",
    "scale_by_eva_s",
    "scale_by_foof",
    "scale_by_ikfac",
    "scale_by_inverse_free_kl_shampoo",
    "scale_by_inverse_free_shampoo",
    "scale_by_jorge",
    "scale_by_kfac",
    "scale_by_kl_shampoo",
    "scale_by_kl_soap",
    "scale_by_kpsvd",
    "scale_by_locoprop",
    "scale_by_mini_block_fisher",
    "scale_by_mkor",
    "scale_by_normuon",
    "scale_by_psgd_kron",
    "scale_by_rs_kfac",
    "scale_by_rule",
    "scale_by_shampoo",
    "scale_by_singd",
    "scale_by_sketchy",
    "scale_by_skfac",
    "scale_by_sm3",
    "scale_by_soap",
    "scale_by_splus",
    "scale_by_tekfac",
    "scale_by_tkfac",
    "scale_by_tnt",
    "shampoo",
    "sharding",
    "singd",
    "sketchy",
    "skfac",
    "sm3",
    "soap",
    "splus",
    "structures",
    "tag",
    "tag_distribution",
    "tekfac",
    "tkfac",
    "tnt",
    "training",
    "transforms",
    "value_and_grad",
]


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def part_of(parts):
    return parts[0].removesuffix(".py") if parts else "singd_optax"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_down(file):
    part = part_of(file.relative_to(ROOT).parts)
    for module in imports(file):
        if module.split(".")[0] != "singd_optax" or part == "__init__":
            continue
        target = part_of(tuple(module.split(".")[1:]))
        assert target in ALLOWED[part] | {part, "_validate", "_types"}, f"{file} imports {module}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_private_modules_of_others(file):
    for module in imports(file):
        names = module.split(".")
        if names[0] != "singd_optax":
            assert not any(name.startswith("_") and name != "__future__" for name in names), module
            assert not module.startswith("jax.interpreters"), module
        if names[0] == "flax" and names[1:2] == ["linen"]:
            assert file.name in ("_linen.py", "_linen_kinds.py"), f"{file} imports {module}"
        if names[0] == "flax" and part_of(file.relative_to(ROOT).parts) == "capture":
            assert module == "flax.struct" or file.name.startswith(("_linen", "_nnx")), file
        if names[0] == "optax":
            allowed = ("transforms", "optimizers", "curvature", "training", "diagnostics")
            assert part_of(file.relative_to(ROOT).parts) in allowed, file


def test_small_files():
    sizes = {file: len(file.read_text().splitlines()) for file in FILES}
    assert max(sizes.values()) <= 400


def test_the_oldest_versions_are_those_of_the_constraints():
    top = Path(__file__).parents[1]
    project = tomllib.loads((top / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    stated = [*project["dependencies"], *extras["test"], *extras["bench"]]
    bounds = {line.replace(">=", "==") for line in stated if not line.startswith("singd-optax[")}
    oldest = (top / ".ci" / "oldest.txt").read_text()
    assert bounds == set(re.findall(r"^[^#\s].*$", oldest, flags=re.MULTILINE))


def test_who_cites_it_names_this_version():
    citation = (Path(__file__).parents[1] / "CITATION.cff").read_text()
    assert f"\nversion: {singd_optax.__version__}\n" in citation


def test_public_names():
    assert sorted(singd_optax.__all__) == PUBLIC
    assert all(hasattr(singd_optax, name) for name in PUBLIC)


def test_every_public_name_is_documented():
    for module in (
        singd_optax,
        singd_optax.structures,
        singd_optax.layers,
        singd_optax.placement,
        singd_optax.nnx,
        singd_optax.measures,
        singd_optax.rules,
        singd_optax.transforms,
        singd_optax.optimizers,
        singd_optax.curvature,
        singd_optax.training,
        singd_optax.sharding,
        singd_optax.diagnostics,
        singd_optax.testing,
    ):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert (value.__doc__ or "").strip(), f"{module.__name__}.{name}"


def test_editors_see_what_help_shows():
    """Run `python tests/stub.py` after a change of an option or of its description."""
    assert stub.PATH.read_text() == stub.text()


def test_no_signature_changes_unseen():
    """Run `python tests/signatures.py` after a deliberate change, and say it in CHANGELOG.md."""
    assert signatures.PATH.read_text() == signatures.text()


def test_files_of_algorithms_are_read_in_one_sitting():
    sizes = sorted(
        len(file.read_text().splitlines())
        for file in (ROOT / "optimizers").glob("_*.py")
        if file.name != "__init__.py"
    )
    assert sizes[-1] <= 400
    assert sizes[len(sizes) // 2] <= 300


def test_any_is_rare():
    lines = [line for file in FILES for line in file.read_text().splitlines()]
    assert sum(re.search(r"\bAny\b", line) is not None for line in lines) <= 150
