"""Shared settings of the suite."""

import jax
import pytest
from quick import quick_of

jax.config.update("jax_num_cpu_devices", 8)
# Most of the time of the suite is compilation of small programs.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def x64():
    """Run a test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in quick_of(items):
        item.add_marker("quick")
