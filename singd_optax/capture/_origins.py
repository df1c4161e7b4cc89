"""Where an array inside a program comes from: which parameter it is, seen through layout changes.

Layout changes are followed axis by axis, so that a kernel that a loop slices, a transform moves,
or a lifted function transposes is still known for the parameter that it is; flattening all
parameters into one vector and back, too.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from jax.extend.core import JaxprEqn, Literal

from singd_optax.capture._jaxprs import array_type, names

#: An axis of a parameter; None for one of size 1 that was put in; (axis, index) for one of size 1
#: that was cut out.
Axis: TypeAlias = int | tuple[int, int] | None


class Origin(NamedTuple):
    """An array that is a parameter, or a slice of it.

    Attributes:
      parameter: Its index.
      axes: For each axis of the array, which one of the parameter it is.
      taken: Axes of the parameter that are gone, each with the index at which it was cut, or None
        where a loop or a vmap runs over all of it.
      is_mapped: Whether its numbers were changed on the way, entry by entry.
      is_stopped: Whether no gradient flows back.
      is_cast: Whether they were cast to another type.
    """

    parameter: int
    axes: tuple[Axis, ...]
    taken: tuple[tuple[int, int | None], ...] = ()
    is_mapped: bool = False
    is_stopped: bool = False
    is_cast: bool = False


class Vector(NamedTuple):
    """Several whole parameters, flattened and joined.

    Attributes:
      parts: Each with its shape.
    """

    parts: tuple[tuple[Origin, tuple[int, ...]], ...]


#: What an array is; None where it is not known, or none of these.
Source: TypeAlias = Origin | Vector | None

#: Primitives that hand on what they are given, perhaps in another type or on another device.
UNCHANGED = names(
    """
    convert_element_type copy copy_p reduce_precision sharding_constraint optimization_barrier
    device_put pvary pcast reshard mesh_cast layout_constraint name
    """
)


def moved(equation: JaxprEqn, origins: list[Source]) -> list[Source]:
    """The origins of the results of an equation that only moves entries; None where unknown."""
    name, results = equation.primitive.name, equation.outvars
    if name in UNCHANGED and len(origins) == len(results):
        types = [
            (array_type(a), array_type(b)) for a, b in zip(equation.invars, results, strict=True)
        ]
        return [
            origin
            if old.dtype == new.dtype
            else _changed(origin, lambda one: one._replace(is_cast=True))
            for origin, (old, new) in zip(origins, types, strict=True)
        ]
    follow = _FOLLOWED.get(name)
    if follow is None or not any(origins):
        return [None] * len(results)
    return follow(equation, origins)


def sliced(origin: Source) -> Source:
    """One step's slice along the first axis."""
    if not isinstance(origin, Origin):
        return None
    first, axes = origin.axes[0], origin.axes[1:]
    if isinstance(first, int):
        return origin._replace(axes=axes, taken=(*origin.taken, (first, None)))
    return _dropped(origin, first)._replace(axes=axes)


def mapped(origin: Source) -> Source:
    """The same array with other numbers."""
    return _changed(origin, lambda one: one._replace(is_mapped=True))


def _changed(origin: Source, change: Callable[[Origin], Origin]) -> Source:
    if isinstance(origin, Vector):
        return Vector(tuple((change(part), shape) for part, shape in origin.parts))
    return None if origin is None else change(origin)


def stopped(origin: Source) -> Source:
    """The same array, through which no gradient flows."""
    return origin._replace(is_stopped=True) if isinstance(origin, Origin) else None


def _dropped(origin: Origin, axis: Axis) -> Origin:
    """With an axis of size 1 taken off."""
    if axis is None:
        return origin
    return origin._replace(taken=(*origin.taken, axis if isinstance(axis, tuple) else (axis, 0)))


def _transpose(equation: JaxprEqn, origins: list[Source]) -> list[Source]:
    (origin,), order = origins, equation.params.get("permutation")
    if order is None or not isinstance(origin, Origin):
        return [origin if order is not None and len(order) == 1 else None]
    return [origin._replace(axes=tuple(origin.axes[axis] for axis in order))]


def _squeeze(equation: JaxprEqn, origins: list[Source]) -> list[Source]:
    (origin,), gone = origins, equation.params.get("dimensions")
    if gone is None or not isinstance(origin, Origin):
        return [None]
    for axis in gone:
        origin = _dropped(origin, origin.axes[axis])
    kept = tuple(entry for axis, entry in enumerate(origin.axes) if axis not in gone)
    return [origin._replace(axes=kept)]


def _broadcast(equation: JaxprEqn, origins: list[Source]) -> list[Source]:
    origin, places = origins[0], equation.params.get("broadcast_dimensions")
    shape, old = array_type(equation.outvars[0]).shape, array_type(equation.invars[0]).shape
    if places is None or not isinstance(origin, Origin) or math.prod(shape) != math.prod(old):
        return [None]
    axes: list[Axis] = [None] * len(shape)
    for entry, place in zip(origin.axes, places, strict=True):
        axes[place] = entry
    return [origin._replace(axes=tuple(axes))]


