"""Shared settings of the suite."""

import gc
import os

import jax
import pytest
from quick import is_optimized, left_out_of, quick_of

# Eight devices on two cores wait for one another in collectives: on a busy machine now and then for
# longer than the 40 seconds after which XLA ends the process. So it does for a flag that it does
# not know: these are known up to jax 0.12.
_PATIENCE = (
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
    "--xla_cpu_collective_timeout_seconds=600",
)
if jax.__version_info__ < (0, 13):
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *_PATIENCE)).strip()

# XLA runs collectives on a pool of as many threads as there are devices or cores. Where a device
# has two of them at once, eight threads can all wait for a collective that has none left: seen
# with jaxlib 0.12, now and then. The size of the pool is this, if it is set.
os.environ.setdefault("NPROC", "32")

jax.config.update("jax_num_cpu_devices", 8)
# Most of the time of the suite is compilation of small programs. `.ci/run optimized` runs some
# as users compile.
jax.config.update("jax_disable_most_optimizations", not os.environ.get("OPTIMIZED"))
# Traces make many small objects that live long: looking for cycles less often saves a tenth.
gc.set_threshold(200_000, 50, 100)


@pytest.fixture
def x64():
    """Run a test in float64."""
    with jax.enable_x64(True):
        yield


def pytest_addoption(parser):
    parser.addoption(
        "--all-cases",
        action="store_true",
        help="run every case of every test, also those that tests/quick.py leaves out",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in quick_of(items):
        item.add_marker("quick")
    for item in filter(is_optimized, items):
        item.add_marker("optimized")
    is_named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    is_chosen = config.option.markexpr or config.option.keyword
    if not (is_named or is_chosen or config.option.all_cases):
        left_out = left_out_of(items)
        others = set(items) - set(left_out)
        items[:] = [item for item in items if item in others]
        config.hook.pytest_deselected(items=left_out)


#: JAX keeps 8192 calls of jitted functions for a process, and this suite makes more: then a new one
#: is not counted by ``_cache_size``. So all are dropped now and then, between two files.
_TESTS_OF_A_CACHE = 500
_tests = 0


def pytest_runtest_teardown(item, nextitem):
    """Drop what JAX has kept, after many tests, where the next one is of another file."""
    global _tests
    _tests += 1
    is_last_of_file = nextitem is not None and nextitem.path != item.path
    if is_last_of_file and _tests >= _TESTS_OF_A_CACHE:
        jax.clear_caches()
        _tests = 0
