"""The conformance kit of structures: every operation against dense arithmetic.

The author of a structure calls ``check_structure``, or parametrizes tests over
``structure_cases``. Only ``project`` and ``to_dense`` are taken on trust; test these apart.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from singd_optax.structures import Structure, StructuredMatrix

DIMS = (1, 2, 5, 17, 33, 64)
BATCH_SHAPES: tuple[tuple[int, ...], ...] = ((), (3,))
DTYPES = ("float64", "float32", "bfloat16")
MODES = ("eager", "jit", "vmap", "grad")

_ROWS = (3, 200)  # fewer and more rows than columns: a gram may choose its order of products
_MAPPED = 2

# Compiling is what the kit spends its time on, and it computes little.
_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@dataclasses.dataclass(frozen=True)
class StructureCase:
    """One point of the grid on which a structure is checked."""

    structure: Structure
    dim: int
    batch_shape: tuple[int, ...]
    dtype: str
    mode: str

    def __str__(self) -> str:
        """For test ids."""
        batch = "x".join(map(str, self.batch_shape)) or "single"
        return f"{self.structure!r}-{self.dim}-{batch}-{self.dtype}-{self.mode}"

    def check(self) -> None:
        """Compare all operations with dense arithmetic.

        Raises:
          AssertionError: One differs by more than the dtype's rounding explains.
        """
        with jax.enable_x64(True):
            _check(self)


def structure_cases(
    structure: Structure,
    dims: Sequence[int] = DIMS,
    batch_shapes: Sequence[tuple[int, ...]] = BATCH_SHAPES,
    dtypes: Sequence[str] = DTYPES,
    modes: Sequence[str] = MODES,
) -> Iterator[StructureCase]:
    """The grid of cases for a structure.

    Under jit, all sizes with all dtypes. The other modes, which are slow to compile, cross with
    all sizes in float32, and with all dtypes at one size.
    """
    for dim, batch_shape, dtype, mode in itertools.product(dims, batch_shapes, dtypes, modes):
        if mode == "jit" or dtype == "float32" or dim == dims[len(dims) // 2]:
            yield StructureCase(structure, dim, batch_shape, dtype, mode)


def check_structure(structure: Structure, **grid: Any) -> None:
    """Check a structure on the whole grid.

    Args:
      structure: What to check.
      **grid: ``dims``, ``batch_shapes``, ``dtypes``, ``modes``, as for ``structure_cases``.

    Raises:
      AssertionError: An operation differs from dense arithmetic.

    >>> from singd_optax.structures import Diagonal
    >>> check_structure(Diagonal(), dims=(5,), dtypes=("float32",), modes=("jit",))
    """
    for case in structure_cases(structure, **grid):
        case.check()


def _operations(
    A: StructuredMatrix, B: StructuredMatrix, x: jax.Array, scale: jax.Array
) -> dict[str, Any]:
    """Every operation of the contract, as arrays."""
    structure, batch = A.structure, A.batch_shape
    few, many = (jnp.swapaxes(x, -1, -2)[..., :n, :] for n in _ROWS)
    results = {
        "to_dense": A,
        "multiply": A @ B,
        "matmul": A @ x,
        "transpose_matmul": A.transpose_matmul(x),
        "gram": A.gram(),
        "gram of few rows": A.gram(few),
        "gram of many rows": A.gram(many),
        "project_gram": structure.project_gram(many),
        "add": A + B,
        "subtract": A - B,
        "times a number": A * 3.0,
        "times one number each": scale * A,
        "add_identity": A.add_identity(2.0),
        "add_identity each": A.add_identity(scale),
        "average_trace": A.average_trace(),
        "frobenius_norm": A.frobenius_norm(),
        "max_abs": A.max_abs(),
        "eye": structure.eye(A.dim, A.dtype, batch),
        "zeros": structure.zeros(A.dim, A.dtype, batch),
    }
    is_matrix = lambda node: isinstance(node, StructuredMatrix)
    return jax.tree.map(
        lambda node: node.to_dense() if is_matrix(node) else node, results, is_leaf=is_matrix
    )


def _references(
    A: StructuredMatrix, B: StructuredMatrix, x: jax.Array, scale: jax.Array
) -> dict[str, Any]:
    """The same by dense arithmetic in float64."""
    a, b, x, scale = (v.astype(jnp.float64) for v in (A.to_dense(), B.to_dense(), x, scale))
    eye = jnp.eye(A.dim)
    each = scale[..., None, None]
    project = lambda symmetric: A.structure.project(symmetric).to_dense()
    transposed = jnp.swapaxes(a, -1, -2)
    gram_of = lambda y: y @ jnp.swapaxes(y, -1, -2)
    few, many = (x[..., :n] for n in _ROWS)
    return {
        "to_dense": a,
        "multiply": a @ b,
        "matmul": a @ x,
        "transpose_matmul": transposed @ x,
        "gram": project(gram_of(transposed)),
        "gram of few rows": project(gram_of(transposed @ few)),
        "gram of many rows": project(gram_of(transposed @ many)),
        "project_gram": project(gram_of(many)),
        "add": a + b,
        "subtract": a - b,
        "times a number": 3 * a,
        "times one number each": each * a,
        "add_identity": a + 2 * eye,
        "add_identity each": a + each * eye,
        "average_trace": jnp.trace(a, axis1=-2, axis2=-1) / A.dim,
        "frobenius_norm": jnp.sqrt((a**2).sum((-2, -1))),
        "max_abs": jnp.abs(a).max((-2, -1)),
        "eye": jnp.broadcast_to(eye, a.shape),
        "zeros": jnp.zeros(a.shape),
    }


#: Results that are stored numbers, so that they have the matrix's own dtype and rounding.
_STORED = {
    "to_dense", "add", "subtract", "times a number", "add_identity", "max_abs", "eye", "zeros",
}  # fmt: skip


def _arguments(case: StructureCase, batch_shape: tuple[int, ...]) -> tuple[Any, ...]:
    dtype = jnp.dtype(case.dtype)
    random = np.random.default_rng(case.dim)

    def matrix() -> StructuredMatrix:
        square = random.normal(size=(*batch_shape, case.dim, case.dim))
        symmetric = jnp.asarray((square + np.swapaxes(square, -1, -2)) / 2)
        return _jit(lambda m: case.structure.project(m).astype(dtype))(symmetric)

    x = jnp.asarray(random.normal(size=(*batch_shape, case.dim, max(_ROWS))), dtype)
    scale = jnp.asarray(random.uniform(0.5, 2, size=batch_shape), jnp.float32)
    return matrix(), matrix(), x, scale


def _check(case: StructureCase) -> None:
    mapped = (_MAPPED,) if case.mode == "vmap" else ()
    arguments = _arguments(case, mapped + case.batch_shape)
    if case.mode == "jit":
        _check_attributes(case, arguments[0])
    if case.mode == "grad":
        _compare(case, _gradients(_operations, arguments), _gradients(_references, arguments))
        return
    lifts: dict[str, Callable[..., Any]] = {
        "eager": lambda f: f,
        "jit": _jit,
        "vmap": lambda f: _jit(jax.vmap(f)),
    }
    got = lifts[case.mode](_operations)(*arguments)
    for name, value in got.items():
        stored = name in _STORED or (name == "times one number each" and case.dtype == "float64")
        narrow = jnp.promote_types(case.dtype, jnp.float32)
        expected = jnp.dtype(case.dtype) if stored else narrow
        if name in ("times one number each", "add_identity each"):
            continue  # promoted with the dtype of the numbers
        assert value.dtype == expected, f"{case}: {name} has dtype {value.dtype}, not {expected}"
    _compare(case, got, _jit(_references)(*arguments))


def _check_attributes(case: StructureCase, A: StructuredMatrix) -> None:
    assert A.structure == case.structure
    assert hash(A.structure) == hash(case.structure)
    assert A.dim == case.dim
    assert A.dtype == jnp.dtype(case.dtype)
    assert A.batch_shape == case.batch_shape
    assert A.nbytes == sum(leaf.nbytes for leaf in jax.tree.leaves(A))
    leaves = jax.tree.leaves(A)
    assert all(leaf.shape[: len(A.batch_shape)] == A.batch_shape for leaf in leaves)
    rebuilt = jax.tree.unflatten(jax.tree.structure(A), leaves)
    assert type(rebuilt) is type(A)
    dense, bound = _jit(lambda A: (A.to_dense(), A.spectral_norm_bound()))(A)
    singular = np.linalg.norm(np.asarray(dense, np.float64), 2, axis=(-2, -1))
    bound = np.asarray(bound, np.float64)
    slack = 1 + 2.0**-7
    assert (bound >= singular * 0.97).all(), f"{case}: bound {bound} is below the norm {singular}"
    assert (bound <= singular * 1.1 * slack).all(), f"{case}: bound {bound} is loose: {singular}"


def _gradients(function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> Any:
    A, B, x, scale = arguments

    def weighted(A: StructuredMatrix, B: StructuredMatrix, x: jax.Array) -> jax.Array:
        total = jnp.zeros([], jnp.float64)
        for name, value in function(A, B, x, scale).items():
            if name == "max_abs":
                continue  # ties
            weights = jnp.cos(jnp.arange(value.size, dtype=jnp.float64)).reshape(value.shape)
            total += (weights * value).sum()
        return total

    names = ("d/dA", "d/dB", "d/dX")
    return dict(zip(names, _jit(jax.grad(weighted, (0, 1, 2)))(A, B, x), strict=True))


def _compare(case: StructureCase, got: dict[str, Any], expected: dict[str, Any]) -> None:
    exact = {"float64": 1e-11, "float32": 1e-4, "bfloat16": 1e-4}[case.dtype]
    rounded = {"float64": 1e-11, "float32": 1e-6, "bfloat16": 2.0**-7}[case.dtype]
    for name, want in expected.items():
        tolerance = rounded if name in _STORED or "each" in name else exact
        if case.mode == "grad" and case.dtype == "bfloat16":
            tolerance = 2.0**-5  # cotangents are rounded at each addition
        for leaf, reference in zip(jax.tree.leaves(got[name]), jax.tree.leaves(want), strict=True):
            reference = np.asarray(reference, np.float64)
            scale = np.abs(reference).max(initial=1.0)
            np.testing.assert_allclose(
                np.asarray(leaf, np.float64),
                reference,
                rtol=0,
                atol=tolerance * scale,
                err_msg=f"{case}: {name}",
            )
