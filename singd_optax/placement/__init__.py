"""Meshes: which device holds, and works on, which part of a layer's factors.

Every layer has a ``Placement``, and everything that differs between one device and a mesh is a
method of it. These words are used:

- *placement*: where the arrays of one layer (or of one matrix-shaped parameter) are, and how its
  gradients get to its factors: ``OneDevice``, which does nothing at all, or a ``MeshPlacement``.
- *side*: 0 for what belongs to K (inputs, rows of the gradient), 1 for C (outputs, columns), None
  for what belongs to neither (counters, means). ``Sides`` say it for each field of a NamedTuple.
- *partition*: over which mesh axes each axis of an array is split: a ``PartitionSpec``, or, with
  the same meaning, a ``Split``, a tuple of names for each axis.
- *stack*: the leading axes of factors and gradients, one matrix for each index (scan over layers).
- *rows*: what a factor is split by beside its stack: rows of dense ones, blocks of block-diagonal
  ones, entries of diagonal ones.
- *spare*: mesh axes that split neither stack nor rows: they split the other axis of gradients.
- *home*: how a gradient matrix is split where its parameter is; from there it travels to K, from
  K to C, and home again.
- *fetched*: of a factor with split rows that is made whole for its products, as it is smaller
  than the gradients that would have to travel otherwise.
- *late whitening*: statistics stay plain where they are formed, and meet the factors at the
  refresh, where these are.

It knows structured matrices, and neither layers, optax nor Flax.
"""

from singd_optax.placement._axis_names import Rules, partition_of_names
from singd_optax.placement._explicit_axes import (
    axes_of_first,
    check_mesh_is_set,
    explicit_axes,
    first_split,
    gathered,
    gathered_over,
    laid_out_like,
    on_auto_axes,
    partitions_of,
)
from singd_optax.placement._placement import OneDevice, Placement
from singd_optax.placement._sides import Side, Sides
from singd_optax.placement._strategies import ParameterAxes, Strategy, placement_on_mesh

__all__ = [
    "OneDevice",
    "ParameterAxes",
    "Placement",
    "Rules",
    "Side",
    "Sides",
    "Strategy",
    "axes_of_first",
    "check_mesh_is_set",
    "explicit_axes",
    "first_split",
    "gathered",
    "gathered_over",
    "laid_out_like",
    "on_auto_axes",
    "partition_of_names",
    "partitions_of",
    "placement_on_mesh",
]
