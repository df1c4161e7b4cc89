"""Which device holds, refreshes and applies which part of which factor."""

import dataclasses
from typing import Any, Literal, get_args

from jax.sharding import AbstractMesh, Mesh, NamedSharding

from singd_optax._validate import check_choice
from singd_optax.layers import Layers, LayerSpec, Leaves, Placement, check_layers, fitting

Strategy = Literal["rows", "layers", "follow"]


def spread(layers: Layers, shardings: Any, *, strategy: Strategy = "rows") -> Layers:
    """Layers whose factors, and all work on them, are spread over a mesh.

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
      are split. The least memory; with dense factors, gradients travel twice more (KAISA's
      MEM-OPT; the memory of DP-KFAC, arXiv 2206.15143, with statistics of the whole batch). With
      others, one of the two is brought to the gradients if it has fewer numbers.
    - ``"layers"``: factors are repeated there, and refreshed by each; gradients are split, so that
      preconditioning is not repeated (KAISA's HYBRID-OPT).
    - ``"follow"``: nothing is added to the shardings of the parameters. K is split as the
      kernel's inputs are, C as its outputs are, stacks as the kernel's.

    Args:
      layers: From ``find_layers``.
      shardings: A tree like the parameters, of ``NamedSharding`` on one mesh; or the parameters
        themselves, if they are on it.
      strategy: What to do with mesh axes that do not divide the stack.

    Returns:
      The same layers, each with its ``placement``. Give them to the optimizer, to
      ``value_and_grad`` and to ``state_shardings``.

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
        own = {path: sharding_at(leaves, path) for path in spec.shapes}
        for path, sharding in own.items():
            mesh = sharding.mesh if mesh is None else mesh
            if sharding.mesh != mesh:
                raise ValueError(
                    f"`shardings` are on several meshes: {mesh}, and for {path!r} "
                    f"{sharding.mesh}. Make all of them with one mesh."
                )
        placed.append(dataclasses.replace(spec, placement=_placement(spec, own, strategy)))
    return dataclasses.replace(layers, specs=tuple(placed))


def sharding_at(leaves: Leaves, path: str) -> NamedSharding:
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


def _placement(
    spec: LayerSpec, shardings: dict[str, NamedSharding], strategy: Strategy
) -> Placement:
    kernel = shardings[spec.kernel_path]
    mesh = kernel.mesh
    stack, inputs, outputs = _kernel_axes(spec, kernel)
    parameters = tuple((path, sharding.spec) for path, sharding in shardings.items())
    # A bias is one more row, which nothing divides.
    home = (*stack, inputs, outputs) if spec.bias_path is None else None
    if strategy == "follow":
        taken = {axis for axes in stack for axis in axes}
        rows = [tuple(axis for axis in side if axis not in taken) for side in (inputs, outputs)]
        return Placement(mesh, stack, (rows[0], rows[1]), (), parameters, home)
    left = tuple(name for name in mesh.axis_names if mesh.shape[name] > 1)
    own = (*inputs, *outputs)
    chosen: tuple[tuple[str, ...], ...] = ()
    for size in spec.stack_shape:
        # Axes of the kernel itself are for its rows and columns, if others do as well.
        axes = fitting(size, left, mesh.shape, avoid=own)
        left = tuple(axis for axis in left if axis not in axes)
        chosen = (*chosen, axes)
    rows_of_both = ((), ()) if strategy == "layers" else (left, left)
    return Placement(mesh, chosen, rows_of_both, left, parameters, home)


def _kernel_axes(spec: LayerSpec, sharding: NamedSharding) -> Any:
    """The mesh axes of a kernel's stack, one by one, of its inputs, and of its outputs."""
    rank = len(spec.kernel_shape)
    entries = [*sharding.spec, *(None,) * (rank - len(sharding.spec))]
    axes = [(entry,) if isinstance(entry, str) else tuple(entry or ()) for entry in entries]
    stacked = spec.stacking.positions(rank)
    own = [axes[axis] for axis in range(rank) if axis not in stacked]
    layout = spec.layout
    stack = (*(axes[axis] for axis in stacked), *(own[axis] for axis in layout.batch))
    return (
        stack,
        tuple(name for axis in layout.inputs for name in own[axis]),
        tuple(name for axis in layout.outputs for name in own[axis]),
    )
