"""The shardings of a whole optimizer state."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from singd_optax.layers import (
    Layers,
    Leaves,
    RuleState,
    check_layers,
    is_box,
    path_name,
)
from singd_optax.layers import partitions as factor_partitions
from singd_optax.sharding._place import sharding_at


def state_shardings(
    init: Callable[[Any], Any], params: Any, shardings: Any, layers: Layers | None = None
) -> Any:
    """The shardings of an optimizer's state, from those of the parameters.

    Arrays that are shaped like a parameter and sit under its path (momentum, AdamW's moments) are
    split as the parameter is. Factors, their momenta and averages are where ``spread`` placed
    them; those of layers without placement, and all else, are on every device.

    Args:
      init: The ``init`` of the optimizer (of any chain, partition, ...), or of a TrainState.
      params: What ``init`` takes: parameters or their ``jax.ShapeDtypeStruct``.
      shardings: A tree like ``params``, of ``NamedSharding``; or parameters that have them.
      layers: From ``spread``; None for an optimizer without layers.

    Returns:
      A tree like ``init(params)``, of ``NamedSharding``: for ``jax.jit``'s ``in_shardings`` and
      ``out_shardings`` (``opt_state = jax.jit(tx.init, out_shardings=of_state)(params)``),
      ``jax.device_put``, or to restore a checkpoint on this mesh.

    Raises:
      ValueError: A parameter has no sharding.
      TypeError: ``layers`` are something else, or a leaf has no ``NamedSharding``.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec as P
      >>> params = {"kernel": jnp.ones((8, 4))}
      >>> loss_fn = lambda p, x: jnp.mean(nn.Dense(4, use_bias=False).apply({"params": p}, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, jnp.ones((16, 8)))
      >>> mesh = AbstractMesh((4,), ("data",))  # of real devices: jax.make_mesh
      >>> shardings = {"kernel": NamedSharding(mesh, P("data", None))}
      >>> layers = singd_optax.sharding.spread(layers, shardings)
      >>> tx = singd_optax.singd(1e-2, layers)
      >>> of_state = singd_optax.sharding.state_shardings(tx.init, params, shardings, layers)
      >>> singd_optax.factors(of_state)[""].K.entries.spec
      P('data', None)
    """
    if layers is not None:
        check_layers(layers)
    leaves = Leaves(shardings)
    known = {path: sharding_at(leaves, path) for path in leaves}
    shapes = {path: leaf.shape for path, leaf in _leaves_by_path(params)}
    mesh = next(iter(known.values())).mesh
    state = jax.eval_shape(init, params)

    def of_leaf(path: Any, leaf: Any) -> NamedSharding:
        names = path_name(path).split("/")
        for start in range(len(names)):
            name = "/".join(names[start:])
            if shapes.get(name) == leaf.shape:
                return known[name]
        return NamedSharding(mesh, PartitionSpec())

    def of_node(path: Any, node: Any) -> Any:
        if isinstance(node, RuleState):
            momentum = jax.tree_util.tree_map_with_path(of_node, node.rule_momentum, is_leaf=is_box)
            return _rule_shardings(node, layers, mesh, momentum)
        if is_box(node):  # what is in it has the path of the box
            return jax.tree.map(lambda leaf: of_leaf(path, leaf), node)
        return of_leaf(path, node)

    return jax.tree_util.tree_map_with_path(
        of_node, state, is_leaf=lambda node: isinstance(node, RuleState) or is_box(node)
    )


def _rule_shardings(
    state: RuleState, layers: Layers | None, mesh: Mesh | AbstractMesh, momentum: Any
) -> RuleState:
    whole = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), state)

    def placed(trees: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
        result = dict(default)
        for path, tree in trees.items():
            placement = layers[path].placement if layers and path in layers else None
            if placement is not None:
                result[path] = jax.tree.map(placement.named, factor_partitions(placement, tree))
        return result

    return whole._replace(
        rule_momentum=momentum,
        rule_states=placed(state.rule_states, whole.rule_states),
        size_states=placed(state.size_states, whole.size_states),
        skipped_refreshes=placed(state.skipped_refreshes, whole.skipped_refreshes),
        skipped_in_a_row=placed(state.skipped_in_a_row, whole.skipped_in_a_row),
    )


def _leaves_by_path(params: Any) -> list[tuple[str, Any]]:
    leaves = Leaves(params)
    return [(path, leaves[path]) for path in leaves]
