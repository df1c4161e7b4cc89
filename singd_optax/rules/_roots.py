"""Inverse p-th roots of symmetric positive semi-definite matrices."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_choice, check_size
from singd_optax.layers import MatrixView
from singd_optax.rules._dealing import Deal
from singd_optax.structures import (
    BlockDiagonal,
    Dense,
    Identity,
    Precision,
    Structure,
    contract,
)
from singd_optax.structures._in_turn import decomposed, in_turn

Tree = TypeVar("Tree", bound=PyTree)

RootMethod = Literal["eigh", "newton"]

ROOT_METHODS: tuple[RootMethod, ...] = ("eigh", "newton")

_POWER_ITERATIONS = 64
_POWER_COLUMNS = 4
_NEWTON_ITERATIONS = 100
_LARGEST_RESIDUAL = 0.1


def inverse_root(
    matrix: jax.Array,
    root: int,
    *,
    ridge: ArrayLike = 1e-6,
    method: RootMethod = "eigh",
    precision: Precision = "highest",
) -> tuple[jax.Array, jax.Array]:
    """The inverse p-th root (M + ridge λ_max(M) I)^(-1/p) of symmetric matrices M.

    "eigh" makes it of eigenvalues and eigenvectors; eigenvalues below zero, which are rounding, are
    taken for zero. "newton" makes it of matrix products alone, by a coupled iteration for
    A = M / λ_max + ridge I, from N = z A and X = z^(1/p) I with z = (p + 1) / (2 λ_max(A))::

        F = ((p + 1) I - N) / p,    X <- X F,    N <- F^p N

    N approaches I quadratically, and X approaches A^(-1/p).

    Args:
      matrix: M, (..., dim, dim), positive semi-definite, float32 or float64.
      root: p, the order of the root, an int >= 1.
      ridge: The multiple of the largest eigenvalue λ_max that is added to all, a number >= 0.
      method: "eigh" or "newton".
      precision: The precision of the products.

    Returns:
      The root, and whether it is good, for each matrix. A good root is finite, and by "newton" its
      residual max|N - I| is below 0.1; the entries of others are arbitrary. A matrix of zeros has
      no good root.

    Raises:
      ValueError: ``method`` is unknown, or ``root`` is not positive.
      TypeError: ``root`` is not an int.

    References:
      Guo and Higham, A Schur-Newton method for the matrix pth root and its inverse, 2006.

    >>> root, good = inverse_root(jnp.diag(jnp.array([16.0, 81.0])), 4, ridge=0.0)
    >>> (1 / jnp.diagonal(root)).round(4), bool(good)
    (Array([2., 3.], dtype=float32), True)
    """
    check_choice("method", method, ROOT_METHODS)
    check_size("root", root)
    batch = matrix.reshape(1, -1, *matrix.shape[-2:])
    roots, good = _dealt_root(batch, root, jnp.asarray(ridge, matrix.dtype), method, precision)
    return roots.reshape(matrix.shape), good.reshape(matrix.shape[:-2])


def _dealt_root(
    matrix: jax.Array, root: int, ridge: jax.Array, method: RootMethod, precision: Precision
) -> tuple[jax.Array, jax.Array]:
    """``inverse_root`` of matrices (devices, share, k, k), which are dealt to devices."""
    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    matrix = (matrix + jnp.swapaxes(matrix, -1, -2)) / 2
    # The scale is divided out, as its powers over- or underflow; all below is relative to it.
    scale = jnp.abs(matrix).max(axis=(-2, -1))
    usable = jnp.isfinite(scale) & (scale > 0)
    scale = jnp.where(usable, scale, 1)
    scaled = jnp.where(usable[..., None, None], matrix / scale[..., None, None], eye)
    solve = _by_eigenvalues if method == "eigh" else _by_newton
    result, good = solve(scaled, root, ridge, precision)
    result = result * (scale ** (-1 / root))[..., None, None]
    return result, good & usable & jnp.isfinite(result).all(axis=(-2, -1))


def _by_eigenvalues(
    matrix: jax.Array, root: int, ridge: jax.Array, precision: Precision
) -> tuple[jax.Array, jax.Array]:
    values, vectors = dealt_eigh(matrix)
    values = jnp.maximum(values, 0)
    values = values + ridge * values[..., -1:]
    powers = values ** (-1 / root)
    result = contract("...ik,...k,...jk->...ij", vectors, powers, vectors, precision=precision)
    return result, jnp.isfinite(powers).all(-1)


def eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues, ascending, and eigenvectors; on a CPU one by one, see ``in_turn``."""
    return decomposed(_eigh, matrix)


