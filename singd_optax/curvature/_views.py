"""How arrays of a tree of parameters are matrices: layers, and single arrays."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import jax

from singd_optax._types import PyTree
from singd_optax.layers._check import check_params
from singd_optax.layers._tree import Leaves
from singd_optax.placement import check_mesh_is_set


class View(Protocol):
    """What a block needs to know of its parameters; ``LayerSpec`` is one."""

    @property
    def path(self) -> str:
        """The name."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Path -> shape of the parameters."""

    def to_matrix(self, *arrays: jax.Array) -> jax.Array:
        """The parameters as (*stack, rows, columns)."""

    def from_matrix(self, matrix: jax.Array) -> tuple[jax.Array, ...]:
        """The inverse."""


@dataclasses.dataclass(frozen=True)
class Single:
    """A parameter outside of layers: one row."""

    path: str
    shape: tuple[int, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Its own."""
        return {self.path: self.shape}

    def to_matrix(self, *arrays: jax.Array) -> jax.Array:
        """(1, size)."""
        return arrays[0].reshape(1, math.prod(self.shape))

    def from_matrix(self, matrix: jax.Array) -> tuple[jax.Array, ...]:
        """As it was."""
        return (matrix.reshape(self.shape),)


def check_tree(views: Iterable[View], tree: PyTree, what: str) -> None:
    """Raise unless a tree is like the parameters.

    Raises:
      ValueError: A part is missing, or has another shape; or it is on a mesh that is not set.
    """
    check_params(tuple(views), Leaves(tree), what)  # type: ignore[arg-type]
    check_mesh_is_set(tree, what)


def matrices_of(views: Iterable[View], tree: PyTree) -> dict[str, jax.Array]:
    """Path of a block -> its part of a tree like the parameters."""
    leaves = Leaves(tree)
    return {view.path: view.to_matrix(*(leaves[path] for path in view.shapes)) for view in views}


def arrays_of(views: Sequence[View], matrices: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Path of a parameter -> array, of the matrices of blocks."""
    return {
        path: array
        for view in views
        if view.path in matrices
        for path, array in zip(view.shapes, view.from_matrix(matrices[view.path]), strict=True)
    }
