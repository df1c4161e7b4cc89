"""Equal layers as one stack of matrices: rules see one view with one more axis in front."""

import dataclasses
from collections import Counter
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from singd_optax.layers._by_path import Groups
from singd_optax.layers._view import MatrixView
from singd_optax.layers._window import Window
from singd_optax.placement import Placement
from singd_optax.structures import Structure


@dataclasses.dataclass(frozen=True)
class Group:
    """Several views that differ in their paths alone; itself a ``MatrixView``.

    Attributes:
      members: In the order of their stack.
    """

    members: tuple[MatrixView, ...]

    @property
    def path(self) -> str:
        """That of the first."""
        return self.members[0].path

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the parameters of all of them."""
        return {path: shape for one in self.members for path, shape in one.shapes.items()}

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """How many, and what each has."""
        return (len(self.members), *self.members[0].stack_shape)

    @property
    def dims(self) -> tuple[int, int]:
        """Of each."""
        return self.members[0].dims

    @property
    def window(self) -> Window | None:
        """Of each."""
        return self.members[0].window

    @property
    def structures(self) -> tuple[Structure, Structure]:
        """Of each."""
        return self.members[0].structures

    @property
    def factor_dtype(self) -> tuple[str, str]:
        """Of each."""
        return self.members[0].factor_dtype

    @property
    def statistics_dtype(self) -> jnp.dtype:
        """Of each."""
        return self.members[0].statistics_dtype

    @property
    def placement(self) -> Placement:
        """Of each: the null one, or they would not be stacked."""
        return self.members[0].placement

    @property
    def stacks_with_others(self) -> bool:
        """It is a stack."""
        return False

    def to_matrix(self, *arrays: jax.Array) -> jax.Array:
        """All of them, in the dtype of statistics."""
        rest = iter(arrays)
        matrices = [one.to_matrix(*(next(rest) for _ in one.shapes)) for one in self.members]
        return jnp.stack([matrix.astype(self.statistics_dtype) for matrix in matrices])

    def from_matrix(
        self, matrix: jax.Array, places: tuple[jax.Array, ...] = ()
    ) -> tuple[jax.Array, ...]:
        """The inverse.

        Args:
          matrix: The stack.
          places: The places of members in it, as arrays. A compiler that does not know that they
            are 0, 1, 2, ... makes the same code for each member, once.
        """
        indices = places or tuple(map(jnp.int32, range(len(self.members))))
        return tuple(
            array
            for one, index in zip(self.members, indices, strict=True)
            for array in one.from_matrix(member_of(matrix, index))
        )


def member_of(stack: jax.Array, place: jax.Array) -> jax.Array:
    """One of a stack, along the first axis."""
    return jax.lax.dynamic_index_in_dim(stack, place.astype(jnp.int32), 0, keepdims=False)


def groups_of(views: Mapping[str, MatrixView]) -> Groups:
    """The paths of views that differ in their paths alone.

    Views on a mesh are apart, as each has its placement, and so are those that share a parameter.

    Args:
      views: By path.

    >>> from singd_optax.layers import find_matrices
    >>> x = jnp.ones((2, 3))
    >>> groups_of(find_matrices({"a": x, "b": x, "c": x.T}, structures="dense"))
    (('a', 'b'), ('c',))
    """
    chains = Counter(tuple(view.shapes) for view in views.values())
    groups: dict[object, list[str]] = {}
    for path, view in views.items():
        alone = chains[tuple(view.shapes)] > 1 or not view.stacks_with_others
        groups.setdefault(path if alone else _kind(view), []).append(path)
    return tuple(map(tuple, groups.values()))


def _kind(view: MatrixView) -> tuple[object, ...]:
    """What is equal in a group."""
    sizes = view.stack_shape, view.dims, view.structures, view.factor_dtype
    return (*sizes, view.statistics_dtype, view.window, type(view))


def grouped(views: Mapping[str, MatrixView], groups: Groups) -> dict[tuple[str, ...], MatrixView]:
    """The view of each group of a state.

    Views that are not equal any more, as layers were changed since, or may not be stacked, as they
    were put on a mesh, are views by themselves.
    """
    found: dict[tuple[str, ...], MatrixView] = {}
    for paths in groups:
        members = tuple(views[path] for path in paths)
        fits = len({_kind(view) for view in members}) == 1
        if len(paths) > 1 and fits and all(view.stacks_with_others for view in members):
            found[paths] = Group(members)
        else:
            found |= {(path,): view for path, view in zip(paths, members, strict=True)}
    return found