def dealt_eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Decompose matrices (devices, share, k, k) as ``eigh`` does."""
    return in_turn(_eigh, matrix)


def _eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return values, vectors


def _by_newton(
    matrix: jax.Array, root: int, ridge: jax.Array, precision: Precision
) -> tuple[jax.Array, jax.Array]:
    def multiply(left: jax.Array, right: jax.Array) -> jax.Array:
        return contract("...ij,...jk->...ik", left, right, precision=precision)

    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    largest = _largest_eigenvalue(matrix, precision)
    damped = matrix + (ridge * largest)[..., None, None] * eye
    z = (root + 1) / (2 * (1 + ridge) * largest)
    N = damped * z[..., None, None]
    X = (z ** (1 / root))[..., None, None] * eye

    def residual(N: jax.Array) -> jax.Array:
        return jnp.abs(N - eye).max(axis=(-2, -1))

    # Each step squares the residual, so that one more step gets as far as rounding allows.
    enough = jnp.finfo(matrix.dtype).eps ** 0.5

    State = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]

    def go_on(state: State) -> jax.Array:
        step, *_, active = state
        return (step < _NEWTON_ITERATIONS) & active.any()

    def iterate(state: State) -> State:
        step, N, X, error, active = state
        factor = ((root + 1) * eye - N) / root
        fresh_N, fresh_X = multiply(_power(factor, root, multiply), N), multiply(X, factor)
        fresh_error = residual(fresh_N)
        # Rounding can make the iteration diverge: then the last iterate is the best one.
        better = active & (fresh_error < 1.2 * error)
        taken = better[..., None, None]
        N, X = jnp.where(taken, fresh_N, N), jnp.where(taken, fresh_X, X)
        still_active = better & (error > enough)
        return step + 1, N, X, jnp.where(better, fresh_error, error), still_active

    error = residual(N)
    start = (jnp.zeros([], jnp.int32), N, X, error, jnp.isfinite(error))
    _, _, X, error, _ = lax.while_loop(go_on, iterate, start)
    return (X + jnp.swapaxes(X, -1, -2)) / 2, error < _LARGEST_RESIDUAL


def _power(
    matrix: jax.Array, exponent: int, multiply: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """A power of a matrix, by repeated squaring."""
    if exponent == 1:
        return matrix
    half = _power(matrix, exponent // 2, multiply)
    square = multiply(half, half)
    return multiply(square, matrix) if exponent % 2 else square


def _largest_eigenvalue(matrix: jax.Array, precision: Precision) -> jax.Array:
    """The largest eigenvalue, approached from below by power iteration."""
    dim = matrix.shape[-1]
    start = jax.random.normal(jax.random.key(0), (dim, _POWER_COLUMNS), matrix.dtype)

    def iterate(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, _norms = state
        image = contract("...ij,...jk->...ik", matrix, x, precision=precision)
        norms = jnp.sqrt((image**2).sum(-2))
        return image / jnp.where(norms > 0, norms, 1)[..., None, :], norms

    x = jnp.broadcast_to(start / jnp.sqrt((start**2).sum(-2)), (*matrix.shape[:-1], _POWER_COLUMNS))
    norms = jnp.zeros((*matrix.shape[:-2], _POWER_COLUMNS), matrix.dtype)
    _, norms = lax.fori_loop(0, _POWER_ITERATIONS, iterate, (x, norms))
    return norms.max(-1)


def grouped_inverse_roots(
    views: Mapping[str, MatrixView],
    moments: Tree,
    old: Tree,
    root: int,
    *,
    ridge: ArrayLike,
    method: RootMethod,
    precision: Precision,
) -> tuple[Tree, Tree]:
    """The inverse roots of all blocks of a tree; those of one size are taken in one batch.

    On a mesh the batch is dealt to the devices, so that no root is taken on two of them.

    Args:
      views: The views that have these moments; their placement says on which mesh they are.
      moments: A tree of arrays (..., k, k), batches of symmetric positive semi-definite blocks.
      old: A tree of roots like ``moments``; a block keeps its old root where it is zero, and where
        the new root fails.
      root: p, the order of the roots, an int >= 1.
      ridge: The multiple of each block's largest eigenvalue that is added, a number >= 0.
      method: "eigh" or "newton".
      precision: The precision of the products.

    Returns:
      The roots, and a tree that says of each block whether it has a root, or was zero.
    """
    blocks, treedef = jax.tree.flatten(moments)
    roots: list[jax.Array] = jax.tree.leaves(old)
    flags = list(roots)
    deal = Deal.of(views)
    groups: dict[tuple[int, str], list[int]] = {}
    for index, block in enumerate(blocks):
        groups.setdefault((block.shape[-1], block.dtype.name), []).append(index)
    for (size, _), members in groups.items():
        batch = jnp.concatenate([blocks[i].reshape(-1, size, size) for i in members])
        of_batch = functools.partial(
            _dealt_root,
            root=root,
            ridge=jnp.asarray(ridge, batch.dtype),
            method=method,
            precision=precision,
        )
        results, right = deal.apply(of_batch, batch)
        empty = (batch == 0).all((-2, -1))
        start = 0
        for i in members:
            shape = blocks[i].shape[:-2]
            part = slice(start, start + math.prod(shape))
            start = part.stop
            taken = (right & ~empty)[part].reshape(*shape, 1, 1)
            roots[i] = jnp.where(taken, results[part].reshape(blocks[i].shape), roots[i])
            flags[i] = (right | empty)[part].reshape(shape)
    return jax.tree.unflatten(treedef, roots), jax.tree.unflatten(treedef, flags)


def check_roots(structures: tuple[Structure, Structure]) -> None:
    """Raise unless matrices of these structures are dense, or made of dense blocks, or I.

    Args:
      structures: The structures of rows and of columns.

    Raises:
      ValueError: A structure is another one.
    """
    for structure in structures:
        if not isinstance(structure, Dense | BlockDiagonal | Identity):
            raise ValueError(
                "The structure of a side must be Dense() or BlockDiagonal(block_size), of which "
                f"inverse roots are taken, or Identity(), for no root, got {structure!r}. For "
                "other structures use inverse_free_shampoo."
            )
