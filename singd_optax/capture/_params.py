"""Entries beside kernels: put into a params tree, and taken out again."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from singd_optax.layers import join_path, path_name

#: The key under which a probe or a tap rides beside a kernel.
ENTRY = "singd_optax_entry"


def split_path(path: str) -> tuple[str, str]:
    """A parameter's path as (path of what holds it, its name there).

    >>> split_path("encoder/dense/kernel"), split_path("w")
    (('encoder/dense', 'kernel'), ('', 'w'))
    """
    group, _, name = path.rpartition("/")
    return group, name


Entry = Callable[[str, Mapping[str, Any]], Any]


def insert_entries(tree: Any, entry: Entry, prefix: str = "") -> Any:
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
    return content if type(tree) is dict else type(tree)(content)  # type: ignore[call-arg]


def plain_params(params: Any) -> Any:
    """The parameters without what ``find_layers`` and ``value_and_grad`` put beside kernels.

    Inside a loss function that they call, the params tree carries one more entry in each dict
    that holds a kernel. Flax modules do not see it. Code that goes over all leaves (an L2 penalty,
    a norm) does, and should go over ``plain_params(params)``. Elsewhere this is the identity.

    Args:
      params: The parameters as a loss function gets them.

    Returns:
      The user's own parameters.

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
    return content if type(params) is dict else type(params)(content)  # type: ignore[call-arg]
