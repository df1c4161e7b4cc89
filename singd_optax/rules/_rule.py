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

#: What the momentum of a rule is a sum or an average of, see ``Rule.momentum_of``.
MomentumOf = Literal["gradient", "average", "update"]


class Recipe(NamedTuple):
    """The options of ``singd_optax.optimizer`` that were measured to suit a rule.

    Attributes:
      momentum: The decay of the momentum, in [0, 1).
      nesterov: Whether the momentum looks one step ahead.
      update_rms: The root mean square of a matrix's update before the learning rate, or None.
      grafting: The optimizer whose step's norm each update gets in its place, or None.
      refresh_every: The interval in steps from one refresh to the next; None for
        ``refresh_schedule()``.
    """

    momentum: float = 0.85
    nesterov: bool = True
    update_rms: float | None = 0.8
    grafting: Literal["sgd", "rmsprop", "adam"] | None = None
    refresh_every: Interval | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule(abc.ABC):
    """What one method does for one matrix: the base class of all rules, and of your own.

    A sub-class is a frozen, keyword-only dataclass, whose fields are the method's options. Its
    docstring has the equations, and under ``Attributes`` one entry for each field, which ``help``
    of an optimizer shows. It writes ``init``, ``refresh`` and ``direction``; all else has defaults.

    Methods are pure functions of one parameter or layer. They see no tree of parameters, no mesh,
    and no narrow dtype: states come in the dtype of statistics, and ``scale_by_rule`` rounds each
    field to the dtype of its role. All arrays may have the leading axes of a stack of matrices,
    each of which is treated by itself. Momentum, checks of finite values, counting, and the sizes
    and times of updates are the work of ``scale_by_rule``, not of rules.

    Attributes:
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    #: The class of states: a NamedTuple, whose fields have roles (``singd_optax.layers.Role``).
    State: ClassVar[type]
    #: Whether a refresh comes before the direction of the same step (Shampoo), or after it (SOAP).
    refresh_first: ClassVar[bool] = True
    #: Whether a refresh draws random numbers; if not, its key is the same for all parameters.
    is_random: ClassVar[bool] = False
    #: What the momentum is: the heavy ball of gradients, which is preconditioned ("gradient");
    #: their average with corrected bias, which is preconditioned, too ("average"); or the average
    #: of preconditioned gradients ("update").
    momentum_of: ClassVar[MomentumOf] = "gradient"
    #: Whether a direction must be made of a whole matrix at once. One with a size of its own, as
    #: Adam's step has, cannot be made along one axis after the other (``matrix_axes="each"``).
    is_of_whole: ClassVar[bool] = False
    #: Whether complete optimizers leave tables of embeddings to the fallback by default.
    leaves_embeddings: ClassVar[bool] = True
    #: The structures of factors where neither layers nor the user choose any.
    structures: ClassVar[str | Structure] = "auto"
    #: The recipe's options that suit the rule.
    recipe: ClassVar[Recipe] = Recipe()

    precision: Precision = "highest"

    @property
    def state_name(self) -> str:
        """The name by which a state says whose it is, so that no other rule takes it."""
        return type(self).__name__

    @property
    def observes(self) -> bool:
        """Whether ``observe`` does anything."""
        return type(self).observe is not Rule.observe

    @property
    def refreshes_jointly(self) -> bool:
        """Whether ``refresh_all`` is more than a ``refresh`` of each parameter."""
        return type(self).refresh_all is not Rule.refresh_all

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is measured of a layer for this rule; empty for rules that need gradients alone."""
        return ()

    @abc.abstractmethod
    def init(self, view: MatrixView) -> PyTree:
        """The state before the first step.

        Args:
          view: The parameter or layer: its dims, stack, structures and dtypes.

        Returns:
          A ``State``.

        Raises:
          ValueError: The rule has no factors in these structures.
        """

    def observe(
        self, view: MatrixView, state: PyTree, gradient: jax.Array, count: jax.Array
    ) -> PyTree:
        """The state after one more gradient; this is called first in each step.

        Args:
          view: The parameter or layer.
          state: The last state.
          gradient: The gradient, (*stack_shape, rows, columns).
          count: The number of updates made before, int32, for schedules.
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
          view: The parameter or layer.
          state: The last state.
          statistics: The statistics of this step, or None for a rule without measures.
          gradient: The gradient, (*stack_shape, rows, columns).
          count: The number of updates made before, int32, for schedules.
          key: A random key for this step and parameter.

        Returns:
          The state, and whether all went well, a bool or bools of shape ``stack_shape``. Where it
          did not, a skipped refresh is counted. The caller throws away what is not finite.
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
        """Refresh all parameters; override this to batch or to couple them (``JointRule``).

        Args:
          views: The parameters and layers, by path.
          states: Their last states, by path.
          statistics: Their statistics, by path, or None for a rule without measures.
          gradients: Their gradients, by path.
          count: The number of updates made before, int32.
          key: A random key for this step.

        Returns:
          By path what ``refresh`` returns.
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
        """The preconditioned momentum, and the state.

        Args:
          view: The parameter or layer.
          state: The state, in the dtypes in which it is kept.
          vector: The momentum, or the gradient if there is none, (*stack_shape, rows, columns).
          gradient: The gradient of this step, shaped like ``vector``.
          count: The number of updates made before, int32.

        Returns:
          The direction, shaped like ``vector``, and the state after it.
        """

    def whitening(self) -> "Rule":
        """The form of this rule whose states can ``whiten``, for ``Polar``; mostly the rule itself.

        Raises:
          ValueError: The rule has no such form.
        """
        if type(self).whiten is Rule.whiten or type(self).unwhiten is Rule.unwhiten:
            raise ValueError(
                f"{type(self).__name__} has no factors that whiten, which a polar direction needs. "
                "Use direction='natural', or a rule that whitens (SINGD, IKFAC, KFAC, EKFAC, "
                "InverseFreeShampoo), or write the methods `whiten` and `unwhiten` of your rule."
            )
        return self

    def uncached(self) -> "Rule":
        """This rule without what it keeps for natural directions alone; for ``Polar``."""
        return self

    def whiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """Whiten a matrix X: Kᵀ X C, for rules whose preconditioner is K Kᵀ X C Cᵀ.

        Args:
          view: The parameter or layer.
          state: Its state.
          matrix: X, (*stack_shape, rows, columns).

        Raises:
          NotImplementedError: The rule has no such form.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no factors that whiten. Use SINGD, IKFAC, KFAC, EKFAC or "
            "InverseFreeShampoo."
        )

    def unwhiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """Turn a whitened matrix X back: K X Cᵀ, so that both together make the direction.

        Args:
          view: The parameter or layer.
          state: Its state.
          matrix: X, (*stack_shape, rows, columns).

        Raises:
          NotImplementedError: The rule has no such form.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no factors that whiten. Use SINGD, IKFAC, KFAC, EKFAC or "
            "InverseFreeShampoo."
        )

    def curvature(
        self, view: MatrixView, state: PyTree, matrix: jax.Array, count: jax.Array
    ) -> jax.Array:
        """The product of a matrix and the curvature that the rule keeps, without damping.

        Rules that keep nothing but inverses do not have it. ``transforms.curvature_product`` makes
        of it the product with the Fisher matrix, as the rule approximates it.

        Args:
          view: The parameter or layer.
          state: Its state.
          matrix: The matrix, (*stack_shape, rows, columns).
          count: The number of updates made so far, int32, for schedules.

        Raises:
          NotImplementedError: The rule does not keep it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} keeps no curvature by which a matrix can be multiplied. Use "
            "KFAC, TKFAC, KPSVD, EKFAC or TEKFAC."
        )


def choose(condition: jax.Array, new: Tree, old: Tree) -> Tree:
    """The leaves of ``new`` where the condition holds, and of ``old`` elsewhere.

    Args:
      condition: Bools, whose axes are the leading axes of all leaves.
      new: A tree of arrays.
      old: Another tree of the same form.

    >>> choose(jnp.array([True, False]), jnp.ones((2, 2)), jnp.zeros((2, 2)))
    Array([[1., 1.],
           [0., 0.]], dtype=float32)
    """
    chosen: Tree = jax.tree.map(
        lambda fresh, stale: jnp.where(
            condition.reshape(condition.shape + (1,) * (fresh.ndim - condition.ndim)), fresh, stale
        ),
        new,
        old,
    )
    return chosen
