"""The contract of a rule: what one Kronecker-factored method does for one matrix."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.layers import MatrixView
from singd_optax.measures import Measure, Statistics
from singd_optax.rules._numbers import Interval
from singd_optax.structures import Precision, Structure

Tree = TypeVar("Tree", bound=PyTree)

#: What the momentum of a rule is of, see ``Rule.momentum_of``.
MomentumOf = Literal["gradient", "average", "update"]


class Recipe(NamedTuple):
    """The options of ``singd_optax.optimizer`` that were measured to suit a rule.

    Attributes:
      momentum: See there, and so for all others.
      nesterov: Whether the momentum looks one step ahead.
      update_rms: The size of updates.
      grafting: Whose size they have instead.
      refresh_every: None for ``refresh_schedule()``.
    """

    momentum: float = 0.85
    nesterov: bool = True
    update_rms: float | None = 0.8
    grafting: Literal["sgd", "rmsprop", "adam"] | None = None
    refresh_every: Interval | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule(abc.ABC):
    """How a Kronecker-factored method treats one matrix-shaped parameter, or layer.

    Sub-classes are frozen, keyword-only dataclasses of hyper-parameters; a docstring with the
    equations and one entry under ``Attributes`` for each field is what ``help`` of an optimizer
    shows. Methods are pure, and see no tree of parameters, no mesh, no narrow dtype: states come in
    the dtype of statistics, and are rounded to that of their role by ``scale_by_rule``. All arrays
    may have the leading axes of a stack, whose matrices are separate throughout.

    Momentum, finite checks, counting, sizes and schedules of refreshes are not a rule's business.

    Attributes:
      precision: Of the products, as ``jax.numpy.einsum`` takes it.
    """

    #: What the state is: a NamedTuple, whose fields have roles (``singd_optax.layers.Role``).
    State: ClassVar[type]
    #: Whether a refresh comes before the direction of the same step (Shampoo), or after it (SOAP).
    refresh_first: ClassVar[bool] = True
    #: Whether a refresh draws random numbers; if not, its key is the same for all parameters.
    is_random: ClassVar[bool] = False
    #: Of what the momentum is: the heavy ball of gradients, which is preconditioned ("gradient");
    #: their average with corrected bias, likewise ("average"); or that of updates ("update").
    momentum_of: ClassVar[MomentumOf] = "gradient"
    #: Whether a direction is one of all of a matrix: what has a size, as Adam's steps have, cannot
    #: be preconditioned along one axis after the other (``matrix_axes="each"``).
    is_of_whole: ClassVar[bool] = False
    #: Whether complete optimizers leave tables of embeddings to the fallback by default.
    leaves_embeddings: ClassVar[bool] = True
    #: The structures of factors where neither layers nor the user say any.
    structures: ClassVar[str | Structure] = "auto"
    #: The recipe's options that suit the rule.
    recipe: ClassVar[Recipe] = Recipe()

    precision: Precision = "highest"

    @property
    def state_name(self) -> str:
        """What states say of their rule: whose they are."""
        return type(self).__name__

    @property
    def observes(self) -> bool:
        """Whether ``observe`` does anything."""
        return type(self).observe is not Rule.observe

    @property
    def refreshes_jointly(self) -> bool:
        """Whether ``refresh_all`` is more than ``refresh`` of each."""
        return type(self).refresh_all is not Rule.refresh_all

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What it wants to know of a layer's rows; empty for rules that need gradients alone."""
        return ()

    @abc.abstractmethod
    def init(self, view: MatrixView) -> PyTree:
        """The state before the first step.

        Args:
          view: The parameter, or layer: dims, stack, structures, dtypes.

        Raises:
          ValueError: The rule cannot have these structures.
        """

    def observe(
        self, view: MatrixView, state: PyTree, gradient: jax.Array, count: jax.Array
    ) -> PyTree:
        """The state after one more gradient; called on every step, before anything else.

        Args:
          view: The parameter.
          state: The last one.
          gradient: (*stack_shape, rows, columns).
          count: Updates made before this one, for schedules.
        """
        del view, gradient, count
        return state

    @abc.abstractmethod
    def refresh(
        self,
        view: MatrixView,
        state: PyTree,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[PyTree, jax.Array | bool]:
        """The state with new factors, on steps when a refresh is due.

        Args:
          view: The parameter.
          state: The last one.
          statistics: Of this step, or None for a rule without measures.
          gradient: (*stack_shape, rows, columns).
          count: Updates made before this one, for schedules.
          key: A random key of this step and parameter.

        Returns:
          The state, and whether all went well, of shape ``stack_shape`` or for all: where it did
          not, the failure is counted. What is not finite is thrown away by the caller.
        """

    def refresh_all(
        self,
        views: Mapping[str, MatrixView],
        states: Mapping[str, PyTree],
        statistics: Mapping[str, Statistics | None],
        gradients: Mapping[str, jax.Array],
        count: jax.Array,
        key: jax.Array,
    ) -> dict[str, tuple[PyTree, jax.Array | bool]]:
        """``refresh`` of all parameters, by path; for rules that batch or couple them.

        Args:
          views: The parameters.
          states: Of each.
          statistics: Of each.
          gradients: Of each.
          count: Updates made before this one.
          key: A random key of this step.
        """
        return {
            path: self.refresh(
                view,
                states[path],
                statistics[path],
                gradients[path],
                count,
                jax.random.fold_in(key, index) if self.is_random else key,
            )
            for index, (path, view) in enumerate(views.items())
        }

    @abc.abstractmethod
    def direction(
        self,
        view: MatrixView,
        state: PyTree,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, PyTree]:
        """The preconditioned vector, and the state.

        Args:
          view: The parameter.
          state: In the dtypes in which it is kept.
          vector: The momentum, or the gradient without one: (*stack_shape, rows, columns).
          gradient: Of this step.
          count: Updates made before this one.
        """

    def whitening(self) -> "Rule":
        """This rule, or one with its options, whose states ``whiten``; for ``Polar``.

        Raises:
          ValueError: The rule has no such form.
        """
        if type(self).whiten is Rule.whiten or type(self).unwhiten is Rule.unwhiten:
            raise ValueError(
                f"{type(self).__name__} has no factors that whiten, which a polar direction needs: "
                "use direction='natural', or SINGD, IKFAC, KFAC, EKFAC, InverseFreeShampoo, or "
                "write `whiten` and `unwhiten` of your rule."
            )
        return self

    def whiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """Kᵀ X C, for rules whose preconditioner is K Kᵀ X C Cᵀ.

        Raises:
          NotImplementedError: The rule has no such form.
        """
        raise NotImplementedError(f"{type(self).__name__} has no factors that whiten.")

    def unwhiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """K X Cᵀ, likewise."""
        raise NotImplementedError(f"{type(self).__name__} has no factors that whiten.")

    def curvature(
        self, view: MatrixView, state: PyTree, matrix: jax.Array, count: jax.Array
    ) -> jax.Array:
        """The curvature that the rule keeps, without damping, times a matrix.

        For rules that keep it and not its inverse alone: the product with the Fisher as they
        approximate it, which ``transforms.curvature_product`` is made of.

        Args:
          view: The parameter.
          state: Its state.
          matrix: (*stack_shape, rows, columns).
          count: Updates made so far, for schedules.

        Raises:
          NotImplementedError: The rule does not keep it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} keeps no curvature that vectors can be multiplied with. Use "
            "KFAC, TKFAC, KPSVD, EKFAC or TEKFAC."
        )


def choose(condition: jax.Array, new: Tree, old: Tree) -> Tree:
    """Leaves of ``new`` where the condition holds, else of ``old``; it has their leading axes."""
    chosen: Tree = jax.tree.map(
        lambda fresh, stale: jnp.where(
            condition.reshape(condition.shape + (1,) * (fresh.ndim - condition.ndim)), fresh, stale
        ),
        new,
        old,
    )
    return chosen
