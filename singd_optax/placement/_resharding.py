"""From one partition of an array to another, one mesh axis at a time.

The compiler turns a constraint that moves a mesh axis from one axis of the array to another
into an all-to-all. Asked for several at once, it may gather the whole array on each device.
"""

import functools
import math
from collections import deque
from collections.abc import Iterator

from singd_optax.placement._splits import MeshAxes, Split


@functools.lru_cache(maxsize=4096)
def steps(
    shape: tuple[int, ...], start: Split, goal: Split, sizes: tuple[tuple[str, int], ...]
) -> tuple[Split, ...]:
    """The shortest way over partitions that divide the array; ends with ``goal``.

    Args:
      shape: The shape of the array.
      start: For each axis of the array the mesh axes that it is split over, major first.
      goal: The split that is wanted.
      sizes: (Mesh axis, size).

    >>> steps((12, 64, 64), ((), ("a", "b"), ()), (("a",), ("b",), ()), (("a", 4), ("b", 4)))
    (((), ('a',), ('b',)), (('a',), (), ('b',)), (('a',), ('b',), ()))
    """
    size = dict(sizes)
    wanted = {axis for axes in goal for axis in axes}
    before: dict[Split, Split | None] = {start: None}
    queue = deque([start])
    while queue and goal not in before:
        here = queue.popleft()
        for there in _neighbours(here, wanted, tuple(size)):
            divides = all(
                n % math.prod(size[axis] for axis in axes) == 0
                for n, axes in zip(shape, there, strict=True)
            )
            if there not in before and divides:
                before[there] = here
                queue.append(there)
    if goal not in before:
        return (goal,)
    way = [goal]
    while (last := before[way[-1]]) is not None:
        way.append(last)
    return tuple(reversed(way[:-1]))


def _neighbours(here: Split, wanted: set[str], names: MeshAxes) -> Iterator[Split]:
    used = {axis for axes in here for axis in axes}
    for source, axes in enumerate(here):
        if not axes:
            continue
        moved = axes[-1]
        without = _with(here, source, axes[:-1])
        for target in range(len(here)):
            if target != source and moved in wanted:
                yield _with(without, target, (*here[target], moved))
        if moved not in wanted:
            yield without
    for name in names:
        if name in wanted and name not in used:
            for target, axes in enumerate(here):
                yield _with(here, target, (*axes, name))


def _with(split: Split, place: int, axes: MeshAxes) -> Split:
    return (*split[:place], axes, *split[place + 1 :])