def _reshape(equation: JaxprEqn, origins: list[Source]) -> list[Source]:
    origin, shape = origins[0], array_type(equation.outvars[0]).shape
    if isinstance(origin, Vector):
        return [_whole(origin) if [part for _, part in origin.parts] == [shape] else None]
    if origin is None:
        return [None]
    old = array_type(equation.invars[0]).shape
    if len(shape) == 1 and origin.axes == tuple(range(len(old))) and not origin.taken:
        return [Vector(((origin, old),))]
    if [size for size in old if size != 1] != [size for size in shape if size != 1]:
        return [None]
    # Axes of size 1 come and go; all others keep their order.
    left = iter([entry for entry, size in zip(origin.axes, old, strict=True) if size != 1])
    for entry, size in zip(origin.axes, old, strict=True):
        origin = _dropped(origin, entry) if size == 1 else origin
    return [origin._replace(axes=tuple(None if size == 1 else next(left) for size in shape))]


def _whole(vector: Vector) -> Origin:
    """The one parameter of a vector, as it was."""
    return vector.parts[0][0]


def _as_vector(origin: Source, shape: tuple[int, ...]) -> Vector | None:
    """A parameter of rank 1 as a vector."""
    if isinstance(origin, Origin) and origin.axes == (0,) and not origin.taken:
        return Vector(((origin, shape),))
    return origin if isinstance(origin, Vector) else None


def _concatenate(equation: JaxprEqn, origins: list[Source]) -> list[Source]:
    shapes = [array_type(atom).shape for atom in equation.invars]
    vectors = [_as_vector(origin, shape) for origin, shape in zip(origins, shapes, strict=True)]
    known = [vector for vector in vectors if vector is not None]
    if len(known) != len(vectors) or len(array_type(equation.outvars[0]).shape) != 1:
        return [None]
    return [Vector(tuple(part for vector in known for part in vector.parts))]


def _split(equation: JaxprEqn, origins: list[Source]) -> list[Source]:
    old, axis = array_type(equation.invars[0]).shape, equation.params.get("axis")
    if axis is None:
        return [None] * len(equation.outvars)
    parts, start = [], 0
    for var in equation.outvars:
        sizes = array_type(var).shape
        starts = [start if place == axis else 0 for place in range(len(old))]
        parts.append(_part(origins[0], starts, sizes, old))
        start += sizes[axis]
    return parts


def _cut(vector: Source, start: int, end: int) -> Source:
    """Whole parameters cut out of a vector."""
    if not isinstance(vector, Vector):
        return None
    parts, place, size = [], 0, 0
    for part in vector.parts:
        entries = math.prod(part[1])
        if start <= place and place + entries <= end:
            parts.append(part)
            size += entries
        place += entries
    if size != end - start or not parts:
        return None
    cut = Vector(tuple(parts))
    return _whole(cut) if [len(shape) for _, shape in parts] == [1] else cut


def _slice(equation: JaxprEqn, origins: list[Source]) -> list[Source]:
    starts = equation.params.get("start_indices")
    sizes = array_type(equation.outvars[0]).shape
    return [_part(origins[0], starts, sizes, array_type(equation.invars[0]).shape)]


def _dynamic_slice(equation: JaxprEqn, origins: list[Source]) -> list[Source]:
    indices = equation.invars[1:]
    values = [int(index.val) for index in indices if isinstance(index, Literal)]
    starts = values if len(values) == len(indices) else None
    sizes = array_type(equation.outvars[0]).shape
    return [_part(origins[0], starts, sizes, array_type(equation.invars[0]).shape)]


def _part(
    origin: Source, starts: Sequence[int] | None, sizes: tuple[int, ...], old: tuple[int, ...]
) -> Source:
    if isinstance(origin, Vector) and starts is not None:
        return _cut(origin, starts[0], starts[0] + sizes[0])
    if not isinstance(origin, Origin) or starts is None:
        return origin if isinstance(origin, Origin) and sizes == old else None
    axes = list(origin.axes)
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        if size == old[axis]:
            continue
        whole = axes[axis]
        if size != 1 or not isinstance(whole, int):
            return None
        axes[axis] = (whole, start)
    return origin._replace(axes=tuple(axes))


def _unstack(equation: JaxprEqn, origins: list[Source]) -> list[Source]:
    origin, axis = origins[0], equation.params.get("axis")
    if axis is None or not isinstance(origin, Origin) or not isinstance(origin.axes[axis], int):
        return [None] * len(equation.outvars)
    kept = (*origin.axes[:axis], *origin.axes[axis + 1 :])
    return [
        origin._replace(axes=kept, taken=(*origin.taken, (origin.axes[axis], place)))
        for place in range(len(equation.outvars))
    ]


_FOLLOWED: dict[str, Callable[[JaxprEqn, list[Source]], list[Source]]] = {
    "transpose": _transpose,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "concatenate": _concatenate,
    "split": _split,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "unstack": _unstack,
}
