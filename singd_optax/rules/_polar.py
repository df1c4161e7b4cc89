"""Polar directions: whiten, give all directions one size, unwhiten."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from singd_optax._types import PyTree
from singd_optax._validate import check_choice, check_number
from singd_optax.layers import MatrixView
from singd_optax.measures import Measure, Statistics
from singd_optax.rules._numbers import Hyperparameter, hyperparameter_at
from singd_optax.rules._polar_factor import Iteration, coefficients_of, polar_factor
from singd_optax.rules._rule import Recipe, Rule
from singd_optax.structures import Precision, Structure

_DTYPES = (None, "float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Polar(Rule):
    """Wrap a rule so that its directions are polar: K polar(Kᵀ M C) Cᵀ, not K Kᵀ M C Cᵀ.

    The momentum M is whitened to W = Kᵀ M C, all singular values of W are made equal, and the
    result is unwhitened. This is the steepest descent in the operator norm of the whitened layer.
    As the polar factor commutes with rotations, it does not matter which root K of K Kᵀ a rule
    keeps. With K = C = I it is Muon. With W = U diag(σ) Vᵀ, the root mean square r of the singular
    values σ, and the softness s::

        f(σ) = σ / √(σ² + (s r)²),    M  ->  K U diag(c f(σ)) Vᵀ Cᵀ,    c = Σ σ f(σ) / Σ f(σ)²

    At s = 0 all σ become their mean, and the larger s is, the nearer the direction is to the
    natural one, where each σ stays. c makes the result the multiple that is nearest to W, so that
    it is linear in the size of M, and ``kl_clip`` can bound it. Softness is for directions with
    next to no signal, such as inputs that are nearly always 0: K is large there and M is small, so
    that at s = 0 their noise becomes as large as all else.

    Factors, statistics and states are those of the rule, without the products K Kᵀ and C Cᵀ that
    inverse-free rules keep for natural directions: a run can go on with a rule that has
    ``cache_products=False``, or the other way round. The momentum is always that of gradients. The
    option ``direction="polar"`` of optimizers wraps their rule in this.

    Attributes:
      rule: The rule that makes K and C: SINGD, IKFAC, KFAC, EKFAC, InverseFreeShampoo, or your own
        if it whitens. In the place of "cholesky", KFAC gets "root", which keeps roots of its
        inverses; with "eigh" it whitens in the basis of eigenvectors.
      softness: s, a number >= 0 or a schedule.
      iteration: How the polar factor is found: "muon", "polar_express", "quintic", or triples of
        numbers, see ``singd_optax.rules.coefficients_of``.
      steps: The number of steps of the iteration, an int >= 1; None for its own number.
      iteration_dtype: The dtype in which the iteration runs, "float32" or "bfloat16"; None for that
        of statistics.
      precision: The precision of the rule, which is not given. Products of each step have the
        rule's ``direction_precision``, if it has one.

    Raises:
      ValueError: The rule has nothing to whiten with, or an option is out of range.
      TypeError: ``rule`` is no rule.

    References:
      Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon; whitened from one side:
      Newton-Muon, arXiv 2604.01472.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> from singd_optax.optimizers import InverseFreeShampoo
      >>> rule = Polar(InverseFreeShampoo(), softness=0.5, iteration="polar_express")
      >>> tx = singd_optax.optimizer(1e-2, rule)
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
    """

    rule: Rule = dataclasses.field(kw_only=False)
    softness: Hyperparameter = 0.0
    iteration: Iteration = "muon"
    steps: int | None = None
    iteration_dtype: DTypeLike | None = None
    precision: Precision = dataclasses.field(init=False)

    State: ClassVar[type]
    recipe: ClassVar[Recipe]
    structures: ClassVar[str | Structure]
    refresh_first: ClassVar[bool]
    is_random: ClassVar[bool]

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise TypeError(
                "`rule` must be a singd_optax.rules.Rule, such as singd_optax.optimizers.SINGD(), "
                f"got {self.rule!r} of type {type(self.rule).__name__}."
            )
        check_number("softness", self.softness)
        coefficients_of(self.iteration, self.steps)
        name = None if self.iteration_dtype is None else jnp.dtype(self.iteration_dtype).name
        check_choice("iteration_dtype", name, _DTYPES)
        iteration = self.iteration
        own = {
            "rule": self.rule.whitening().uncached(),
            "iteration": iteration if isinstance(iteration, str) else coefficients_of(iteration),
            "iteration_dtype": name,
        }
        # What is a class variable of other rules is taken from the rule that is wrapped.
        for each in ("State", "recipe", "structures", "refresh_first", "is_random", "precision"):
            own[each] = getattr(own["rule"], each)
        for each, value in own.items():
            object.__setattr__(self, each, value)

    @property
    def state_name(self) -> str:
        """The name of the rule that is wrapped, whose states these are."""
        return self.rule.state_name

    @property
    def observes(self) -> bool:
        """Whether the rule inside observes gradients."""
        return self.rule.observes

    @property
    def refreshes_jointly(self) -> bool:
        """Whether the rule inside refreshes all parameters at once."""
        return self.rule.refreshes_jointly

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of the rule."""
        return self.rule.measures

    def init(self, view: MatrixView) -> PyTree:
        """The state of the rule."""
        return self.rule.init(view)

    def observe(
        self, view: MatrixView, state: PyTree, gradient: jax.Array, count: jax.Array
    ) -> PyTree:
        """Do as the rule inside does."""
        return self.rule.observe(view, state, gradient, count)

    def refresh(
        self,
        view: MatrixView,
        state: PyTree,
        statistics: Statistics | None,
        gradient: jax.Array,
        count: jax.Array,
        key: jax.Array,
    ) -> tuple[PyTree, jax.Array | bool]:
        """Do as the rule inside does."""
        return self.rule.refresh(view, state, statistics, gradient, count, key)

    def refresh_all(
        self,
        views: Mapping[str, MatrixView],
        states: Mapping[str, PyTree],
        statistics: Mapping[str, Statistics | None],
        gradients: Mapping[str, jax.Array],
        count: jax.Array,
        key: jax.Array,
    ) -> dict[str, tuple[PyTree, jax.Array | bool]]:
        """Do as the rule inside does."""
        return self.rule.refresh_all(views, states, statistics, gradients, count, key)

    def direction(
        self,
        view: MatrixView,
        state: PyTree,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, PyTree]:
        """K c f(Kᵀ M C) Cᵀ, as in the docstring of the class."""
        del gradient
        whitened = self.rule.whiten(view, state, vector)
        softness = self.softness_of(view, whitened, count)
        factor = polar_factor(
            whitened,
            softness=softness,
            iteration=self.iteration,
            steps=self.steps,
            dtype=self.iteration_dtype,
            precision=getattr(self.rule, "direction_precision", None) or self.precision,
            split=view.placement.divided,
        )
        # Without this factor, directions would not fade where gradients vanish.
        inner, square = (
            (other * factor).sum((-2, -1), keepdims=True) for other in (whitened, factor)
        )
        nearest = factor * (inner / jnp.where(square == 0, 1, square))
        return self.rule.unwhiten(view, state, nearest), state

    def softness_of(self, view: MatrixView, whitened: jax.Array, count: jax.Array) -> ArrayLike:
        """The softness of this step; override this to make it depend on the layer.

        Args:
          view: The parameter.
          whitened: W, (*stack, rows, columns).
          count: Updates made before this one.

        Returns:
          A number, or one for each matrix, (*stack, 1, 1).
        """
        del view
        softness = self.softness
        if isinstance(softness, int | float):
            return softness
        return hyperparameter_at(softness, count, whitened.dtype)

    def whiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """Do as the rule inside does."""
        return self.rule.whiten(view, state, matrix)

    def unwhiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """Do as the rule inside does."""
        return self.rule.unwhiten(view, state, matrix)
