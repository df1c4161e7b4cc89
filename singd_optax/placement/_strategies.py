"""From the shardings of parameters to the placement of what belongs to them."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from jax.sharding import AbstractMesh, AxisType, NamedSharding

from singd_optax.placement._mesh_placement import MeshPlacement
from singd_optax.placement._splits import MeshAxes, fitting, split_of

Strategy = Literal["rows", "layers", "follow"]


class ParameterAxes(NamedTuple):
    """Which axes of a parameter make what of its matrix, in the order of the matrix.

    Attributes:
      stack: The axes that run over separate matrices; None for one that is made of a part of an
        axis.
      rows: The axes that are merged to rows (inputs).
      columns: The axes that are merged to columns (outputs).
    """

    stack: tuple[int | None, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]


class Placeable(Protocol):
    """Parameters that make one matrix, or a stack of them: a layer, or one array."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """A dict from path to shape, first of the parameter that is the matrix, then of a bias."""

    @property
    def axes(self) -> ParameterAxes:
        """Which axes of the first parameter make what of the matrix."""

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """The sizes of the axes of the stack; ``()`` for one matrix."""


def placement_on_mesh(
    view: Placeable, shardings: Mapping[str, NamedSharding], strategy: Strategy
) -> MeshPlacement:
    """Where everything of a layer is to be, see ``singd_optax.sharding.spread``.

    Args:
      view: The layer, or the parameter.
      shardings: The shardings of its parameters, by path, in the order of ``view.shapes``, all on
        one mesh.
      strategy: What to do with mesh axes that do not divide the stack: "rows", "layers" or
        "follow".
    """
    (path, shape), *more_rows = view.shapes.items()
    full = shardings[path].mesh
    # Constraints are made where axes are Auto, also on a mesh whose axes are Explicit.
    auto = (AxisType.Auto,) * len(full.axis_names)
    mesh = AbstractMesh(full.axis_sizes, full.axis_names, axis_types=auto)
    split = split_of(shardings[path].spec, len(shape))
    stack = tuple(() if axis is None else split[axis] for axis in view.axes.stack)
    inputs, outputs = (
        tuple(name for axis in axes for name in split[axis])
        for axes in (view.axes.rows, view.axes.columns)
    )
    parameters = tuple((path, sharding.spec) for path, sharding in shardings.items())
    # A bias is one more row, which nothing divides; a part of an axis may be divided by less.
    is_whole = not more_rows and None not in view.axes.stack
    home = (*stack, inputs, outputs) if is_whole else None
    if strategy == "follow":
        taken = {axis for axes in stack for axis in axes}
        rows_of_K, rows_of_C = (
            tuple(axis for axis in side if axis not in taken) for side in (inputs, outputs)
        )
        return MeshPlacement(mesh, stack, (rows_of_K, rows_of_C), (), parameters, home)
    left = tuple(name for name in mesh.axis_names if mesh.shape[name] > 1)
    chosen: tuple[MeshAxes, ...] = ()
    for size in view.stack_shape:
        # Axes of the parameter itself are for its rows and columns, if others do as well.
        axes = fitting(size, left, mesh.shape, avoid=(*inputs, *outputs))
        left = tuple(axis for axis in left if axis not in axes)
        chosen = (*chosen, axes)
    rows_of_both = ((), ()) if strategy == "layers" else (left, left)
    return MeshPlacement(mesh, chosen, rows_of_both, left, parameters, home)
