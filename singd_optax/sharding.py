"""From one chip to a mesh: who holds what of the optimizer, and who computes it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import get_args

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from singd_optax._types import PyTree
from singd_optax._validate import check_choice
from singd_optax.layers import Layers, RuleState
from singd_optax.layers._by_path import ByPath
from singd_optax.layers._check import check_layers
from singd_optax.layers._roles import sides_of
from singd_optax.layers._tree import Leaves, is_box, path_name
from singd_optax.placement import (
    Rules,
    Strategy,
    partition_of_names,
    placement_on_mesh,
)

__all__ = ["named_shardings", "spread", "state_shardings"]


def spread(layers: Layers, shardings: PyTree, *, strategy: Strategy = "rows") -> Layers:
    """Spread the factors of layers, and all work on them, over a mesh.

    Factors are the matrices K and C that multiply a layer's gradient; a refresh makes them anew
    from statistics of the batch.

    Without this, each device of a mesh holds all factors, refreshes all of them and preconditions
    all gradients (KAISA's COMM-OPT, arXiv 2107.01739). With it, layers of a stack
    (``nn.scan``) go to different devices, over as many axes of the mesh as divide the stack:
    each refreshes its own factors, and preconditions its own gradients, which travel to it and
    back. No dense factor travels on steps without a refresh. The statistics are those of the whole
    batch, formed plain in the backward pass and whitened where the factors are. A kernel that is
    split over several mesh axes at once is best split with those of the stack last, as in
    ``P(None, ("rows", "layers"))``: then one move brings its gradient to the factors.

    Over the axes that are left, if any, ``strategy`` decides:

    - ``"rows"``: rows of dense factors, blocks of block-diagonal ones and entries of diagonal ones
      are split. This takes the least memory; with dense factors, gradients travel twice more
      (KAISA's MEM-OPT; the memory of DP-KFAC, arXiv 2206.15143, with statistics of the whole
      batch). With other structures, one of the two factors is brought to the gradients if it has
      fewer numbers.
    - ``"layers"``: factors are repeated there, and refreshed by each; gradients are split, so that
      preconditioning is not repeated (KAISA's HYBRID-OPT).
    - ``"follow"``: nothing is added to the shardings of the parameters. K is split as the
      kernel's inputs are, C as its outputs are, stacks as the kernel's.

    Args:
      layers: The layers that ``find_layers`` found; or, for rules that see gradients only, the
        matrices that ``find_matrices`` did.
      shardings: A tree like the parameters, of ``NamedSharding`` on one mesh; or the parameters
        themselves, if they are on it.
      strategy: What to do with mesh axes that do not divide the stack: "rows" (the default),
        "layers" or "follow", as above.

    Returns:
      The same layers, each with its ``placement``. Give them to the optimizer, to
      ``value_and_grad`` and to ``state_shardings``. They hold no devices: they can be pickled.

    Raises:
      TypeError: ``layers`` are something else, or a leaf has no ``NamedSharding``.
      ValueError: The strategy is none of the three, a parameter has no sharding, or shardings are
        on several meshes.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec as P
      >>> params = {"kernel": jnp.ones((8, 4))}
      >>> loss_fn = lambda p, x: jnp.mean(nn.Dense(4, use_bias=False).apply({"params": p}, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, jnp.ones((16, 8)))
      >>> mesh = AbstractMesh((4,), ("data",))  # of real devices: jax.make_mesh
      >>> shardings = {"kernel": NamedSharding(mesh, P("data", None))}
      >>> layers = singd_optax.sharding.spread(layers, shardings)
      >>> layers.specs[0].placement.rows
      (('data',), ('data',))
    """
    check_layers(layers)
    check_choice("strategy", strategy, get_args(Strategy))
    leaves = Leaves(shardings)
    mesh: Mesh | AbstractMesh | None = None
    placed = []
    for spec in layers.values():
        own = {path: _sharding_at(leaves, path) for path in spec.shapes}
        for path, sharding in own.items():
            mesh = sharding.mesh if mesh is None else mesh
            if sharding.mesh != mesh:
                raise ValueError(
                    f"`shardings` must be on one mesh, got {mesh}, and for {path!r} "
                    f"{sharding.mesh}. Make all of them with one mesh."
                )
        placed.append(dataclasses.replace(spec, placement=placement_on_mesh(spec, own, strategy)))
    return dataclasses.replace(layers, specs=tuple(placed))


def state_shardings(
    init: Callable[[PyTree], PyTree],
    params: PyTree,
    shardings: PyTree,
    layers: Layers | None = None,
) -> PyTree:
    """The shardings of an optimizer's state, from those of the parameters.

    Arrays that are shaped like a parameter and sit under its path (momentum, AdamW's moments) are
    split as the parameter is. Factors (the matrices that multiply gradients), their momenta and
    averages are where ``spread`` placed them; those of layers without placement, and all else, are
    on every device.

    Args:
      init: The ``init`` of the optimizer (of any chain, partition, ...), or of a TrainState.
      params: What ``init`` takes: the parameters or their ``jax.ShapeDtypeStruct``s.
      shardings: A tree like ``params``, of ``NamedSharding``; or parameters that have them.
      layers: The layers that ``spread`` returned; None for an optimizer without layers.

    Returns:
      A tree like ``init(params)``, of ``NamedSharding``: for ``jax.jit``'s ``in_shardings`` and
      ``out_shardings`` (``opt_state = jax.jit(tx.init, out_shardings=of_state)(params)``),
      ``jax.device_put``, or to restore a checkpoint on this mesh.

    Raises:
      ValueError: A parameter has no sharding, or ``layers`` were spread over another mesh.
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
    known = {path: _sharding_at(leaves, path) for path in leaves}
    arrays = Leaves(params)
    shapes = {path: arrays[path].shape for path in arrays}
    mesh = next(iter(known.values())).mesh
    state = jax.eval_shape(init, params)

    def of_leaf(path: PyTree, leaf: PyTree) -> NamedSharding:
        names = path_name(path).split("/")
        for start in range(len(names)):
            name = "/".join(names[start:])
            if shapes.get(name) == leaf.shape:
                return known[name]
        return NamedSharding(mesh, PartitionSpec())

    def of_node(path: PyTree, node: PyTree) -> PyTree:
        if is_box(node):  # what is in it has the path of the box
            return jax.tree.map(lambda leaf: of_leaf(path, leaf), node)
        if not isinstance(node, RuleState):
            return of_leaf(path, node)
        whole = jax.tree_util.tree_map_with_path(
            lambda rest, x: of_node((*path, *rest), x), node, is_leaf=is_box
        )
        return whole if layers is None else _with_placed(node, whole, layers, mesh)

    return jax.tree_util.tree_map_with_path(
        of_node, state, is_leaf=lambda node: isinstance(node, RuleState) or is_box(node)
    )


#: The fields of a state that have something for each layer, or for each matrix.
_BY_PATH = ("rule_states", "size_states", "skipped_refreshes", "skipped_in_a_row")


def _with_placed(
    node: RuleState, whole: RuleState, layers: Layers, mesh: Mesh | AbstractMesh
) -> RuleState:
    """The shardings of a state, with those of what belongs to a layer from its placement."""
    placed: dict[str, PyTree] = {}
    for field in _BY_PATH:
        shapes, plain = (ByPath.each(getattr(tree, field)) for tree in (node, whole))

        def named(group: tuple[str, ...], tree: PyTree, field: str, plain: ByPath) -> PyTree:
            if len(group) > 1 or group[0] not in layers:
                return plain.of_group(group)  # groups are of layers without a place on a mesh
            sides = sides_of(type(tree)) if field == "rule_states" else None
            return layers[group[0]].placement.named(tree, sides, mesh)

        placed[field] = shapes.mapped(functools.partial(named, field=field, plain=plain))
    return whole._replace(**placed)


def named_shardings(params: PyTree, mesh: Mesh, rules: Rules | None = None) -> PyTree:
    """The shardings that the boxes around parameters ask for.

    Args:
      params: The parameters (or their shapes), in boxes with axis names: ``nn.Partitioned``,
        ``nn.LogicallyPartitioned``. A parameter without a box is on every device.
      mesh: The mesh of devices.
      rules: Pairs of a logical name and a mesh axis, a tuple of several, or None; for each axis of
        an array the first rule of its name counts whose mesh axes are not taken yet. None if the
        names are those of mesh axes.

    Returns:
      A tree like ``params``, boxes included, of ``NamedSharding``.

    Raises:
      ValueError: A name is in no rule, or a rule names an axis that the mesh has not.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> kernel = nn.LogicallyPartitioned(jnp.ones((4, 8)), ("embed", "mlp"))
      >>> mesh = jax.make_mesh((1, 1), ("data", "model"))
      >>> rules = [("embed", "data"), ("mlp", "model")]
      >>> named_shardings({"kernel": kernel}, mesh, rules)["kernel"].value.spec
      P('data', 'model')
    """
    pairs = None if rules is None else list(rules)

    def of(node: PyTree) -> PyTree:
        if not _has_names(node):
            return NamedSharding(mesh, PartitionSpec())
        sharding = NamedSharding(mesh, partition_of_names(node.names, mesh.shape, pairs))
        return jax.tree.map(lambda _: sharding, node)

    return jax.tree.map(of, params, is_leaf=_has_names)


def _has_names(node: PyTree) -> bool:
    """Whether this is a box with axis names."""
    return is_box(node) and isinstance(getattr(node, "names", None), tuple)


def _sharding_at(leaves: Leaves, path: str) -> NamedSharding:
    """The sharding of the parameter at a path."""
    if path not in leaves:
        raise ValueError(
            f"`shardings` have nothing for the parameter {path!r}, only for {list(leaves)[:8]}. "
            "Pass a tree like the parameters."
        )
    sharding = getattr(leaves[path], "sharding", leaves[path])
    if not isinstance(sharding, NamedSharding):
        raise TypeError(
            f"The sharding of {path!r} must be a jax.sharding.NamedSharding, got {sharding!r}. "
            "Write NamedSharding(mesh, PartitionSpec(...))."
        )
    return sharding
