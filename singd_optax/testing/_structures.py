"""The conformance kit of structures: every operation against dense arithmetic in float64.

The author of a structure calls ``check_structure``, or parametrizes tests over
``structure_cases``. Only ``project`` and ``to_dense`` are taken on trust; test these apart.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from singd_optax._types import PyTree
from singd_optax.structures import PerformanceWarning, Structure, StructuredMatrix
from singd_optax.testing._compile import quick_jit
from singd_optax.testing._operations import PROMOTED, STORED, entries, operations
from singd_optax.testing._sample import (
    arguments,
    expected,
    expected_gradients,
    first,
    gradients,
    to_dense,
)

DIMS = (1, 2, 5, 17, 33, 64)
BATCH_SHAPES: tuple[tuple[int, ...], ...] = ((), (3,))
DTYPES = ("float64", "float32", "bfloat16")
MODES = ("eager", "jit", "vmap", "grad")

_BOUND = "spectral_norm_bound"


@dataclasses.dataclass(frozen=True)
class StructureCase:
    """One point of the grid on which a structure is checked.

    Attributes:
      structure: The structure.
      dim: The number of rows of the matrices.
      batch_shape: The leading axes of the matrices, ``()`` for single ones.
      dtype: The dtype of the matrices, by name.
      mode: How operations are called: "eager", "jit", "vmap" or "grad".
    """

    structure: Structure
    dim: int
    batch_shape: tuple[int, ...]
    dtype: str
    mode: str

    def __str__(self) -> str:
        """A short name, for the ids of tests."""
        batch = "x".join(map(str, self.batch_shape)) or "single"
        return f"{self.structure!r}-{self.dim}-{batch}-{self.dtype}-{self.mode}"

    def check(self) -> None:
        """Compare all operations with dense arithmetic.

        Raises:
          AssertionError: One differs by more than the dtype's rounding explains.
        """
        with jax.enable_x64(True), warnings.catch_warnings():
            # Dense arithmetic is slow, and right.
            warnings.simplefilter("ignore", PerformanceWarning)
            _check(self)


def structure_cases(
    structure: Structure,
    dims: Sequence[int] = DIMS,
    batch_shapes: Sequence[tuple[int, ...]] = BATCH_SHAPES,
    dtypes: Sequence[str] = DTYPES,
    modes: Sequence[str] = MODES,
    *,
    complete: bool = False,
) -> Iterator[StructureCase]:
    """The grid of cases on which a structure is checked.

    With ``complete`` it is the full product, which takes minutes a structure. Without it, there
    are: under jit, every two of size, batch and dtype away from the middle size, the first batch
    shape and float32 (the spectral norm's bound in float32); under vmap and grad, each of the
    three; eagerly, which compiles every operation by itself, that one point.

    Args:
      structure: The structure to check.
      dims: The numbers of rows of matrices.
      batch_shapes: The leading axes of matrices.
      dtypes: The dtypes of matrices, by name.
      modes: How operations are called: "eager", "jit", "vmap", "grad".
      complete: Whether to take the full product.

    Returns:
      An iterator over the cases.
    """
    center = dims[len(dims) // 2], batch_shapes[0], "float32" if "float32" in dtypes else dtypes[0]
    for dim, batch_shape, dtype, mode in itertools.product(dims, batch_shapes, dtypes, modes):
        point = dim, batch_shape, dtype
        off_center = sum(here != there for here, there in zip(point, center, strict=True))
        if complete or off_center <= {"eager": 0, "vmap": 1, "grad": 1, "jit": 2}[mode]:
            yield StructureCase(structure, *point, mode)


def check_structure(structure: Structure, **grid: PyTree) -> None:
    """Check a structure on the whole grid.

    Args:
      structure: The structure to check.
      **grid: The options ``dims``, ``batch_shapes``, ``dtypes``, ``modes``, ``complete``, as for
        ``structure_cases``.

    Raises:
      AssertionError: An operation differs from dense arithmetic.

    >>> from singd_optax.structures import Diagonal
    >>> check_structure(Diagonal(), dims=(5,), dtypes=("float32",), modes=("jit",))
    """
    for case in structure_cases(structure, **grid):
        case.check()


def _check(case: StructureCase) -> None:
    point = case.structure, case.dim, case.batch_shape, case.dtype
    args = arguments(*point)
    if case.mode == "grad":
        names = ("d/dA", "d/dB", "d/dX")
        got = dict(zip(names, gradients(first(args)), strict=True))
        _compare(case, got, dict(zip(names, expected_gradients(*point), strict=True)))
        return
    want = expected(*point)
    with_bound = case.mode == "vmap" or (case.mode == "jit" and case.dtype == "float32")
    function = _operations_and_bound if with_bound else operations
    if case.mode == "vmap":
        got = quick_jit(jax.vmap(function))(*args)
    else:
        args, want = first(args), first(want)
        _check_attributes(case, args[0])
        if case.mode == "jit":
            got = quick_jit(function)(*args)
        else:
            got = function(*jax.tree.map(jnp.asarray, args))
    bound = got.pop(_BOUND) if with_bound else None
    for name in want.keys() - PROMOTED:
        wide = jnp.promote_types(case.dtype, jnp.float32)
        dtype = jnp.dtype(case.dtype) if name in STORED else wide
        assert got[name].dtype == dtype, f"{case}: {name} is {got[name].dtype}, not {dtype}"
    axes = 1 + want["to_dense"].ndim - 2  # one more, over the results
    got = entries(np, jax.tree.map(np.asarray, got), lambda matrix: to_dense(matrix, axes))
    _compare(case, got, want)
    if bound is not None:
        _check_bound(case, np.asarray(bound, np.float64), want["to_dense"])


def _operations_and_bound(A: StructuredMatrix, *others: PyTree) -> dict[str, PyTree]:
    return operations(A, *others) | {_BOUND: A.spectral_norm_bound()}


def _check_attributes(case: StructureCase, A: StructuredMatrix) -> None:
    assert A.structure == case.structure
    assert hash(A.structure) == hash(case.structure)
    assert A.dim == case.dim
    assert A.dtype == jnp.dtype(case.dtype)
    assert A.batch_shape == case.batch_shape
    leaves = jax.tree.leaves(A)
    assert A.nbytes == sum(leaf.nbytes for leaf in leaves)
    assert all(leaf.shape[: len(A.batch_shape)] == A.batch_shape for leaf in leaves)
    assert all(leaf.size for leaf in leaves), f"{case}: an empty array, which orbax cannot save"
    rebuilt = jax.tree.unflatten(jax.tree.structure(A), leaves)
    assert type(rebuilt) is type(A)


def _check_bound(case: StructureCase, bound: np.ndarray, dense: np.ndarray) -> None:
    norm = np.linalg.norm(dense, 2, axis=(-2, -1))
    slack = 1 + 2.0**-7
    assert (bound >= norm * 0.97).all(), f"{case}: bound {bound} is below the norm {norm}"
    assert (bound <= norm * 1.1 * slack).all(), f"{case}: bound {bound} is loose: {norm}"


def _compare(case: StructureCase, got: dict[str, PyTree], want: dict[str, PyTree]) -> None:
    computed = {"float64": 1e-11, "float32": 2e-5, "bfloat16": 2e-5}[case.dtype]
    rounded = {"float64": 1e-11, "float32": 1e-6, "bfloat16": 2.0**-7}[case.dtype]
    wrong = []
    for name in want:
        tolerance = rounded if name in STORED | PROMOTED else computed
        if case.mode == "grad" and case.dtype == "bfloat16":
            tolerance = 2.0**-5  # cotangents are rounded at each addition
        pairs = zip(jax.tree.leaves(got[name]), jax.tree.leaves(want[name]), strict=True)
        for leaf, reference in pairs:
            reference = np.asarray(reference, np.float64)
            try:
                np.testing.assert_allclose(
                    np.asarray(leaf, np.float64),
                    reference,
                    rtol=0,
                    atol=tolerance * np.abs(reference).max(initial=1.0),
                )
            except AssertionError as error:
                wrong.append(f"{name}: {error}")
    assert not wrong, "\n".join([f"{case}:", *wrong])
