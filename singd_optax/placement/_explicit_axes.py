"""Meshes whose axes are Explicit: our arithmetic leaves its layout to the compiler there too."""

from collections.abc import Callable
from typing import TypeVar

import flax.struct
import jax
from jax.sharding import AxisType, PartitionSpec

Tree = TypeVar("Tree")


@flax.struct.dataclass
class ExplicitPartitions:
    """How the arrays of a tree are split; static, None where nothing has to be said."""

    leaves: tuple[PartitionSpec, ...] | None = flax.struct.field(pytree_node=False)
    treedef: jax.tree_util.PyTreeDef | None = flax.struct.field(pytree_node=False)


def explicit_axes() -> tuple[str, ...]:
    """The Explicit axes of the mesh that is set."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return ()
    return tuple(
        name
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind == AxisType.Explicit
    )


def partitions_of(tree: object) -> ExplicitPartitions:
    """How the arrays of a tree are split over the Explicit axes of the mesh that is set.

    With Auto axes, or without a mesh, there is nothing to say.
    """
    leaves, treedef = jax.tree.flatten(tree)
    if not explicit_axes():
        return ExplicitPartitions(None, None)
    return ExplicitPartitions(tuple(jax.typeof(leaf).sharding.spec for leaf in leaves), treedef)


def laid_out_like(
    function: Callable[..., Tree], like: ExplicitPartitions, *arguments: object
) -> Tree:
    """Call a function whose results are to be split over the mesh as other arrays are.

    With Auto axes, or without a mesh, this is a call. With Explicit axes the types of arrays say
    how they are split, and every product over a split axis would have to say so too: inside, axes
    are Auto.

    Args:
      function: A function of arrays.
      like: How the results are to be split, from ``partitions_of``.
      *arguments: The arguments of the function.

    Returns:
      What the function returns.
    """
    if like.leaves is None or like.treedef is None:
        return function(*arguments)
    shardings = jax.tree.unflatten(like.treedef, like.leaves)
    return jax.sharding.auto_axes(function, axes=explicit_axes(), out_sharding=shardings)(
        *arguments
    )


def gathered(tree: Tree) -> Tree:
    """The tree with its arrays whole on each device of a mesh with Explicit axes.

    These allow no scan over an axis that is split.
    """
    if not explicit_axes():
        return tree
    return jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, PartitionSpec()), tree)
