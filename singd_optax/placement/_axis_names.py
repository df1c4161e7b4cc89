"""Partitions of parameters whose axes have names, by the user's rules."""

from collections.abc import Iterable, Mapping, Sequence

from jax.sharding import PartitionSpec

#: A mesh axis, several, or none.
SplitOver = str | Sequence[str] | None

#: Pairs of a logical name and what an axis of this name is split over.
Rules = Iterable[tuple[str, SplitOver]]


def partition_of_names(
    names: Sequence[str | None], sizes: Mapping[str, int], rules: Rules | None
) -> PartitionSpec:
    """The partition of an array whose axes have these names.

    Args:
      names: The names of the array's axes, None for one that is not split.
      sizes: A dict from the name of a mesh axis to its size.
      rules: Pairs of a logical name and a mesh axis, a tuple of several, or None; for each axis the
        first rule of its name counts whose mesh axes are not taken yet. None if the names are those
        of mesh axes.

    Returns:
      The partition.

    Raises:
      ValueError: A name is in no rule, or a rule names an axis that the mesh has not.

    >>> rules = [("embed", "data"), ("mlp", ("model", "data")), ("mlp", "model")]
    >>> partition_of_names(("embed", "mlp"), {"data": 4, "model": 2}, rules)
    P('data', 'model')
    """
    pairs = None if rules is None else list(rules)
    taken: set[str] = set()
    return PartitionSpec(*(_split_of_name(name, pairs, sizes, taken) for name in names))


def _split_of_name(
    name: str | None,
    rules: list[tuple[str, SplitOver]] | None,
    sizes: Mapping[str, int],
    taken: set[str],
) -> SplitOver:
    if name is None:
        return None
    candidates: list[SplitOver] = [name]
    if rules is not None:
        candidates = [axes for rule, axes in rules if rule == name]
    if not candidates:
        raise ValueError(
            f"The axis name {name!r} of a parameter is in no rule, there are only rules for "
            f"{sorted({rule for rule, _ in rules or ()})}. Add ({name!r}, None) if it is not split."
        )
    for axes in candidates:
        several = (axes,) if isinstance(axes, str) else tuple(axes or ())
        unknown = [axis for axis in several if axis not in sizes]
        if unknown:
            raise ValueError(
                f"{name!r} is to be split over {unknown}, but the mesh has the axes "
                f"{list(sizes)}. Pass `rules`, or name axes of the mesh."
            )
        if not taken.intersection(several):
            taken.update(several)
            return axes
    return None
