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
    """A parameter that is not part of a Kronecker layer, and why.

    Attributes:
      path: The keys that lead to the parameter, joined by slashes.
      shape: The parameter's shape.
      reason: Why it is in no Kronecker layer, in a few words.
    """

    path: str
    shape: tuple[int, ...]
    reason: str


@dataclasses.dataclass(frozen=True, repr=False)
class Layers(Mapping[str, LayerSpec]):
    """Which parameters are Kronecker layers, and how each is treated: static and hashable.

    A Kronecker layer is a kernel that multiplies its inputs, with its bias. ``find_layers`` makes
    this mapping from paths to ``LayerSpec``; printed, it is a table of every parameter of the
    model. Nothing in it is an array, so it may be closed over or be a static argument of a jitted
    function.

    Attributes:
      specs: The Kronecker layers, in the order of the params tree: ``LayerSpec``s, or
        ``MatrixSpec``s from ``find_matrices``.
      others: All other parameters, each with the reason why it is in no layer.
    """

    specs: tuple[LayerSpec, ...]
    others: tuple[OtherParameter, ...] = ()

    def __getitem__(self, path: str) -> LayerSpec:
        """The layer at this path; a KeyError names the paths that there are."""
        for spec in self.specs:
            if spec.path == path:
                return spec
        raise KeyError(f"There is no Kronecker layer at {path!r}, only at {list(self)}.")

    def __iter__(self) -> Iterator[str]:
        """The paths of the Kronecker layers, in the order of ``specs``."""
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
          **options: ``structures`` (one for both factors, or the pair for K and C),
            ``kfac_approx``, ``loss_average``, ``factor_dtype`` (one, or the pair) and
            ``curvature_fraction``, as ``find_layers`` takes them; of matrices from
            ``find_matrices``, ``structures`` and ``factor_dtype``.

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

        The fallback is the optimizer of all parameters that are in no layer.

        Args:
          pattern: A regular expression, searched in each path ("head" matches "decoder/head").

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
                f"without({pattern!r}) leaves no Kronecker layer, as the pattern matches all of "
                f"{list(self)}. Write a narrower pattern, or use the fallback optimizer alone."
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
                f"`pattern` must match the path of a layer, got {pattern!r}."
                f"{near(pattern, self)} The paths are {list(self)}."
            )
        return lambda spec: compiled.search(spec.path) is not None
