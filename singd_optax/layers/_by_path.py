"""What belongs to layers, by their paths; that of equal layers in one stack."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import flax.serialization
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from singd_optax._types import PyTree

#: Paths of equal layers, in the order of their stack; a layer of its own is in no stack.
Groups = tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class _Static:
    """What is no array: groups, and the ranks of their arrays, which do not tell trees apart."""

    groups: Groups
    ranks: tuple[tuple[int, ...], ...] = dataclasses.field(compare=False)


@jax.tree_util.register_pytree_with_keys_class
class ByPath(Mapping[str, PyTree]):
    """A mapping from paths whose arrays are those of groups: as a mapping it reads like a dict.

    A step then does for a group at once what it would do for each layer, and its program does not
    grow with their number. Leaves are the stacked arrays, so that nothing is cut or put together on
    the way through ``jax.jit``; a look at one path takes its slice.

    Attributes:
      groups: The paths of each group.
      stacks: What belongs to each group, arrays with the axis of the stack first; without that axis
        for a group of one.

    >>> kept = ByPath((("a", "b"), ("c",)), (jnp.array([1.0, 2.0]), jnp.array(3.0)))
    >>> {path: float(number) for path, number in kept.items()}
    {'a': 1.0, 'b': 2.0, 'c': 3.0}
    >>> [leaf.shape for leaf in jax.tree.leaves(kept)]
    [(2,), ()]
    """

    groups: Groups
    stacks: tuple[PyTree, ...]

    def __init__(
        self,
        groups: Groups,
        stacks: tuple[PyTree, ...],
        ranks: tuple[tuple[int, ...], ...] | None = None,
    ):
        """Take what is stacked.

        Args:
          groups: The paths of each group.
          stacks: What belongs to each group, as the class says.
          ranks: How many axes each array of each group has, where it is of one optimizer: under
            ``jax.vmap`` over optimizers, seen from outside, there are more, in front.
        """
        self.groups, self.stacks = groups, stacks
        self._ranks = tuple(map(_ranks, stacks)) if ranks is None else ranks

    @functools.cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        """Only when it is asked for: a step takes the tree apart, and puts it together again."""
        return {
            path: (group, index)
            for group, paths in enumerate(self.groups)
            for index, path in enumerate(paths)
        }

    @classmethod
    def each(cls, parts: Mapping[str, PyTree]) -> "ByPath":
        """All of them apart."""
        return (
            parts if isinstance(parts, cls) else cls.of({(p,): part for p, part in parts.items()})
        )

    @classmethod
    def of(cls, stacks: Mapping[tuple[str, ...], PyTree]) -> "ByPath":
        """What belongs to each group."""
        return cls(tuple(stacks), tuple(stacks.values()))

    def __getitem__(self, path: str) -> PyTree:
        """What belongs to a layer."""
        group, index = self._places[path]
        if len(self.groups[group]) == 1:
            return self.stacks[group]
        leaves, treedef = jax.tree.flatten(self.stacks[group])
        ranks = self._ranks[group]
        ranks = ranks if len(ranks) == len(leaves) else _ranks(self.stacks[group])
        cut = [_slice(leaf, rank, index) for leaf, rank in zip(leaves, ranks, strict=True)]
        return jax.tree.unflatten(treedef, cut)

    def __iter__(self) -> Iterator[str]:
        """Paths in their order, as those of a dict after ``jax.tree.map``."""
        return iter(sorted(self._places))

    def __len__(self) -> int:
        """How many layers there are."""
        return len(self._places)

    def __repr__(self) -> str:
        """Groups with what they have."""
        return f"ByPath({dict(zip(self.groups, self.stacks, strict=True))!r})"

    def __or__(self, other: Mapping[str, PyTree]) -> Mapping[str, PyTree]:
        """As of dicts: a mapping with some parts exchanged, in the same stacks."""
        parts = dict(self) | dict(other)
        return ByPath.each(parts).like(self if parts.keys() == set(self) else parts)

    def mapped(self, function: Callable[[tuple[str, ...], PyTree], PyTree]) -> "ByPath":
        """The same groups, with what a function makes of their paths and stacks."""
        return ByPath(self.groups, tuple(map(function, self.groups, self.stacks)), self._ranks)

    def of_group(self, group: tuple[str, ...]) -> PyTree:
        """What belongs to a group, also to one that is not a group here."""
        if group in self.groups:
            return self.stacks[self.groups.index(group)]
        if len(group) == 1:
            return self[group[0]]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(self[path] for path in group))

    def like(self, other: Mapping[str, PyTree]) -> Mapping[str, PyTree]:
        """The same, in the groups of another mapping of these paths, or as a dict if that is one.

        So a state keeps its form from step to step, also one that was put together by hand.
        """
        if not isinstance(other, ByPath):
            return dict(self)
        if other.groups == self.groups:
            return self
        return ByPath(other.groups, tuple(map(self.of_group, other.groups)))

    def place(self, path: str) -> tuple[PyTree, int | None]:
        """The stack that has what belongs to a layer, and where; None for a layer of its own."""
        group, index = self._places[path]
        return self.stacks[group], index if len(self.groups[group]) > 1 else None

    def tree_flatten_with_keys(self) -> tuple[PyTree, PyTree]:
        """Children by the first path of each group."""
        keys = [jax.tree_util.DictKey(paths[0]) for paths in self.groups]
        return tuple(zip(keys, self.stacks, strict=True)), _Static(self.groups, self._ranks)

    def tree_flatten(self) -> tuple[tuple[PyTree, ...], PyTree]:
        """The same, without keys."""
        return self.stacks, _Static(self.groups, self._ranks)

    @classmethod
    def tree_unflatten(cls, static: _Static, stacks: tuple[PyTree, ...]) -> "ByPath":
        """The inverse."""
        return cls(static.groups, tuple(stacks), static.ranks)


def _ranks(stack: PyTree) -> tuple[int, ...]:
    return tuple(len(getattr(leaf, "shape", ())) for leaf in jax.tree.leaves(stack))


def _slice(leaf: PyTree, rank: int, index: int) -> PyTree:
    if isinstance(leaf, NamedSharding):
        return NamedSharding(leaf.mesh, PartitionSpec(*leaf.spec[1:]))
    axis = len(getattr(leaf, "shape", ())) - rank
    if axis < 0 or not hasattr(leaf, "shape"):
        return leaf  # no array any more, or one number for all
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape[:axis] + leaf.shape[axis + 1 :], leaf.dtype)
    return leaf[(slice(None),) * axis + (index,)]


def _to_state_dict(kept: ByPath) -> dict[str, PyTree]:
    return {path: flax.serialization.to_state_dict(part) for path, part in kept.items()}


def _from_state_dict(target: ByPath, state: Mapping[str, PyTree]) -> ByPath:
    """By path, so that a file does not depend on which layers are in one stack."""
    if set(state) != set(target):
        raise ValueError(
            f"The checkpoint is of the layers {sorted(state)}, and this optimizer is of "
            f"{sorted(target)}. Use the optimizer that wrote it, or a new state from "
            "tx.init(params)."
        )
    parts = ByPath.each(
        {path: flax.serialization.from_state_dict(target[path], state[path]) for path in target}
    )
    return target.mapped(lambda group, _: parts.of_group(group))


flax.serialization.register_serialization_state(ByPath, _to_state_dict, _from_state_dict)
