"""Compiling is what the kits spend their time on, and they compute little."""

import functools
import math
from collections.abc import Callable

import jax
import numpy as np

from singd_optax._types import PyTree

_CHUNK = 96

# One kernel an operation, unoptimized, in one module: five times faster to compile than XLA's
# default, on a CPU.
_OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def quick_jit(function: Callable[..., PyTree], **options: PyTree) -> Callable[..., PyTree]:
    """``jax.jit`` that compiles fast and runs slowly, and never reuses an older trace."""

    # JAX keys traces by function, and methods may have been replaced.
    def fresh(*args: PyTree) -> PyTree:
        return function(*args)

    return jax.jit(fresh, compiler_options=dict(_known_options()), **options)


def chunked(function: Callable[[PyTree], PyTree]) -> Callable[[PyTree, int], PyTree]:
    """``function`` over leading axes of any shape, compiled once for all of these shapes.

    Args:
      function: From a tree of arrays with one leading axis to another; it is cached by the
        shapes behind that axis.

    Returns:
      A function of a tree of numpy arrays and their number of leading axes.
    """
    compiled = quick_jit(function)

    def call(tree: PyTree, axes: int) -> PyTree:
        leading = jax.tree.leaves(tree)[0].shape[:axes]
        count = math.prod(leading)
        padded = -(-count // _CHUNK) * _CHUNK

        def flatten(leaf: np.ndarray) -> np.ndarray:
            return np.resize(leaf, (padded, *leaf.shape[axes:]))  # repeats what there is

        def restore(leaf: jax.Array) -> np.ndarray:
            return np.asarray(leaf)[:count].reshape(leading + leaf.shape[1:])

        return jax.tree.map(restore, compiled(jax.tree.map(flatten, tree)))

    return call


@functools.cache
def _known_options(
    options: tuple[tuple[str, PyTree], ...] = tuple(_OPTIONS.items()),
) -> tuple[tuple[str, PyTree], ...]:
    """Those of ``options`` that this jaxlib knows: they are no stable interface."""
    known = []
    for option in options:
        try:
            jax.jit(lambda: 0, compiler_options=dict([option]))()
        except Exception:  # of a type that depends on the version
            continue
        known.append(option)
    return tuple(known)
