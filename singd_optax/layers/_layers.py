"""The immutable mapping of all Kronecker layers of a model."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from singd_optax._types import PyTree
from singd_optax._validate import check_pattern, near
from singd_optax.layers._spec import LayerSpec, parse_options
from singd_optax.layers._table import render_table


class OtherParameter(NamedTuple):
    """A parameter that is not part of a Kronecker layer, and why."""

    path: str
    shape: tuple[int, ...]
    reason: str


@dataclasses.dataclass(frozen=True, repr=False)
class Layers(Mapping[str, LayerSpec]):
    """Which parameters are Kronecker layers, and how each is treated: static and hashable.

    Made by ``find_layers``. A mapping from paths to ``LayerSpec``; printed, a table of every
    parameter of the model. Nothing in it is an array, so it may be closed over or be a static
    argument of a jitted function.

    Attributes:
      specs: The Kronecker layers, in the order of the params tree: ``LayerSpec``s, or
        ``MatrixSpec``s from ``find_matrices``.
      others: All other parameters, each with the reason why it is none.
    """

    specs: tuple[LayerSpec, ...]
    others: tuple[OtherParameter, ...] = ()

    def __getitem__(self, path: str) -> LayerSpec:
        """The layer at this path."""
        for spec in self.specs:
            if spec.path == path:
                return spec
        raise KeyError(f"No Kronecker layer at {path!r}; there are {list(self)}.")

    def __iter__(self) -> Iterator[str]:
        """The paths."""
        return (spec.path for spec in self.specs)

    def __len__(self) -> int:
        """The number of Kronecker layers; a stack counts once."""
        return len(self.specs)

    @property
    def coverage(self) -> float:
        """The share of all entries of parameters that are in Kronecker layers, from 0 to 1."""
        shapes = {path: shape for spec in self.specs for path, shape in spec.shapes.items()}
        inside = sum(map(math.prod, shapes.values()))
        outside = sum(math.prod(other.shape) for other in self.others)
        return inside / max(inside + outside, 1)

    def __repr__(self) -> str:
        """A table: the layers with their factors, then all other parameters with the reason."""
        return str(render_table(self.specs, self.others))

    def _repr_html_(self) -> str:
        return render_table(self.specs, self.others)._repr_html_()

    def replace(self, pattern: str, **options: PyTree) -> "Layers":
        """A copy in which the layers whose path matches have other options.

        Args:
          pattern: A regular expression, searched in each path ("head" matches "decoder/head").
          **options: ``structures`` (one, or the pair for K and C), ``kfac_approx``,
            ``loss_average``, ``factor_dtype`` (one, or the pair), ``curvature_fraction``.

        Returns:
          The changed layers.

        Raises:
          ValueError: No path matches, the pattern is no regular expression, or an option or its
            value is not legal.
          TypeError: The pattern, or the value of an option, is of another type.
        """
        check_pattern("pattern", pattern)
        parse_options("float32", **options)  # a wrong option is wrong whatever the pattern matches
        matches = self._matcher(pattern)
        return dataclasses.replace(
            self,
            specs=tuple(
                spec.with_options(**options) if matches(spec) else spec for spec in self.specs
            ),
        )

    def without(self, pattern: str) -> "Layers":
        """A copy in which the layers whose path matches are left to the fallback.

        Args:
          pattern: A regular expression, searched in each path.

        Returns:
          The layers that are left.

        Raises:
          ValueError: No path matches, the pattern is no regular expression, or no layer would be
            left.
          TypeError: The pattern is of another type.
        """
        matches = self._matcher(pattern)
        kept = tuple(spec for spec in self.specs if not matches(spec))
        if not kept:
            raise ValueError(
                f"without({pattern!r}) leaves no Kronecker layer. Use the fallback optimizer "
                "alone, or a narrower pattern."
            )
        excluded = []
        for spec in filter(matches, self.specs):
            reason = f"excluded by without({getattr(pattern, 'pattern', pattern)!r})"
            excluded += [OtherParameter(path, shape, reason) for path, shape in spec.shapes.items()]
        return dataclasses.replace(
            self, specs=kept, others=tuple(sorted((*self.others, *excluded)))
        )

    def _matcher(self, pattern: str) -> Callable[[LayerSpec], bool]:
        compiled = check_pattern("pattern", pattern)
        if not any(compiled.search(path) for path in self):
            raise ValueError(
                f"No layer's path matches {pattern!r}.{near(pattern, self)} Paths: {list(self)}."
            )
        return lambda spec: compiled.search(spec.path) is not None
