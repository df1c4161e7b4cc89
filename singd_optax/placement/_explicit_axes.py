"""Meshes whose axes are Explicit: our arithmetic leaves its layout to the compiler there too."""

from collections.abc import Callable
from typing import TypeVar

import flax.struct
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

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


def partitions_of(tree: object, in_front: int = 0) -> ExplicitPartitions:
    """How the arrays of a tree are split over the Explicit axes of the mesh that is set.

    With Auto axes, or without a mesh, there is nothing to say.

    Args:
      tree: A tree of arrays.
      in_front: How many axes come in front of theirs, which are not split.
    """
    leaves, treedef = jax.tree.flatten(tree)
    if not explicit_axes():
        return ExplicitPartitions(None, None)
    specs = (jax.typeof(leaf).sharding.spec for leaf in leaves)
    return ExplicitPartitions(
        tuple(PartitionSpec(*(None,) * in_front, *spec) for spec in specs), treedef
    )


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


def on_auto_axes(
    function: Callable[..., Tree], *arguments: object, split: tuple[str, ...] = ()
) -> Tree:
    """Call a function inside of which Explicit axes are Auto.

    Args:
      function: A function of arrays.
      *arguments: The arguments of the function.
      split: The mesh axes that the first axis of all results is split over.

    Returns:
      What the function returns; but for that first axis whole on each device.
    """
    axes = explicit_axes()
    if not axes:
        return function(*arguments)
    spec = PartitionSpec(split) if split else PartitionSpec()
    return jax.sharding.auto_axes(function, axes=axes, out_sharding=spec)(*arguments)


def axes_of_first(tree: object) -> tuple[str, ...]:
    """The Explicit axes that split the first axis of the arrays of a tree, in any of them."""
    if not explicit_axes():
        return ()
    for leaf in jax.tree.leaves(tree):
        spec = jax.typeof(leaf).sharding.spec
        if spec and spec[0] is not None:
            return (spec[0],) if isinstance(spec[0], str) else tuple(spec[0])
    return ()


def first_split(tree: Tree, axes: tuple[str, ...]) -> Tree:
    """The tree with the first axis of its arrays split over these Explicit axes, if there are any.

    Their other axes stay as they are.
    """
    if not axes:
        return tree

    def one(leaf: jax.Array) -> jax.Array:
        spec = jax.typeof(leaf).sharding.spec
        return jax.sharding.reshard(leaf, PartitionSpec(axes, *spec[1:]))

    return jax.tree.map(one, tree)


def gathered_over(tree: Tree, axes: tuple[str, ...]) -> Tree:
    """The tree with no array split over these Explicit axes; over others they stay as they are."""
    if not axes:
        return tree

    def left(entry: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
        names = () if entry is None else (entry,) if isinstance(entry, str) else entry
        return tuple(name for name in names if name not in axes) or None

    def one(leaf: jax.Array) -> jax.Array:
        spec = jax.typeof(leaf).sharding.spec
        return jax.sharding.reshard(leaf, PartitionSpec(*map(left, spec)))

    return jax.tree.map(one, tree)


def check_mesh_is_set(tree: object, what: str) -> None:
    """Raise if arrays are on a mesh with Explicit axes, and no mesh is set.

    Args:
      tree: A tree of arrays.
      what: What it is, for the message.

    Raises:
      ValueError: They are.
    """
    if explicit_axes():
        return
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and AxisType.Explicit in sharding.mesh.axis_types:
            raise ValueError(
                f"Arrays of {what} are on a mesh with Explicit axes, {sharding.mesh.axis_names}, "
                "and no mesh is set. Call this under `with jax.set_mesh(mesh):`, or make the mesh "
                "with axis_types=(jax.sharding.AxisType.Auto,) * its axes."
            )


def gathered(tree: Tree) -> Tree:
    """The tree with its arrays whole on each device of a mesh with Explicit axes.

    These allow no scan over an axis that is split.
    """
    if not explicit_axes():
        return tree
    return jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, PartitionSpec()), tree)
