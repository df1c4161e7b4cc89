"""Random matrices of a structure, and what dense algebra in float64 makes of them.

All that does not depend on the mode of a check, or on its dtype, is computed once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from singd_optax._types import PyTree
from singd_optax.structures import Structure, StructuredMatrix
from singd_optax.testing._compile import chunked, quick_jit
from singd_optax.testing._operations import MANY, entries, operations, references

#: The size of the axis that is mapped over; other modes see its first entry.
MAPPED = 2


@functools.lru_cache(maxsize=8)
def arguments(
    structure: Structure, dim: int, batch_shape: tuple[int, ...], dtype: str
) -> tuple[PyTree, ...]:
    """(A, B, x, scale) for ``operations``, of numpy arrays with a leading axis ``MAPPED``."""
    *wide, scale = _wide_arguments(structure, dim, batch_shape)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.dtype(dtype)), wide)
    return *narrow, scale.astype(np.float32)


@functools.lru_cache(maxsize=8)
def expected(
    structure: Structure, dim: int, batch_shape: tuple[int, ...], dtype: str
) -> dict[str, PyTree]:
    """The results of ``operations`` on these arguments, in numpy."""
    A, B, x, scale = _widened(structure, dim, batch_shape, dtype)
    axes = 1 + len(batch_shape)
    a, b = (to_dense(matrix, axes) for matrix in (A, B))
    return references(np, lambda grams: _project(structure)(grams, axes + 1), a, b, x, scale)


def expected_gradients(
    structure: Structure, dim: int, batch_shape: tuple[int, ...], dtype: str
) -> PyTree:
    """The gradients of ``weighted`` at these arguments, by autodiff through dense algebra."""
    return _reference_gradients(structure)(*first(_widened(structure, dim, batch_shape, dtype)))


def gradients(args: tuple[PyTree, ...]) -> PyTree:
    """The gradients of ``weighted`` through ``operations``."""

    def total(*args: PyTree) -> jax.Array:
        return weighted(entries(jnp, operations(*args), lambda matrix: matrix.to_dense()))

    return quick_jit(jax.grad(total, (0, 1, 2)))(*args)


def weighted(results: dict[str, PyTree]) -> jax.Array:
    """A weighted sum of all entries of all results."""
    smooth = [value for name, value in results.items() if name != "max_abs"]  # which has ties
    numbers = jnp.concatenate([value.astype(jnp.float64).ravel() for value in smooth])
    return jnp.cos(jnp.arange(numbers.size, dtype=jnp.float64)) @ numbers


def to_dense(matrix: StructuredMatrix, axes: int) -> np.ndarray:
    """The entries of a matrix of numpy arrays with so many leading axes."""
    return _to_dense()(matrix, axes)


def first(tree: PyTree) -> PyTree:
    """Without the mapped axis."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


@functools.lru_cache(maxsize=8)
def _wide_arguments(
    structure: Structure, dim: int, batch_shape: tuple[int, ...]
) -> tuple[PyTree, ...]:
    """In float64: A and B are not symmetric, being products in the structure."""
    random = np.random.default_rng(dim)
    batch = (MAPPED, *batch_shape)
    square = random.normal(size=(4, *batch, dim, dim)) / dim**0.5
    symmetric = (square + np.swapaxes(square, -1, -2)) / 2
    axes = len(batch)
    one, two, three, four = _project(structure)(symmetric, axes + 1)
    products = one @ two, three @ four
    matrices = [_from_dense(structure)(product, axes) for product in products]
    for matrix, product in zip(matrices, products, strict=True):
        np.testing.assert_allclose(
            to_dense(matrix, axes),
            product,
            rtol=0,
            atol=1e-12,
            err_msg=f"{structure!r} is not closed under @, or its from_dense is wrong",
        )
    x = random.normal(size=(*batch, dim, MANY))
    return *matrices, x, random.uniform(0.5, 2, size=batch)


def _widened(
    structure: Structure, dim: int, batch_shape: tuple[int, ...], dtype: str
) -> tuple[PyTree, ...]:
    return jax.tree.map(
        lambda leaf: leaf.astype(np.float64), arguments(structure, dim, batch_shape, dtype)
    )


@functools.cache
def _to_dense() -> PyTree:
    return chunked(lambda matrix: matrix.to_dense())


@functools.lru_cache(maxsize=8)
def _from_dense(structure: Structure) -> PyTree:
    return chunked(structure.from_dense)


@functools.lru_cache(maxsize=8)
def _project(structure: Structure) -> PyTree:
    return chunked(lambda symmetric: structure.project(symmetric).to_dense())


@functools.lru_cache(maxsize=8)
def _reference_gradients(structure: Structure) -> PyTree:
    def total(A: PyTree, B: PyTree, x: jax.Array, scale: jax.Array) -> jax.Array:
        def project(stack: jax.Array) -> jax.Array:
            return structure.project(stack).to_dense()

        return weighted(references(jnp, project, A.to_dense(), B.to_dense(), x, scale))

    return quick_jit(jax.grad(total, (0, 1, 2)))
