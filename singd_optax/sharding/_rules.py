"""Shardings of boxed parameters, from their axis names and the user's rules."""

from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from singd_optax.layers import is_box

Rules = Iterable[tuple[str, Any]]


def named_shardings(params: Any, mesh: Mesh, rules: Rules | None = None) -> Any:
    """The shardings that the boxes around parameters ask for.

    Args:
      params: Parameters (or their shapes), in boxes with axis names: ``nn.Partitioned``,
        ``nn.LogicallyPartitioned``. A parameter without a box is on every device.
      mesh: The devices.
      rules: Pairs (logical name, mesh axis, several, or None); for each axis of an array the first
        rule of its name counts whose mesh axes are not taken yet. None if the names are those
        of mesh axes.

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

    def sharding(names: tuple[Any, ...]) -> NamedSharding:
        taken: set[str] = set()
        return NamedSharding(
            mesh, PartitionSpec(*(_axes(name, pairs, mesh, taken) for name in names))
        )

    def of(node: Any) -> Any:
        if _is_box(node):
            return jax.tree.map(lambda _: sharding(node.names), node)
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree.map(of, params, is_leaf=_is_box)


def _axes(name: Any, rules: list[tuple[str, Any]] | None, mesh: Mesh, taken: set[str]) -> Any:
    if name is None:
        return None
    candidates = [name] if rules is None else [axes for rule, axes in rules if rule == name]
    if not candidates:
        raise ValueError(
            f"The axis name {name!r} of a parameter is in no rule; there are rules for "
            f"{sorted({rule for rule, _ in rules or ()})}. Add ({name!r}, None) if it is not split."
        )
    for axes in candidates:
        several = (axes,) if isinstance(axes, str) else tuple(axes or ())
        unknown = [axis for axis in several if axis not in mesh.shape]
        if unknown:
            raise ValueError(
                f"{name!r} is to be split over {unknown}, but the mesh has the axes "
                f"{list(mesh.axis_names)}. Pass `rules`, or name axes of the mesh."
            )
        if not taken.intersection(several):
            taken.update(several)
            return axes
    return None


def _is_box(node: Any) -> bool:
    """Whether this is a box with axis names."""
    return is_box(node) and isinstance(getattr(node, "names", None), tuple)
