"""Rules whose refresh is one of all parameters at once."""

import abc
import dataclasses
from collections.abc import Mapping

import jax

from singd_optax._types import PyTree
from singd_optax.layers import MatrixView
from singd_optax.measures import Statistics
from singd_optax.rules._rule import Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointRule(Rule):
    """A rule that says how all parameters are refreshed, as it batches or couples them.

    Sub-classes write ``refresh_all``; ``refresh`` of one parameter is that of a mapping of one.
    """

    def refresh(
        self,
        view: MatrixView,
        state: PyTree,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[PyTree, jax.Array | bool]:
        """``refresh_all`` of one parameter."""
        path = view.path
        return self.refresh_all(
            {path: view}, {path: state}, {path: statistics}, {path: gradient}, count, key
        )[path]

    @abc.abstractmethod
    def refresh_all(
        self,
        views: Mapping[str, MatrixView],
        states: Mapping[str, PyTree],
        statistics: Mapping[str, Statistics | None],
        gradients: Mapping[str, jax.Array],
        count: jax.Array,
        key: jax.Array,
    ) -> dict[str, tuple[PyTree, jax.Array | bool]]:
        """See ``Rule.refresh_all``."""
