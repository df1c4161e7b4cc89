"""Shampoo: inverse roots of the second moments of gradients, on both sides."""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._validate import check_choice, check_number, check_precision, check_size
from singd_optax.layers import Factors, MatrixSpec
from singd_optax.rules._base import Hyperparameter, hyperparameter_at
from singd_optax.rules._gradient_rule import GradientRule
from singd_optax.rules._roots import ROOT_METHODS, RootMethod, inverse_root
from singd_optax.structures import (
    BlockDiagonal,
    Dense,
    Precision,
    Structure,
    StructuredMatrix,
)


class GradientMoments(NamedTuple):
    """Second moments of the gradients of one parameter.

    Attributes:
      L: Of the rows, Σ G Gᵀ, weighted.
      R: Of the columns, Σ Gᵀ G, weighted.
      moment_weight: The sum of the weights, by which L and R are divided; of shape
        ``stack_shape``.
    """

    L: StructuredMatrix
    R: StructuredMatrix
    moment_weight: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shampoo(GradientRule):
    """Shampoo (arXiv 1802.09568), with exponential moving averages of the moments.

    With p = ``root`` and gradients G (rows x columns)::

        L <- b2 L + (1 - b2) G Gᵀ,    R <- b2 R + (1 - b2) Gᵀ G        on every step
        A = (L/w + ε λ_max I)^(-1/p),  B = (R/w + ε λ_max I)^(-1/p)    on refresh steps
        G -> A G B

    w = 1 - b2^t is the weight of what L and R have seen; λ_max is of each of the two matrices
    (each block). Sides longer than a block have block-diagonal L or R: a block of rows is
    preconditioned by its own moments, over all columns. A block whose root fails (not finite,
    or not converged), or that has seen no gradient at all, keeps the root that it had.

    Attributes:
      b2: In [0, 1), or a schedule; None for the plain sums of the first paper.
      eps: ε >= 0, relative to the largest eigenvalue, or a schedule.
      root: p >= 1; 4 is Shampoo, 2 is the square of it that approximates full-matrix Adagrad.
      root_method: "eigh" or "newton" (matrix products only).
      precision: Of all products.
    """

    b2: Hyperparameter | None = 0.95
    eps: Hyperparameter = 1e-6
    root: int = 4
    root_method: RootMethod = "eigh"
    precision: Precision = "highest"

    def __post_init__(self) -> None:
        if self.b2 is not None:
            check_number("b2", self.b2, maximum=1, strict_maximum=True)
        check_number("eps", self.eps)
        check_size("root", self.root)
        check_choice("root_method", self.root_method, ROOT_METHODS)
        check_precision("precision", self.precision)

    def init(self, spec: MatrixSpec) -> tuple[Factors, GradientMoments]:
        """A = B = I, and moments of zero."""
        check_shampoo_structures(spec.structures)
        sides = list(zip(spec.structures, spec.dims, strict=True))
        dtype, stack = spec.statistics_dtype, spec.stack_shape
        L, R = (structure.zeros(dim, dtype, stack) for structure, dim in sides)
        A, B = (structure.eye(dim, dtype, stack) for structure, dim in sides)
        return Factors(A, B), GradientMoments(L, R, jnp.zeros(stack, dtype))

    def observe(
        self, spec: MatrixSpec, memory: GradientMoments, gradient: jax.Array, count: jax.Array
    ) -> GradientMoments:
        """Add this gradient to the moments."""
        dtype = spec.statistics_dtype
        decay = 1.0 if self.b2 is None else hyperparameter_at(self.b2, count)
        decay = jnp.asarray(decay, dtype)
        fresh = jnp.ones([], dtype) if self.b2 is None else 1 - decay
        rows, columns = spec.structures
        gram = columns.project_gram(gradient, precision=self.precision)
        turned = jnp.swapaxes(gradient, -1, -2)
        turned_gram = rows.project_gram(turned, precision=self.precision)
        weight = memory.moment_weight
        return GradientMoments(
            memory.L * decay + turned_gram * fresh,
            memory.R * decay + gram * fresh,
            jnp.ones_like(weight) if self.b2 is None else weight * decay + fresh,
        )

    def refresh(
        self,
        spec: MatrixSpec,
        factors: Factors,
        memory: GradientMoments,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[Factors, GradientMoments, jax.Array]:
        """New roots; where one fails, the old one."""
        path = spec.path
        return self.refresh_all(
            {path: spec}, {path: factors}, {path: memory}, {path: gradient}, count, key
        )[path]

    def refresh_all(
        self,
        specs: Mapping[str, MatrixSpec],
        factors: Mapping[str, Factors],
        memory: Mapping[str, GradientMoments],
        gradients: Mapping[str, jax.Array],
        count: jax.Array,
        key: jax.Array,
    ) -> dict[str, tuple[Factors, GradientMoments, jax.Array]]:
        """New roots of all parameters, those of equal blocks in one batch."""
        del gradients, key
        blocks, treedef = jax.tree.flatten({path: _unbiased(memory[path]) for path in specs})
        old = jax.tree.leaves({path: factors[path] for path in specs})
        fresh, good = self._roots(blocks, old, hyperparameter_at(self.eps, count))
        roots, flags = (jax.tree.unflatten(treedef, leaves) for leaves in (fresh, good))
        result = {}
        for path, spec in specs.items():
            axes = len(spec.stack_shape)
            each = [
                flag.all(tuple(range(axes, flag.ndim))) for flag in jax.tree.leaves(flags[path])
            ]
            result[path] = roots[path], memory[path], jnp.stack(each).all(0)
        return result

    def _roots(
        self, blocks: list[jax.Array], old: list[jax.Array], ridge: ArrayLike
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Roots (..., k, k), and whether they are good, of lists of batches of blocks."""
        groups: dict[tuple[int, str], list[int]] = {}
        for index, block in enumerate(blocks):
            groups.setdefault((block.shape[-1], block.dtype.name), []).append(index)
        roots, flags = list(old), list(old)
        for (size, _), members in groups.items():
            batch = jnp.concatenate([blocks[i].reshape(-1, size, size) for i in members])
            results, right = inverse_root(
                batch, self.root, ridge=ridge, method=self.root_method, precision=self.precision
            )
            empty = (batch == 0).all((-2, -1))
            start = 0
            for i in members:
                shape = blocks[i].shape[:-2]
                part = slice(start, start + math.prod(shape))
                start = part.stop
                taken = (right & ~empty)[part].reshape(*shape, 1, 1)
                roots[i] = jnp.where(taken, results[part].reshape(blocks[i].shape), old[i])
                flags[i] = (right | empty)[part].reshape(shape)
        return roots, flags

    def precondition(self, factors: Factors, gradient: jax.Array) -> jax.Array:
        """A G B."""
        left = factors.K.matmul(gradient, precision=self.precision)
        return multiply_right(left, factors.C, self.precision)


def _unbiased(memory: GradientMoments) -> Factors:
    """The moments, divided by the weight of what they have seen."""
    scale = 1 / jnp.where(memory.moment_weight > 0, memory.moment_weight, 1)
    return Factors(memory.L * scale, memory.R * scale)


def multiply_right(
    matrix: jax.Array, symmetric: StructuredMatrix, precision: Precision
) -> jax.Array:
    """M B for M (..., n, dim) and symmetric B."""
    turned = symmetric.matmul(jnp.swapaxes(matrix, -1, -2), precision=precision)
    return jnp.swapaxes(turned, -1, -2)


def check_shampoo_structures(structures: tuple[Structure, Structure]) -> None:
    """Raise unless roots in these structures are roots of dense blocks.

    Args:
      structures: Of rows and columns.

    Raises:
      ValueError: One is neither dense nor block-diagonal.
    """
    for structure in structures:
        if not isinstance(structure, Dense | BlockDiagonal):
            raise ValueError(
                "Inverse roots are taken of Dense() and BlockDiagonal(block_size) matrices only, "
                f"got {structure!r}. For other structures use inverse_free_shampoo."
            )
