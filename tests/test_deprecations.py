"""A deprecated name or call is an error in the suite where this package uses it, and only there.

Python counts a warning to the module that its stacklevel points at. The filter in pyproject.toml
goes by the beginning of that module's name.
"""

import types
import warnings

import pytest

import singd_optax


class Deprecating(types.ModuleType):
    """A module that deprecates its names as JAX's modules do: in `__getattr__`, at its caller."""

    def __getattr__(self, name):
        if name != "old_name":
            raise AttributeError(name)
        warnings.warn("this name is deprecated", DeprecationWarning, stacklevel=2)

    def old_call(self):
        warnings.warn("this call is deprecated", DeprecationWarning, stacklevel=2)


def run_as(module, statement):
    exec(statement, {"__name__": module, "library": Deprecating("library")})


@pytest.mark.parametrize("module", ["singd_optax", "singd_optax.capture._tap"])
@pytest.mark.parametrize("statement", ["library.old_name", "library.old_call()"])
def test_deprecations_are_errors_in_this_package(module, statement):
    with pytest.raises(DeprecationWarning, match="is deprecated"):
        run_as(module, statement)


@pytest.mark.parametrize("module", ["flax.nnx", "optax", "test_singd_optax"])
def test_deprecations_of_others_are_not(module):
    run_as(module, "library.old_name")
    run_as(module, "library.old_call()")


def test_modules_of_this_package_have_names_that_the_filter_matches():
    assert singd_optax.find_layers.__globals__["__name__"].startswith("singd_optax.")
