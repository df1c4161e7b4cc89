"""What calls of layers were heard to do, on the host."""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from singd_optax._types import PyTree
from singd_optax.layers import LayerSpec
from singd_optax.layers._operation import Operation
from singd_optax.testing._explicit_moments import moments
from singd_optax.testing._explicit_rows import output_rows, product, squared_norms


class Site(NamedTuple):
    """A call in a trace; static.

    Attributes:
      number: Which one it is.
      spec: The layer.
      operation: The product.
      transposed: Whether it uses the kernel as its transpose.
    """

    number: int
    spec: LayerSpec
    operation: Operation
    transposed: bool


@dataclasses.dataclass
class Sums:
    """Of all calls of one layer, or of one layer in a stack.

    Attributes:
      calls: How many there were.
      sides: For uses of the kernel as it is, and as its transpose: the matrices on the sides of K
        and C, and their traces; None where there were none.
      squares: Σ |a|² |g|².
      kernels: Those that multiplied, for layers in a stack.
    """

    calls: int = 0
    sides: dict[bool, tuple[PyTree, ...]] = dataclasses.field(default_factory=dict)
    squares: float = 0.0
    kernels: list[np.ndarray] = dataclasses.field(default_factory=list)


class Heard:
    """Collects what calls send.

    Attributes:
      eps: The rounding of the coarsest dtype that a layer computes in, by path.
      nested: Layers through which the loss takes derivatives, by path.
      is_quiet: Whether calls hand zeros back instead of Σ a gᵀ.
    """

    def __init__(self, is_quiet: bool = False) -> None:
        """Nothing was heard."""
        self.eps: dict[str, float] = {}
        self.nested: set[str] = set()
        self.is_quiet = is_quiet
        self._sites = itertools.count()
        self._found: dict[tuple[int, int], dict[tuple[str, int], Sums]] = defaultdict(dict)

    def site(self, spec: LayerSpec, operation: Operation, transposed: bool) -> Site:
        """A new call in a trace."""
        return Site(next(self._sites), spec, operation, transposed)

    def sums(self) -> dict[tuple[str, int], Sums]:
        """By path and place in the stack.

        Where the loss takes derivatives, their own backward passes go through a call, too: what
        counts is the outermost one.
        """
        levels: dict[int, int] = {}
        for number, level in self._found:
            levels[number] = max(level, levels.get(number, 0))
        total: dict[tuple[str, int], Sums] = defaultdict(Sums)
        for number, level in levels.items():
            for key, sums in self._found[number, level].items():
                _add(total[key], sums)
        return total

    @np.errstate(all="ignore")  # what is not finite is told at the end
    def hear(
        self,
        site: Site,
        level: int,
        kernel: np.ndarray,
        index: np.ndarray,
        *data: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take one call in, whose arrays have a leading axis for each ``vmap`` around it.

        Args:
          site: The call.
          level: How many derivatives were taken inside of this one.
          kernel: That multiplied.
          index: Its place in the stack, a scalar without ``vmap``.
          *data: The inputs, the gradient of the outputs, and weights of positions, if there are
            any.

        Returns:
          Σ a gᵀ, (kernel batch, inputs, outputs), and Σ g, (kernel batch, outputs).
        """
        rank = index.ndim
        sizes = [array.shape[:rank] for array in (kernel, index, *data)]
        lanes = tuple(max(along) for along in zip(*sizes, strict=True))
        full = [np.broadcast_to(array, lanes + array.shape[rank:]) for array in data]

        for place, parts in _slices(full, index.shape, lanes):
            self._add(site, level, kernel, int(index[place]), place, parts)
        outcome: list[tuple[PyTree, ...]] = []
        for place, parts in _slices(full, kernel.shape[:rank], lanes):
            columns = output_rows(site.operation, parts[1])
            outcome.append((place, product(site.operation, *parts[:2]), columns.sum((1, 2))))
        # Lanes that share a kernel are summed over by whoever asked: one of them has all of it.
        results = tuple(np.zeros(lanes + part.shape) for part in outcome[0][1:])
        for place, *sums in outcome:
            for result, part in zip(results, sums, strict=True):
                result[place] = 0 if self.is_quiet else part
        return results[0], results[1]

    def _add(
        self,
        site: Site,
        level: int,
        kernel: np.ndarray,
        index: int,
        place: tuple[int, ...],
        parts: list[np.ndarray],
    ) -> None:
        spec, operation = site.spec, site.operation
        inputs, gradient = parts[:2]
        weights = parts[2] if len(parts) > 2 else None
        pair = moments(spec, operation, inputs, gradient, weights, site.transposed)
        new = Sums(
            calls=1,
            sides={
                site.transposed: tuple(part for side in pair for part in (side.matrix, side.trace))
            },
            squares=squared_norms(operation, inputs, gradient).sum(),
        )
        if spec.scan_shape and not spec.is_mapped:
            own = tuple(min(i, n - 1) for i, n in zip(place, kernel.shape, strict=False))
            new.kernels.append(np.sort(kernel[own].reshape(-1)))
        _add(self._found[site.number, level].setdefault((spec.path, index), Sums()), new)


def _add(total: Sums, new: Sums) -> None:
    total.calls += new.calls
    total.squares += new.squares
    for transposed, sides in new.sides.items():
        old = total.sides.get(transposed)
        pairs = zip(sides, old or sides, strict=True)
        total.sides[transposed] = tuple(a + b for a, b in pairs) if old else sides
    for kernel in new.kernels:
        if not any(np.array_equal(kernel, one) for one in total.kernels):
            total.kernels.append(kernel)


def _slices(
    data: list[np.ndarray], own: tuple[int, ...], lanes: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], list[np.ndarray]]]:
    """The lanes that are separate, each with all others as leading axes of its data.

    Args:
      data: Arrays with all lanes.
      own: The lanes of an array that has size 1 where lanes are none of its own.
      lanes: Their sizes.
    """
    separate = [axis for axis, size in enumerate(own) if size > 1]
    for place in itertools.product(*(range(lanes[axis]) for axis in separate)):
        at: list[PyTree] = [slice(None)] * len(lanes)
        first = [0] * len(lanes)
        for axis, i in zip(separate, place, strict=True):
            at[axis] = first[axis] = i
        yield tuple(first), [array[tuple(at)] for array in data]
