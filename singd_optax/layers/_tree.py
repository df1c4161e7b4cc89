"""Parameters of a tree by their paths, whatever the containers (dict, FrozenDict, boxes)."""

from collections.abc import Iterable, Iterator, Mapping

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree


def path_name(path: Iterable[PyTree]) -> str:
    """A pytree key path as text.

    >>> path_name((jax.tree_util.DictKey("encoder"), jax.tree_util.SequenceKey(0)))
    'encoder/0'
    """
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


class Leaves:
    """The leaves of a pytree, found and exchanged by path.

    A box around a parameter (``nn.Partitioned``, ``nn.LogicallyPartitioned``) is seen through: its
    value has the path of the box. A field called "value" of any other class is a key as all are.
    An empty node, as ``optax.masked`` leaves behind, is no leaf.
    """

    def __init__(self, tree: PyTree):
        """Flatten the tree.

        Args:
          tree: Parameters, gradients or updates.

        Raises:
          ValueError: Two leaves have the same path (a key with a slash in its name).
        """
        self._treedef = jax.tree.structure(tree, is_leaf=_is_empty)
        flat = list(_flat(tree))
        self._values = [leaf for _, leaf in flat]
        self._index: dict[str, int] = {}
        self._empty: set[str] = set()
        self._none: set[str] = set()
        for position, (path, leaf) in enumerate(flat):
            name = path_name(path)
            if name in self._index or name in self._empty:
                raise ValueError(
                    f"Two parameters have the path {name!r}, as keys are joined by slashes. Rename "
                    "the key that has a slash in it."
                )
            if _is_empty(leaf):
                self._empty.add(name)
                self._none |= {name} if leaf is None else set()
            else:
                self._index[name] = position

    def __contains__(self, path: str) -> bool:
        return path in self._index

    def __getitem__(self, path: str) -> PyTree:
        return self._values[self._index[path]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def paths(self) -> list[str]:
        """All paths, of empty nodes too, but for None, which stands for no parameter at all."""
        return sorted({*self._index, *self._empty} - self._none)

    @property
    def is_placeholder(self) -> bool:
        """Whether the tree is one empty node, as ``optax.tree.map_params`` inits with."""
        return not self._index and self._empty <= {""}

    @property
    def is_nothing(self) -> bool:
        """Whether the tree is None, or empty containers alone, instead of parameters."""
        containers = (Mapping, list, type(None))
        return not self._index and all(
            isinstance(node, containers) or type(node) is tuple for node in self._values
        )

    def is_masked(self, path: str) -> bool:
        """Whether there is an empty node at this path, or above it, instead of an array."""
        keys = path.split("/")
        return any("/".join(keys[:end]) in self._empty for end in range(1, len(keys) + 1))

    def replaced(self, values: Mapping[str, PyTree]) -> PyTree:
        """The tree with the leaves at these paths exchanged."""
        leaves = list(self._values)
        for path, value in values.items():
            leaves[self._index[path]] = value
        return jax.tree.unflatten(self._treedef, leaves)

    def labelled(self, labels: Mapping[str, PyTree], default: PyTree) -> PyTree:
        """The tree with labels for leaves."""
        return self.replaced({path: labels.get(path, default) for path in self})


def check_not_flat(leaves: Leaves, what: str) -> None:
    """Raise if the tree is one array instead of a tree of parameters.

    Args:
      leaves: Parameters or gradients.
      what: What they are, for the message.

    Raises:
      ValueError: It is one array, as ``optax.flatten`` makes.
    """
    if "" in leaves:
        raise ValueError(
            f"`{what}` is one array of shape {jnp.shape(leaves[''])} and no tree of parameters. "
            "optax.flatten makes one of all, and then no layer can be told from another: leave it "
            "out. To flatten the parameters that are no Kronecker layers, write "
            "fallback=optax.flatten(optax.adamw(learning_rate))."
        )


def _is_empty(node: PyTree) -> bool:
    """Whether this is a node without children, as None and optax's masks and placeholders are."""
    return not jax.tree.leaves(node, is_leaf=lambda child: child is not node)


def is_variable(node: PyTree) -> bool:
    """Whether this is a variable of Flax NNX: by what it has, since nothing here knows NNX."""
    return hasattr(type(node), "get_raw_value")


def is_box(node: PyTree) -> bool:
    """Whether this is Flax's box around a parameter: by what it has, since nothing here knows Flax.

    ``nn.Partitioned`` and all other ``AxisMetadata`` are asked for their value by ``unbox``.
    """
    return callable(getattr(type(node), "unbox", None)) and callable(
        getattr(type(node), "replace_boxed", None)
    )


def _flat(tree: PyTree) -> Iterator[tuple[tuple[PyTree, ...], PyTree]]:
    """Leaves and empty nodes by their paths, in the order of ``jax.tree.leaves``."""
    flat, _ = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda node: is_variable(node) or is_box(node) or _is_empty(node)
    )
    for path, node in flat:
        if is_variable(node):
            yield from (((*path, *below), leaf) for below, leaf in _flat(node.get_raw_value()))
        elif is_box(node):
            yield from (((*path, *below), leaf) for below, leaf in _boxed(node))
        else:
            yield path, node


def _boxed(box: PyTree) -> Iterator[tuple[tuple[PyTree, ...], PyTree]]:
    """Leaves of a box by their paths in its value."""
    flat, _ = jax.tree_util.tree_flatten_with_path(
        box,
        is_leaf=lambda node: (
            node is not box and (is_variable(node) or is_box(node) or _is_empty(node))
        ),
    )
    for (_, *path), node in flat:
        yield from (((*path, *below), leaf) for below, leaf in _flat(node))
