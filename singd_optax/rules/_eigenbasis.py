"""Orthogonal bases near the eigenvectors of second moments, and what is done in them."""

import functools
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from singd_optax.layers import MatrixView
from singd_optax.rules._dealing import Deal, in_turn
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

#: How a basis follows its moment.
BasisMethod = Literal["qr", "eigh"]
BASIS_METHODS: tuple[BasisMethod, ...] = ("qr", "eigh")

#: Rows up to which decompositions are the default ones of TPUs.
_LARGEST_BY_DEFAULT = 256

#: Matrices of rows and of columns.
Pair = tuple[StructuredMatrix, StructuredMatrix]


class _Leaf(NamedTuple):
    """Blocks (..., k, k) of one side of a view, their bases, and whether there are any, (...)."""

    path: str
    side: int
    blocks: jax.Array
    vectors: jax.Array
    started: jax.Array


class Bases(NamedTuple):
    """New bases of one view.

    Attributes:
      pair: Of rows and columns.
      is_basis: Whether there was a moment to follow, of shape ``stack_shape``.
      went_well: Whether nothing failed, likewise.
    """

    pair: Pair
    is_basis: jax.Array
    went_well: jax.Array


def check_bases(structures: tuple[Structure, Structure], name: str, instead: str) -> None:
    """Raise unless matrices of these structures have eigenvectors in them.

    Args:
      structures: Of rows and columns.
      name: Of the rule.
      instead: What to use for other structures.

    Raises:
      ValueError: They have not.
    """
    for structure in structures:
        if not isinstance(structure, Dense | BlockDiagonal | Diagonal | Identity):
            raise ValueError(
                f"{name} turns gradients into bases of eigenvectors, which Dense(), "
                "BlockDiagonal(block_size), Diagonal() and Identity() matrices have in their own "
                f"structure, got {structure!r}. {instead}"
            )


def is_turned(view: MatrixView) -> bool:
    """Whether a view has a basis other than I on any side."""
    return any(not isinstance(one, Diagonal | Identity) for one in view.structures)


def into_bases(pair: Pair, matrix: jax.Array, precision: Precision) -> jax.Array:
    """Qᵀ X R, the coefficients in the bases Q of rows and R of columns."""
    left = pair[0].transpose_matmul(matrix, precision=precision)
    return onto_columns(left, pair[1], precision)


def out_of_bases(pair: Pair, matrix: jax.Array, precision: Precision) -> jax.Array:
    """Q X Rᵀ, the matrix of these coefficients."""
    left = jnp.swapaxes(pair[0].matmul(matrix, precision=precision), -1, -2)
    return jnp.swapaxes(pair[1].matmul(left, precision=precision), -1, -2)


def onto_columns(matrix: jax.Array, basis: StructuredMatrix, precision: Precision) -> jax.Array:
    """X R for a basis R of the columns."""
    turned = basis.transpose_matmul(jnp.swapaxes(matrix, -1, -2), precision=precision)
    return jnp.swapaxes(turned, -1, -2)


def values_in(moment: StructuredMatrix, basis: StructuredMatrix, precision: Precision) -> jax.Array:
    """The diagonal of Qᵀ M Q, (..., dim): eigenvalues where Q are eigenvectors.

    Args:
      moment: M, with numbers: not the identity.
      basis: Q, of its structure.
      precision: Of the products.
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
    """New bases of all views, those of equal blocks in one batch.

    The first basis of a moment is that of its eigenvectors, and so is each by "eigh". By "qr" all
    others are one step of orthogonal iteration, Q <- qr(M Q), whose columns are taken in the order
    of Qᵀ M Q's diagonal. Either way each new vector stands in the place of the old one that has its
    rank by that diagonal, so that what is known of a direction goes on to be known of it.

    On a mesh the batch is dealt to the devices, so that no decomposition is made on two of them.

    Args:
      views: By path; they say where.
      moments: Likewise, of rows and columns; those of ``Diagonal`` and ``Identity`` have no basis.
      old: The last bases, likewise.
      started: Whether a view has a basis: numbers above 0, of shape ``stack_shape``.
      method: "qr" or "eigh".
      precision: Of the products.

    Returns:
      By path the bases; blocks that are zero, or whose basis fails, keep the old one.
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
    """Of (devices, share, k, k): bases, whether there was a moment, and whether nothing failed."""
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
    """Of the largest eigenvalue first."""
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
