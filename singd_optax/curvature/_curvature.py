"""The curvature of a model: blocks by path, and what is computed with all of them."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from singd_optax._types import PyTree
from singd_optax._validate import check_number, check_pattern, concrete_number, near
from singd_optax.curvature._block import Block
from singd_optax.curvature._views import View, arrays_of, check_tree, matrices_of
from singd_optax.layers._tree import Leaves
from singd_optax.placement import laid_out_like, on_auto_axes, partitions_of

#: One number for all blocks, or a mapping from their paths.
Damping: TypeAlias = ArrayLike | Mapping[str, ArrayLike]


class _Template:
    """The containers of the parameters, with shapes for arrays; hashable."""

    def __init__(self, params: PyTree):
        flat, treedef = jax.tree.flatten(params)
        self.treedef: jax.tree_util.PyTreeDef = treedef
        self.leaves: tuple[tuple[tuple[int, ...], DTypeLike], ...] = tuple(
            (jnp.shape(leaf), jnp.result_type(leaf)) for leaf in flat
        )

    def __hash__(self) -> int:
        return hash((self.treedef, self.leaves))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Template) and (
            (self.treedef, self.leaves) == (other.treedef, other.leaves)
        )

    def tree(self) -> PyTree:
        """The shapes, as a tree."""
        return jax.tree.unflatten(
            self.treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in self.leaves]
        )


@flax.struct.dataclass
class Curvature:
    """The Gauss-Newton or Fisher matrix of a data set, block by block. From ``fit``.

    Units are those of the summed negative log-likelihood: H of all data, not of their mean, so that
    H + δ I is the precision of the Laplace posterior under a prior of precision δ. Every method
    takes and returns trees like the parameters; parameters without a block are fixed: their part of
    every result is zero. ``damping`` is d of H + d I in the same units, a number (which may be
    traced) or a mapping from the paths of blocks. A pytree: it may be an argument of ``jax.jit``,
    and be saved by any checkpointer of pytrees.

    Attributes:
      blocks: Path of a layer (or of a parameter outside of layers) -> its ``Block``.
      nll: The summed negative log-likelihood of the data at these parameters, up to a constant,
        or NaN where it is not known (``from_opt_state``).
      terms: Over how many terms that sum runs: examples, or positions; likewise.
      views: How parameters make the blocks' matrices; static.
      template: The shapes of all parameters; static.

    >>> from singd_optax.curvature import from_diagonal
    >>> curvature = from_diagonal({"w": jnp.array([1.0, 3.0])})
    >>> curvature.inverse_matvec({"w": jnp.ones(2)}, damping=1.0)["w"]
    Array([0.5 , 0.25], dtype=float32)
    """

    blocks: dict[str, Block]
    nll: jax.Array
    terms: jax.Array
    views: tuple[View, ...] = flax.struct.field(pytree_node=False)
    template: _Template = flax.struct.field(pytree_node=False)

    def __getitem__(self, path: str) -> Block:
        """The block of a layer, which has the same operations for its matrix."""
        if path not in self.blocks:
            raise KeyError(
                f"No block at {path!r}.{near(path, self.blocks)} There are {list(self.blocks)}."
            )
        return self.blocks[path]

    def matvec(self, tree: PyTree, damping: Damping = 0.0) -> PyTree:
        """(H + d I) v.

        Args:
          tree: v, like the parameters.
          damping: d >= 0.

        Raises:
          ValueError: The tree is not like the parameters, or a damping is below zero.
        """
        return self.power(tree, 1.0, damping)

    def inverse_matvec(self, tree: PyTree, damping: Damping = 0.0) -> PyTree:
        """(H + d I)^-1 v.

        Args:
          tree: v, like the parameters.
          damping: d; 0 where no block is singular.

        Raises:
          ValueError: Likewise; or H + d I is singular.
        """
        return self.power(tree, -1.0, damping)

    def sqrt_matvec(self, tree: PyTree, damping: Damping = 0.0) -> PyTree:
        """(H + d I)^½ v, of the symmetric root.

        Args:
          tree: v, like the parameters.
          damping: d >= 0.
        """
        return self.power(tree, 0.5, damping)

    def inverse_sqrt_matvec(self, tree: PyTree, damping: Damping = 0.0) -> PyTree:
        """(H + d I)^-½ v, of the symmetric root.

        Args:
          tree: v, like the parameters.
          damping: d; 0 where no block is singular.
        """
        return self.power(tree, -0.5, damping)

    def power(self, tree: PyTree, exponent: float, damping: Damping = 0.0) -> PyTree:
        """(H + d I)^p v.

        Args:
          tree: v, like the parameters.
          exponent: p.
          damping: d.

        Raises:
          ValueError: The tree is not like the parameters; a damping is below zero, or names no
            block; or p < 0 and H + d I is singular.
        """
        dampings = self.dampings(damping, inverted=exponent < 0)
        self.check(tree, "the vector")

        def product(curvature: Curvature, tree: PyTree, dampings: dict[str, ArrayLike]) -> PyTree:
            found = {
                path: block.power(matrix, exponent, dampings[path])
                for path, matrix, block in curvature._pairs(tree)
            }
            return curvature._tree_like(tree, found)

        return laid_out_like(product, partitions_of(tree), self, tree, dampings)

    def quadratic(self, tree: PyTree, damping: Damping = 0.0) -> jax.Array:
        """vᵀ (H + d I) v.

        Args:
          tree: v, like the parameters.
          damping: d >= 0.
        """
        dampings = self.dampings(damping)
        self.check(tree, "the vector")

        def product(
            curvature: Curvature, tree: PyTree, dampings: dict[str, ArrayLike]
        ) -> jax.Array:
            parts = [
                block.quadratic(matrix, dampings[path])
                for path, matrix, block in curvature._pairs(tree)
            ]
            return sum(parts, jnp.zeros([]))

        return on_auto_axes(product, self, tree, dampings)

    def sample(self, key: jax.Array, damping: Damping, shape: tuple[int, ...] = ()) -> PyTree:
        """Draws from N(0, (H + d I)^-1), a tree like the parameters.

        Args:
          key: A random key.
          damping: d.
          shape: Axes in front, for several draws.

        Raises:
          ValueError: H + d I is singular.
        """
        dampings = self.dampings(damping, inverted=True)
        total = math.prod(shape)
        found: dict[str, jax.Array] = {}
        for index, view in enumerate(self.views):
            own = jax.random.fold_in(key, index)
            drawn = self.blocks[view.path].sample(own, dampings[view.path], (total,))
            arrays = jax.vmap(view.from_matrix)(drawn)
            found |= dict(zip(view.shapes, arrays, strict=True))
        leaves = Leaves(self.template.tree())
        zeros = {path: jnp.zeros((total, *leaves[path].shape)) for path in leaves}
        return leaves.replaced(
            {
                path: array.astype(leaves[path].dtype).reshape(*shape, *array.shape[1:])
                for path, array in (zeros | found).items()
            }
        )

    def trace(self) -> jax.Array:
        """Tr H."""
        return self._sum(lambda path, block: block.trace())

    def logdet(self, damping: Damping = 0.0) -> jax.Array:
        """Log det(H + d I), over parameters that have a block.

        Args:
          damping: d; 0 where no block is singular.

        Raises:
          ValueError: H + d I is singular.
        """
        dampings = self.dampings(damping, inverted=True)
        return self._sum(lambda path, block: block.logdet(dampings[path]))

    def diagonal(self, exponent: float = 1.0, damping: Damping = 0.0) -> PyTree:
        """The diagonal of (H + d I)^p, a tree like the parameters; p = -1 for variances.

        Args:
          exponent: p.
          damping: d.

        Raises:
          ValueError: p < 0, and H + d I is singular.
        """
        dampings = self.dampings(damping, inverted=exponent < 0)
        leaves = Leaves(self.template.tree())
        zeros = leaves.replaced(
            {path: jnp.zeros(leaves[path].shape, leaves[path].dtype) for path in leaves}
        )
        found = {
            path: block.diagonal(exponent, dampings[path]) for path, block in self.blocks.items()
        }
        return self._tree_like(zeros, found)

    def spectrum(self) -> jax.Array:
        """All eigenvalues of H in falling order; of one layer, ``curvature[path].spectrum()``."""
        values = [block.values.reshape(-1) for block in self.blocks.values()]
        return jnp.sort(jnp.concatenate(values))[::-1]

    def effective_dimension(self, damping: Damping) -> jax.Array:
        """Tr H (H + d I)^-1, how many parameters the data determine (MacKay, 1992).

        Args:
          damping: d > 0.
        """
        dampings = self.dampings(damping, inverted=True)
        return self._sum(lambda p, block: (block.values * block.powers(-1.0, dampings[p])).sum())

    def scaled(self, factor: ArrayLike) -> "Curvature":
        """The curvature of a likelihood to this power: 1 / temperature, or 1 / σ².

        Args:
          factor: >= 0; may be traced.

        Raises:
          ValueError: It is below zero.
        """
        check_number("factor", factor, schedule=False)
        blocks = {path: block.scaled(factor) for path, block in self.blocks.items()}
        return dataclasses.replace(self, blocks=blocks)

    def select(self, pattern: str) -> "Curvature":
        """The blocks whose path matches; all other parameters are fixed: a subnetwork.

        Args:
          pattern: A regular expression, searched in each path.

        Raises:
          ValueError: No path matches, or the pattern is no regular expression.
          TypeError: The pattern is of another type.
        """
        compiled = check_pattern("pattern", pattern)
        blocks = {path: block for path, block in self.blocks.items() if compiled.search(path)}
        if not blocks:
            raise ValueError(
                f"No block's path matches {pattern!r}.{near(pattern, self.blocks)} Paths: "
                f"{list(self.blocks)}. Give a pattern that one of them has."
            )
        views = tuple(view for view in self.views if view.path in blocks)
        return dataclasses.replace(self, blocks=blocks, views=views)

    @property
    def size(self) -> int:
        """How many numbers the parameters with a block have."""
        return sum(block.values.size for block in self.blocks.values())

    def dampings(self, damping: Damping, *, inverted: bool = False) -> dict[str, ArrayLike]:
        """The damping of each block, checked.

        Args:
          damping: One number, or a mapping that names every block.
          inverted: Whether H + d I must be regular.

        Raises:
          ValueError: It is negative, names other blocks, or leaves a block singular.
        """
        if isinstance(damping, Mapping):
            if set(damping) != set(self.blocks):
                odd = sorted(set(damping) ^ set(self.blocks))
                raise ValueError(
                    "`damping` must be a number, or a mapping that has one for each block, got one "
                    f"that differs in {odd[:10]}. The blocks are {list(self.blocks)}."
                )
            each = dict(damping)
        else:
            each = dict.fromkeys(self.blocks, damping)
        for path, number in each.items():
            check_number("damping", number, schedule=False)
            if inverted:
                _check_regular(path, self.blocks[path].values, number)
        return each

    def check(self, tree: PyTree, what: str) -> None:
        """Raise unless a tree is like the parameters.

        Args:
          tree: Like the parameters.
          what: What it is, for messages.

        Raises:
          ValueError: It is a tree of other layers, or on a mesh that is not set.
        """
        check_tree(self.views, tree, what)

    def matrices(self, tree: PyTree, what: str = "the tree") -> dict[str, jax.Array]:
        """Path of a block -> its part of a tree like the parameters, as a matrix.

        Args:
          tree: Like the parameters.
          what: What it is, for messages.

        Raises:
          ValueError: It is a tree of other layers.
        """
        self.check(tree, what)
        return on_auto_axes(functools.partial(matrices_of, self.views), tree)

    def _pairs(self, tree: PyTree) -> list[tuple[str, jax.Array, Block]]:
        return [
            (path, matrix.astype(self.blocks[path].values.dtype), self.blocks[path])
            for path, matrix in matrices_of(self.views, tree).items()
        ]

    def _tree_like(self, tree: PyTree, matrices: dict[str, jax.Array]) -> PyTree:
        leaves = Leaves(tree)
        zeros = {path: jnp.zeros_like(leaves[path]) for path in leaves}
        found = {
            path: array.astype(jnp.result_type(leaves[path]))
            for path, array in arrays_of(self.views, matrices).items()
        }
        return leaves.replaced(zeros | found)

    def _sum(self, function: Callable[[str, Block], jax.Array]) -> jax.Array:
        parts = [function(path, block) for path, block in self.blocks.items()]
        return sum(parts, jnp.zeros([]))


def _check_regular(path: str, values: jax.Array, damping: ArrayLike) -> None:
    """Raise if this is known to be singular."""
    number = concrete_number(damping)
    is_known = not isinstance(values, jax.core.Tracer) and values.is_fully_addressable
    if number is None or number > 0 or not is_known:
        return
    known = np.asarray(values)  # what JAX computes would be traced, inside of jax.jit
    least, largest = float(known.min()), float(known.max())
    if least <= largest * float(jnp.finfo(values.dtype).eps) * max(values.shape[-2:]):
        raise ValueError(
            f"The curvature of {path!r} is singular: its eigenvalues go from {least:.3g} to "
            f"{largest:.3g}, and the damping is {number:g}. Pass a damping (or prior precision) "
            "above 0, in the units of the summed negative log-likelihood, or fit on more data."
        )
