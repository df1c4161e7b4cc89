"""Orthogonal bases near the eigenvectors of second moments, and coefficients in them."""

import functools
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from singd_optax.layers import MatrixView
from singd_optax.rules._dealing import Deal
from singd_optax.rules._panels import orthonormal_by_panels
from singd_optax.structures import (
    BlockDiagonal,
    Dense,
    DenseMatrix,
    Diagonal,
    DiagonalMatrix,
    Identity,
    IdentityMatrix,
    Precision,
    Structure,
    StructuredMatrix,
    contract,
)
from singd_optax.structures._in_turn import in_turn

#: How a basis follows its moment: by a step of orthogonal iteration, or as its eigenvectors.
BasisMethod = Literal["qr", "eigh"]
BASIS_METHODS: tuple[BasisMethod, ...] = ("qr", "eigh")

#: Rows up to which decompositions are the default ones of TPUs.
_LARGEST_BY_DEFAULT = 256

#: Matrices of rows and of columns.
Pair = tuple[StructuredMatrix, StructuredMatrix]


class _Leaf(NamedTuple):
    """Blocks (..., k, k) of one side of a view, their bases, and whether they have begun, (...)."""

    path: str
    side: int
    blocks: jax.Array
    vectors: jax.Array
    started: jax.Array


class Bases(NamedTuple):
    """The new bases of one view.

    Attributes:
      pair: The bases of rows and of columns.
      is_basis: Whether there was a moment to follow, of shape ``stack_shape``.
      went_well: Whether no decomposition failed, of shape ``stack_shape``.
    """

    pair: Pair
    is_basis: jax.Array
    went_well: jax.Array


def check_bases(structures: tuple[Structure, Structure], name: str, instead: str) -> None:
    """Raise unless matrices of these structures have eigenvectors in the same structure.

    Args:
      structures: The structures of rows and of columns.
      name: The name of the rule, for the message.
      instead: A sentence that says what to use for other structures.

    Raises:
      ValueError: A structure has no eigenvectors in it.
    """
    for structure in structures:
        if not isinstance(structure, Dense | BlockDiagonal | Diagonal | Identity):
            raise ValueError(
                f"{name} turns gradients into bases of eigenvectors. The structure of a side must "
                "be Dense(), BlockDiagonal(block_size), Diagonal() or Identity(), which have "
                f"eigenvectors of their own structure, got {structure!r}. {instead}"
            )


def is_turned(view: MatrixView) -> bool:
    """Whether a view has a basis other than I on at least one side."""
    return any(not isinstance(one, Diagonal | Identity) for one in view.structures)


def into_bases(pair: Pair, matrix: jax.Array, precision: Precision) -> jax.Array:
    """Qᵀ X R, the coefficients of X in the bases Q of rows and R of columns."""
    left = pair[0].transpose_matmul(matrix, precision=precision)
    return onto_columns(left, pair[1], precision)


def out_of_bases(pair: Pair, matrix: jax.Array, precision: Precision) -> jax.Array:
    """Q X Rᵀ, the matrix that has the coefficients X in the bases Q and R."""
    left = jnp.swapaxes(pair[0].matmul(matrix, precision=precision), -1, -2)
    return jnp.swapaxes(pair[1].matmul(left, precision=precision), -1, -2)


def onto_columns(matrix: jax.Array, basis: StructuredMatrix, precision: Precision) -> jax.Array:
    """X R for a basis R of the columns."""
    turned = basis.transpose_matmul(jnp.swapaxes(matrix, -1, -2), precision=precision)
    return jnp.swapaxes(turned, -1, -2)


def values_in(moment: StructuredMatrix, basis: StructuredMatrix, precision: Precision) -> jax.Array:
    """The diagonal of Qᵀ M Q, (..., dim): the eigenvalues of M if Q are its eigenvectors.

    Args:
      moment: M, in any structure but ``Identity()``.
      basis: Q, in the structure of M.
      precision: The precision of the products.
    """
    if isinstance(moment, DiagonalMatrix):
        return moment.diagonal
    found = []
    pairs = zip(jax.tree.leaves(moment), jax.tree.leaves(basis), strict=True)
    for blocks, vectors in pairs:
        values: jax.Array = _values(blocks, vectors, precision)
        is_whole = isinstance(moment, DenseMatrix)
        found.append(values if is_whole else values.reshape(*values.shape[:-2], -1))
    return jnp.concatenate(found, -1)


def _values(moment: jax.Array, basis: jax.Array, precision: Precision) -> jax.Array:
    image = contract("...ij,...jk->...ik", moment, basis, precision=precision)
    return (image * basis).sum(-2)


