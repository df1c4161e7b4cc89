"""Refreshes of a share of the matrices on each step, in place of all of them on every tenth."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp

from singd_optax.layers import MatrixView, Window
from singd_optax.placement import OneDevice, Placement
from singd_optax.rules import Interval, Rule
from singd_optax.structures import Structure
from singd_optax.transforms._interval import interval_at
from singd_optax.transforms._refreshing import Carry, refreshed

Views = Mapping[str, MatrixView]


@dataclasses.dataclass(frozen=True)
class Share:
    """Some matrices of a stack; itself a ``MatrixView``, of which no parameter is made.

    Attributes:
      of: The stack.
      count: How many.
    """

    of: MatrixView
    count: int

    @property
    def path(self) -> str:
        """That of the stack."""
        return self.of.path

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Those of the stack."""
        return self.of.shapes

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """One axis for all axes of the stack."""
        return (self.count,)

    @property
    def dims(self) -> tuple[int, int]:
        """Of each."""
        return self.of.dims

    @property
    def window(self) -> Window | None:
        """Of each."""
        return self.of.window

    @property
    def structures(self) -> tuple[Structure, Structure]:
        """Of each."""
        return self.of.structures

    @property
    def factor_dtype(self) -> tuple[str, str]:
        """Of each."""
        return self.of.factor_dtype

    @property
    def statistics_dtype(self) -> jnp.dtype:
        """Of each."""
        return self.of.statistics_dtype

    @property
    def placement(self) -> Placement:
        """One device, or they would not be taken apart."""
        return self.of.placement

    @property
    def stacks_with_others(self) -> bool:
        """It is a stack."""
        return False

    def to_matrix(self, *arrays: jax.Array) -> jax.Array:
        """Not of a share."""
        raise NotImplementedError

    def from_matrix(self, matrix: jax.Array) -> tuple[jax.Array, ...]:
        """Not of a share."""
        raise NotImplementedError


def is_any_due(views: Iterable[MatrixView], interval: Interval, count: jax.Array) -> jax.Array:
    """Whether some matrix is due after so many updates."""
    return count % _interval(interval, count) < sum(map(_matrices, views))


def staggered(
    rule: Rule,
    views: Views,
    carry: Carry,
    gradients: Mapping[str, jax.Array],
    finite: Mapping[str, jax.Array],
    interval: Interval,
    count: jax.Array,
    key: jax.Array,
) -> Carry:
    """New states of the matrices that are due.

    On step 0 these are all of them; on a later one the matrix number j, in the order of views and
    of each one's stack, is due if (count - j) % T = 0. They are taken out of each stack in shares
    of so many as one step needs in the long run; so the program has the refresh of one share of
    each view, whatever the interval and the number of matrices.

    A view on a mesh, whose stack is spread over devices, is refreshed as a whole, as one matrix.

    Args:
      rule: One that needs no statistics.
      views: By path.
      carry: What there is.
      gradients: By path.
      finite: Whether they are, likewise.
      interval: T.
      count: Updates made before this one.
      key: Of random bits.
    """
    steps = _interval(interval, count)
    parts, before = [], 0
    for number, (path, view) in enumerate(views.items()):
        own = Carry(*({path: part[path]} for part in carry))
        size = _matrices(view)
        first = (count - before) % steps
        before += size
        of_view = jax.random.fold_in(key, number)
        arguments = rule, view, own, gradients[path], finite[path], count, of_view
        if size == 1:
            refresh = _whole(*arguments)
            parts.append(jax.lax.cond(first == 0, refresh, lambda same: same, own))
        else:
            parts.append(_in_shares(*arguments, first, steps, _share(size, interval)))
    joined = zip(*parts, strict=True)
    return Carry(*({p: part for own in each for p, part in own.items()} for each in joined))


def _whole(
    rule: Rule,
    view: MatrixView,
    own: Carry,
    gradient: jax.Array,
    finite: jax.Array,
    count: jax.Array,
    key: jax.Array,
) -> Callable[[Carry], Carry]:
    path = view.path
    return lambda own: refreshed(
        rule, {path: view}, own, {}, {path: gradient}, {path: finite}, count, key
    )


def _in_shares(
    rule: Rule,
    view: MatrixView,
    own: Carry,
    gradients: jax.Array,
    finite: jax.Array,
    count: jax.Array,
    key: jax.Array,
    first: jax.Array,
    steps: jax.Array,
    share: int,
) -> Carry:
    """The stack after the refresh of its matrices first, first + steps, ..., a share in a turn."""
    size, axes = _matrices(view), len(view.stack_shape)
    flat = lambda leaf: leaf.reshape(size, *leaf.shape[axes:])
    stacks = jax.tree.map(flat, own)
    fixed = jax.tree.map(flat, (gradients, finite))
    due = (size - first + steps - 1) // steps

    def turn(index: jax.Array, stacks: Carry) -> Carry:
        chosen = first + steps * (index * share + jnp.arange(share, dtype=first.dtype))
        take = lambda stack: jnp.take(stack, chosen, axis=0, mode="clip")
        some, (gradient, whole) = jax.tree.map(take, (stacks, fixed))
        arguments = rule, Share(view, share), some, gradient, whole, count
        new = _whole(*arguments, jax.random.fold_in(key, index))(some)
        put = lambda stack, part: stack.at[chosen].set(part, mode="drop", unique_indices=True)
        return jax.tree.map(put, stacks, new)

    stacks = jax.lax.fori_loop(0, -(-due // share), turn, stacks)
    return jax.tree.map(lambda leaf, like: leaf.reshape(like.shape), stacks, own)


def _matrices(view: MatrixView) -> int:
    """How many there are to be refreshed apart."""
    return math.prod(view.stack_shape) if view.placement == OneDevice() else 1


def _interval(interval: Interval, count: jax.Array) -> jax.Array:
    """T, and 1 on step 0."""
    return jnp.where(count == 0, 1, interval_at(interval, count))


def _share(size: int, interval: Interval) -> int:
    """How many of so many matrices are due at once in the long run; 1 where it is not known."""
    late = interval if isinstance(interval, int) else getattr(interval, "late", size)
    return -(-size // late)
