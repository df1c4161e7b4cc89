"""One step of ``scale_by_rule``: arrays in, arrays out; everything was checked before."""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import optax

from singd_optax._types import PyTree
from singd_optax.layers import MatrixView, RuleState
from singd_optax.layers._by_path import ByPath
from singd_optax.layers._groups import grouped, groups_of
from singd_optax.layers._rule_tag import RuleTag
from singd_optax.measures import Statistics
from singd_optax.rules import Interval, Rule, choose
from singd_optax.structures._numerics import is_finite
from singd_optax.transforms._directions import (
    Arrays,
    as_matrix,
    as_parameters,
    at_factors,
    chains_of,
    directions_of,
)
from singd_optax.transforms._interval import is_due
from singd_optax.transforms._momentum import Momentum
from singd_optax.transforms._refreshing import Carry, all_finite, refreshed, stored, widened
from singd_optax.transforms._sizes import Directions, Size
from singd_optax.transforms._staggering import is_any_due, staggered

Views = Mapping[str, MatrixView]


@dataclasses.dataclass(frozen=True)
class RuleStep:
    """A rule with all that is common to rules.

    Attributes:
      rule: What to do for each matrix.
      momentum: The momentum, of gradients or of updates.
      size: What sets the size of updates, or None.
      refresh_every: The interval between refreshes.
      stagger: Whether each matrix has its own steps for them.
      seed: The seed of random bits.
    """

    rule: Rule
    momentum: Momentum
    size: Size | None
    refresh_every: Interval
    stagger: bool
    seed: int

    @property
    def tag(self) -> RuleTag:
        """What states say of their rule."""
        return RuleTag(self.rule.state_name, self.rule.measures)

    def size_init(self, view: MatrixView) -> PyTree:
        """What is kept to set the size of one parameter's update, or None."""
        return None if self.size is None else self.size.init(view)

    def _due_at(self, stacks: Iterable[MatrixView], count: jax.Array) -> jax.Array:
        if self.stagger:
            return is_any_due(stacks, self.refresh_every, count).astype(jnp.int32)
        return is_due(self.refresh_every, count).astype(jnp.int32)

    def init(self, views: Views, params: PyTree) -> RuleState:
        """The state before the first step."""
        stacks = grouped(views, groups_of(views))
        skipped, in_a_row = (  # two buffers, which can be donated
            ByPath.of(
                {group: jnp.zeros(view.stack_shape, jnp.int32) for group, view in stacks.items()}
            )
            for _ in range(2)
        )
        count = jnp.zeros([], jnp.int32)
        paths = [path for view in views.values() for path in view.shapes]
        leading = {group: stacks[group] for group in stacks if group[0] in chains_of(views)}
        return RuleState(
            rule_count=count,
            refresh_due=self._due_at(stacks.values(), count),
            rule_states=ByPath.of({group: self.rule.init(view) for group, view in stacks.items()}),
            rule_momentum=self.momentum.init(params, paths),
            size_states=ByPath.of({group: self.size_init(leading[group]) for group in leading}),
            skipped_refreshes=skipped,
            skipped_in_a_row=in_a_row,
            places={
                path: jnp.asarray(place, jnp.int32)
                for group in stacks
                for place, path in enumerate(group)
                if len(group) > 1
            },
            rule_tag=self.tag,
        )

    def update(
        self,
        views: Views,
        updates: Arrays,
        state: RuleState,
        statistics: Mapping[str, Statistics],
        is_refresh: bool | None = None,
    ) -> tuple[Arrays, RuleState]:
        """The preconditioned updates, by path of a parameter, and the next state.

        Args:
          views: The parameters, as matrices.
          updates: Their gradients, by path of a parameter.
          state: The last one.
          statistics: By path of a layer; none for a rule without measures.
          is_refresh: Whether this step refreshes; None for what the state says.
        """
        rule, count, places = self.rule, state.rule_count, state.places
        kept = ByPath.each(state.rule_states)
        by_group = grouped(views, kept.groups)
        groups = {group[0]: group for group in by_group}
        views = {group[0]: view for group, view in by_group.items()}

        def stacks(parts: Mapping[str, PyTree]) -> dict[str, PyTree]:
            own = ByPath.each(parts)
            return {path: own.of_group(group) for path, group in groups.items() if path in own}

        def unstacked(parts: Mapping[str, PyTree], like: Mapping[str, PyTree]) -> PyTree:
            return ByPath.of({groups[path]: part for path, part in parts.items()}).like(like)

        key = jax.random.fold_in(jax.random.key(self.seed), count)
        dtypes = {path: leaf.dtype for path, leaf in updates.items()}
        updates = {
            path: array
            for view in views.values()
            for path, array in view.placement.constrained_parameters(
                {path: updates[path] for path in view.shapes}
            ).items()
        }
        chains = chains_of(views)
        leading = {path: views[path] for path in chains}
        gradients = {path: as_matrix(view, updates) for path, view in views.items()}
        finite = {path: is_finite(g, g.ndim - 2) for path, g in gradients.items()}
        vectors, buffer = gradients, state.rule_momentum
        if rule.momentum_of != "update" and buffer is not None:
            if rule.momentum_of == "gradient":
                moved, buffer = self.momentum.of_gradients(buffer, updates)
            else:
                moved, buffer = self.momentum.average(buffer, updates, count)
            vectors = {
                path: view.placement.at_parameters(as_matrix(view, moved))
                for path, view in leading.items()
            }
        states = stacks(kept)
        # A compiler that finds the way by itself has all of a gradient on each device.
        near = {
            path: at_factors(view, states[path], gradients[path]) for path, view in views.items()
        }
        states = self._observed(views, states, near, finite, count, key)

        def refresh(carry: Carry) -> Carry:
            if self.stagger:
                interval = self.refresh_every
                return staggered(rule, views, carry, near, finite, interval, count, key)
            return refreshed(rule, views, carry, statistics, near, finite, count, key)

        def due_refresh(carry: Carry) -> Carry:
            if is_refresh is not None:
                return refresh(carry) if is_refresh else carry
            if self.stagger:  # each stack by itself
                return refresh(carry)
            return jax.lax.cond(state.refresh_due.astype(bool), refresh, lambda x: x, carry)

        carry = Carry(states, stacks(state.skipped_refreshes), stacks(state.skipped_in_a_row))
        carry = due_refresh(carry) if rule.refresh_first else carry
        arguments = rule, views, chains, carry.states, vectors, near, count
        directions, states = directions_of(*arguments)
        carry = carry._replace(states=states)
        carry = carry if rule.refresh_first else due_refresh(carry)
        size, sizes = self.size, stacks(state.size_states)
        averages = rule.momentum_of == "update" and buffer is not None
        if size is None or averages or not size.drops_lost:
            directions = {path: _kept(vectors[path], directions[path]) for path in leading}
        if size is not None and not size.is_last:
            of_step = leading, gradients, vectors, directions, sizes, finite, count
            directions, sizes = size.scaled(Directions(*of_step))
        if averages:
            parts = as_parameters(leading, directions, places)
            moved, buffer = self.momentum.average(buffer, parts, count)
            directions = {path: as_matrix(view, moved) for path, view in leading.items()}
        if size is not None and size.is_last:
            of_step = leading, gradients, vectors, directions, sizes, finite, count
            directions, sizes = size.scaled(Directions(*of_step))
        changed = as_parameters(leading, directions, places)
        next_count = optax.safe_increment(count)
        return {path: leaf.astype(dtypes[path]) for path, leaf in changed.items()}, RuleState(
            rule_count=next_count,
            refresh_due=self._due_at(views.values(), next_count),
            rule_states=unstacked(carry.states, state.rule_states),
            rule_momentum=buffer,
            size_states=unstacked(sizes, state.size_states),
            skipped_refreshes=unstacked(carry.skipped, state.skipped_refreshes),
            skipped_in_a_row=unstacked(carry.in_a_row, state.skipped_in_a_row),
            places=places,
            rule_tag=state.rule_tag,
        )

    def _observed(
        self,
        views: Views,
        states: Mapping[str, PyTree],
        gradients: Arrays,
        finite: Arrays,
        count: jax.Array,
        key: jax.Array,
    ) -> dict[str, PyTree]:
        """The states after one more gradient; ``finite`` is told of squares that overflow."""
        observed = dict(states)
        if not self.rule.observes:
            return observed
        for index, (path, view) in enumerate(views.items()):
            old = observed[path]
            wide = widened(view, old)
            new = self.rule.observe(view, wide, gradients[path], count)
            new = stored(view, wide, new, old, key, len(views) + index)
            finite[path] &= all_finite(new, finite[path].ndim)
            observed[path] = choose(finite[path], new, old)
        return observed


def _kept(vector: jax.Array, direction: jax.Array) -> jax.Array:
    """The direction, or zeros where it overflows for a finite vector.

    A momentum of updates would keep it for ever. What a vector has that is not finite goes on.
    """
    finite = is_finite(direction, direction.ndim - 2)
    return choose(finite, direction, vector * 0)
