"""Carriers beside kernels: put into a params tree, and taken out again."""

import copy
from collections.abc import Callable, Mapping

import jax
import numpy as np

from singd_optax._types import PyTree
from singd_optax.layers._spec import join_path
from singd_optax.layers._tree import path_name

#: The key under which carriers travel beside the parameters of a mapping.
ENTRY = "singd_optax_entry"


def split_path(path: str) -> tuple[str, str]:
    """A parameter's path as (path of what holds it, its name there).

    >>> split_path("encoder/dense/kernel"), split_path("w")
    (('encoder/dense', 'kernel'), ('', 'w'))
    """
    group, _, name = path.rpartition("/")
    return group, name


def is_array(leaf: object) -> bool:
    """Whether this is an array of numbers that can be traced, or the type of one."""
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return False
    # Arrays of strings, bytes and objects are static.
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) or (
        np.dtype(leaf.dtype).kind in "biufcV" and np.dtype(leaf.dtype).names is None
    )


Entry = Callable[[str, Mapping[str, PyTree]], PyTree]


def insert_entries(tree: PyTree, entry: Entry, prefix: str = "") -> PyTree:
    """The tree with entries put into its mappings.

    Args:
      tree: Parameters: mappings (dict, FrozenDict), inside any other containers.
      entry: Called with the path and content of each mapping; what it returns is put in, unless
        it is None.
      prefix: The path of ``tree``.

    Returns:
      A tree of the same container types.
    """
    if not isinstance(tree, Mapping):
        flat, treedef = jax.tree_util.tree_flatten_with_path(
            tree, is_leaf=lambda node: isinstance(node, Mapping)
        )
        if len(flat) == 1 and flat[0][1] is tree:
            return tree
        return jax.tree.unflatten(
            treedef,
            [
                insert_entries(leaf, entry, join_path(prefix, path_name(path)))
                if isinstance(leaf, Mapping)
                else leaf
                for path, leaf in flat
            ],
        )
    content = {
        key: insert_entries(value, entry, join_path(prefix, str(key)))
        for key, value in tree.items()
    }
    addition = entry(prefix, tree)
    if addition is not None:
        content[ENTRY] = addition
    return _same_container(tree, content)


def _same_container(tree: Mapping[str, PyTree], content: dict[str, PyTree]) -> PyTree:
    """A mapping of the same type."""
    if not isinstance(tree, dict):
        return type(tree)(content)  # type: ignore[call-arg]
    new = copy.copy(tree)  # a defaultdict takes no mapping
    new.clear()
    new.update(content)
    return new


def beside(carriers: Mapping[str, PyTree]) -> Entry:
    """What ``insert_entries`` puts into each mapping, for carriers by the path of the parameter."""
    groups: dict[str, dict[str, PyTree]] = {}
    for path, carrier in carriers.items():
        group, name = split_path(path)
        groups.setdefault(group, {})[name] = carrier
    return lambda path, _: groups.get(path)


def plain_params(params: PyTree) -> PyTree:
    """The parameters without what ``find_layers`` and ``value_and_grad`` put beside kernels.

    Use it inside of a loss function. Where a loss function itself slices stacked params
    (``jax.lax.scan`` over layers, one jitted function for several of them), what measures these
    layers travels in one more entry of the dict that holds the kernel. Flax modules do not see it.
    Code that goes over all leaves (an L2 penalty, a norm) does, and should go over
    ``plain_params(params)``; ``find_layers`` says where that is needed. Elsewhere this is the
    identity.

    Args:
      params: The parameters as a loss function gets them.

    Returns:
      The user's own parameters, in the same containers.

    >>> plain_params({"kernel": 1.0})
    {'kernel': 1.0}
    """
    if not isinstance(params, Mapping):
        return jax.tree.map(
            lambda node: plain_params(node) if isinstance(node, Mapping) else node,
            params,
            is_leaf=lambda node: isinstance(node, Mapping),
        )
    content = {key: plain_params(value) for key, value in params.items() if key != ENTRY}
    return _same_container(params, content)
