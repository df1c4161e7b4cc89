"""Rules that refresh all parameters at once."""

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
    """The base of rules that refresh all parameters at once, to batch or to couple them.

    Sub-classes write ``refresh_all``. ``refresh`` calls it with one parameter.
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
        """Call ``refresh_all`` with this parameter alone."""
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
        """Refresh all parameters, see ``Rule.refresh_all``."""
