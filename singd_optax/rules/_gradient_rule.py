"""The contract of rules that see gradients only."""

import abc
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from singd_optax.layers import Factors, MatrixSpec


class GradientRule(abc.ABC):
    """How a Kronecker-factored method treats one matrix-shaped parameter, from gradients alone.

    The counterpart of ``Rule`` for methods that need neither a model nor its layers. Pure; no
    params trees. Sub-classes are frozen, keyword-only dataclasses of hyper-parameters. Gradients
    are (*stack_shape, rows, columns), float32 or float64; the matrices of a stack are separate
    throughout. The factor K belongs to the rows, C to the columns.
    """

    @abc.abstractmethod
    def init(self, spec: MatrixSpec) -> tuple[Factors, Any]:
        """The factors before the first step, and what else the rule keeps."""

    def observe(self, spec: MatrixSpec, memory: Any, gradient: jax.Array, count: jax.Array) -> Any:
        """The memory after one more gradient; called on every step, before ``refresh``."""
        del spec, gradient, count
        return memory

    @abc.abstractmethod
    def refresh(
        self,
        spec: MatrixSpec,
        factors: Factors,
        memory: Any,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[Factors, Any, jax.Array]:
        """New factors and memory, on steps when a refresh is due.

        Args:
          spec: The parameter.
          factors: The old factors.
          memory: What ``init``, or the last ``observe`` or ``refresh`` returned.
          gradient: Of this step.
          count: Updates made before this one, for schedules.
          key: A random key of this step and parameter.

        Returns:
          Factors, memory, and whether all went well, of shape ``stack_shape``: where it did not,
          the failure is counted. Results that are not finite are thrown away by the caller.
        """

    def refresh_all(
        self,
        specs: Mapping[str, MatrixSpec],
        factors: Mapping[str, Factors],
        memory: Mapping[str, Any],
        gradients: Mapping[str, jax.Array],
        count: jax.Array,
        key: jax.Array,
    ) -> dict[str, tuple[Factors, Any, jax.Array]]:
        """``refresh`` of all parameters, by path; for rules that do some of it together."""
        return {
            path: self.refresh(
                spec,
                factors[path],
                memory[path],
                gradients[path],
                count,
                jax.random.fold_in(key, index),
            )
            for index, (path, spec) in enumerate(specs.items())
        }

    @abc.abstractmethod
    def precondition(self, factors: Factors, gradient: jax.Array) -> jax.Array:
        """The preconditioned gradient."""


def choose(condition: jax.Array, new: Any, old: Any) -> Any:
    """Leaves of ``new`` where the condition holds, else of ``old``; it has their leading axes."""
    return jax.tree.map(
        lambda fresh, stale: jnp.where(
            condition.reshape(condition.shape + (1,) * (fresh.ndim - condition.ndim)), fresh, stale
        ),
        new,
        old,
    )