def grouped_bases(
    views: Mapping[str, MatrixView],
    moments: Mapping[str, Pair],
    old: Mapping[str, Pair],
    started: Mapping[str, jax.Array],
    *,
    method: BasisMethod,
    precision: Precision,
) -> dict[str, Bases]:
    """The new bases of all views; blocks of one size are decomposed in one batch.

    The first basis of a moment M is its eigenvectors. By "eigh" all others are, too. By "qr" they
    are one step of orthogonal iteration each, Q <- qr(M Q), with the columns of Q in the order of
    the diagonal of Qᵀ M Q. Either way a new vector takes the place of the old vector that had its
    rank in this order. So what a rule knows of a direction still belongs to it afterwards.

    On a mesh the batch is dealt to the devices, so that no decomposition is made on two of them.

    Args:
      views: The views, by path; their placement says on which mesh they are.
      moments: The moments of rows and columns, by path; ``Diagonal`` and ``Identity`` ones have no
        basis.
      old: The last bases, by path.
      started: Numbers that are above 0 where a view has a basis, of shape ``stack_shape``, by path.
      method: "qr" or "eigh".
      precision: The precision of the products.

    Returns:
      The bases by path. A block that is zero, or whose decomposition fails, keeps its old basis.
    """
    leaves: list[_Leaf] = []
    for path, pair in moments.items():
        for side, moment in enumerate(pair):
            if isinstance(moment, DiagonalMatrix | IdentityMatrix):
                continue
            bases = jax.tree.leaves(old[path][side])
            for blocks, vectors in zip(jax.tree.leaves(moment), bases, strict=True):
                axes = blocks.ndim - 2 - started[path].ndim
                flag = (started[path] > 0).reshape(*started[path].shape, *(1,) * axes)
                flag = jnp.broadcast_to(flag, blocks.shape[:-2])
                leaves.append(_Leaf(path, side, blocks, vectors, flag))
    groups: dict[tuple[int, str], list[int]] = {}
    for index, leaf in enumerate(leaves):
        groups.setdefault((leaf.blocks.shape[-1], leaf.blocks.dtype.name), []).append(index)
    deal = Deal.of(views)
    make = functools.partial(_new_bases, method=method, precision=precision)
    found: dict[int, tuple[jax.Array, jax.Array, jax.Array]] = {}
    for (size, _), members in groups.items():
        own = [leaves[index] for index in members]
        M = jnp.concatenate([leaf.blocks.reshape(-1, size, size) for leaf in own])
        Q = jnp.concatenate([leaf.vectors.reshape(-1, size, size) for leaf in own])
        flags = jnp.concatenate([leaf.started.reshape(-1) for leaf in own])
        parts = deal.apply(make, M, Q, flags)
        start = 0
        for index, leaf in zip(members, own, strict=True):
            shape = leaf.blocks.shape
            part = slice(start, start + math.prod(shape[:-2]))
            start = part.stop
            new, is_basis, went_well = (x[part] for x in parts)
            flat = shape[:-2]
            found[index] = new.reshape(shape), is_basis.reshape(flat), went_well.reshape(flat)
    result = {}
    for path, pair in old.items():
        mine = [index for index, leaf in enumerate(leaves) if leaf.path == path]
        stack = started[path]
        is_basis, went_well = jnp.zeros(stack.shape, bool), jnp.ones(stack.shape, bool)
        for index in mine:
            axes = tuple(range(stack.ndim, found[index][1].ndim))
            is_basis |= found[index][1].any(axes)
            went_well &= found[index][2].all(axes)
        sides = []
        for side, basis in enumerate(pair):
            new_leaves = [found[index][0] for index in mine if leaves[index].side == side]
            treedef = jax.tree.structure(basis)
            sides.append(jax.tree.unflatten(treedef, new_leaves) if new_leaves else basis)
        result[path] = Bases((sides[0], sides[1]), is_basis, went_well)
    return result


def _new_bases(
    moment: jax.Array,
    basis: jax.Array,
    started: jax.Array,
    method: BasisMethod,
    precision: Precision,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Bases for (devices, share, k, k), whether a moment was there, and whether none failed."""
    scale = jnp.abs(moment).max((-2, -1))
    is_zero = scale == 0
    usable = jnp.isfinite(scale) & ~is_zero
    eye = jnp.eye(moment.shape[-1], dtype=moment.dtype)
    divided = moment / jnp.where(usable, scale, 1)[..., None, None]
    M = jnp.where(usable[..., None, None], divided, eye)
    values = _values(M, basis, precision)
    order = jnp.argsort(-values, axis=-1)

    # What TPUs have by default runs faster, and compiles for minutes or hours.
    is_large = moment.shape[-1] > _LARGEST_BY_DEFAULT
    first = _eigenvectors_by_rotations if is_large and method == "qr" else None
    others = orthonormal_by_panels if is_large else None

    def by_eigh(M: jax.Array, Q: jax.Array) -> jax.Array:
        return in_turn(_eigenvectors, (M + jnp.swapaxes(M, -1, -2)) / 2, on_tpu=first)

    def by_qr(M: jax.Array, Q: jax.Array) -> jax.Array:
        sorted_basis = jnp.take_along_axis(Q, order[..., None, :], -1)
        image = contract("...ij,...jk->...ik", M, sorted_basis, precision=precision)
        return in_turn(_orthonormal, image, on_tpu=others)

    if method == "eigh":
        new = by_eigh(M, basis)
    else:
        new = lax.cond(jnp.all(started | ~usable), by_qr, by_eigh, M, basis)
    new = jnp.take_along_axis(new, jnp.argsort(order, axis=-1)[..., None, :], -1)
    right = usable & jnp.isfinite(new).all((-2, -1))
    return jnp.where(right[..., None, None], new, basis), right, right | is_zero


def _eigenvectors(symmetric: jax.Array) -> jax.Array:
    """The eigenvectors, that of the largest eigenvalue first."""
    return jnp.linalg.eigh(symmetric, symmetrize_input=False)[1][..., ::-1]


def _eigenvectors_by_rotations(symmetric: jax.Array) -> jax.Array:
    """By Jacobi's method, which TPUs have for all sizes, and JAX takes there up to 256 rows."""
    vectors: jax.Array = lax.linalg.eigh(
        symmetric,
        symmetrize_input=False,
        implementation=lax.linalg.EighImplementation.JACOBI,
    )[0]
    return vectors[..., ::-1]


def _orthonormal(matrix: jax.Array) -> jax.Array:
    return jnp.linalg.qr(matrix)[0]
