"""What ``value_and_grad`` measured, and in which step."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from singd_optax.layers._exchange import Statistics


@jax.tree_util.register_pytree_with_keys_class
class Curvature(dict[str, Statistics]):
    """Path of a layer -> its statistics: a dict, which also knows the step it was measured in.

    Statistics of another step than the one whose gradients they come with would be taken for
    this step's in silence. So each layer's count of updates travels along, as an int32 leaf.
    Sums, means and casts of whole curvature trees are legal: ``is_stale`` is true of older
    statistics only.

    Attributes:
      counts: Path of a layer -> the ``curvature_count`` of the state it was measured with.

    >>> curvature = Curvature({}, {"head": jnp.int32(3)})
    >>> [bool(curvature.is_stale("head", jnp.int32(count))) for count in (3, 4)]
    [False, True]
    """

    def __init__(
        self, statistics: Mapping[str, Statistics], counts: Mapping[str, jax.Array] | None = None
    ):
        """A dict of statistics.

        Args:
          statistics: Path of a layer -> its statistics.
          counts: Path of a layer -> the count of its state; a layer without one is never stale.
        """
        super().__init__(statistics)
        self.counts = dict(counts or {})

    def is_stale(self, path: str, count: jax.Array) -> jax.Array:
        """Whether the statistics of a layer were measured before the update with this count."""
        measured = self.counts.get(path)
        if measured is None or jnp.result_type(measured) != jnp.result_type(count):
            return jnp.asarray(False)
        return jnp.any(measured < count)

    def tree_flatten_with_keys(self) -> tuple[Iterable[tuple[Any, Any]], Any]:
        """The statistics by path, then the counts."""
        paths = tuple(sorted(self))
        children = [(jax.tree_util.DictKey(path), self[path]) for path in paths]
        return (*children, (jax.tree_util.GetAttrKey("counts"), self.counts)), paths

    @classmethod
    def tree_unflatten(cls, paths: tuple[str, ...], children: Iterable[Any]) -> "Curvature":
        """The inverse of ``tree_flatten_with_keys``."""
        *statistics, counts = children
        curvature = cls(dict(zip(paths, statistics, strict=True)))
        curvature.counts = counts
        return curvature
