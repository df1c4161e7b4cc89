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
    """Another rule with polar directions: K polar(Kᵀ M C) Cᵀ in place of K Kᵀ M C Cᵀ.

    The momentum M is whitened, its singular values are made equal, and it is unwhitened: the
    steepest descent in the operator norm of the whitened layer. As the polar factor commutes with
    rotations, it is the same for each root K of K Kᵀ, whatever its structure; with K = C = I it is
    Muon. With W = Kᵀ M C = U diag(σ) Vᵀ and r its root mean square σ::

        f(σ) = σ / √(σ² + (s r)²),    M  ->  K U diag(c f(σ)) Vᵀ Cᵀ,    c = Σ σ f(σ) / Σ f(σ)²

    so that softness s runs from the polar factor (0: all σ become their mean) to the natural
    gradient (s without bound: σ stays). c makes it the multiple that is nearest to W: it is linear
    in the size of M, and ``kl_clip`` bounds what it does. A direction without signal (inputs that
    are nearly always 0) has a large K and little in M: there the hard polar factor makes noise as
    large as all else, which softness prevents.

    Factors, statistics and states are those of the rule, without the products K Kᵀ and C Cᵀ that
    inverse-free rules keep for natural directions: a state can go on with a natural rule that has
    ``cache_products=False``. The momentum is always that of gradients. ``direction="polar"`` of an
    optimizer makes this of its rule.

    Attributes:
      rule: What makes K and C: SINGD, IKFAC, KFAC, EKFAC, InverseFreeShampoo, or your own that
        whitens.
        KFAC by "cholesky" keeps the roots of its inverses instead, KFAC by "eigh" is whitened in
        the basis of eigenvectors.
      softness: s, a number >= 0 or a schedule.
      iteration: Of the polar factor: "muon", "polar_express", "quintic", or triples of numbers,
        see ``singd_optax.rules.coefficients_of``.
      steps: How many steps of it; None for what it has.
      iteration_dtype: In which it runs: None for that of statistics, "float32" or "bfloat16".
      precision: The rule's; products of each step have its ``direction_precision``, if it has one.

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
            raise TypeError(f"`rule` must be a singd_optax.rules.Rule, got {self.rule!r}.")
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
        # What a class says of its rules, this one's rule says of it.
        for each in ("State", "recipe", "structures", "refresh_first", "is_random", "precision"):
            own[each] = getattr(own["rule"], each)
        for each, value in own.items():
            object.__setattr__(self, each, value)

    @property
    def state_name(self) -> str:
        """That of the rule."""
        return self.rule.state_name

    @property
    def observes(self) -> bool:
        """Whether the rule does."""
        return self.rule.observes

    @property
    def refreshes_jointly(self) -> bool:
        """Whether the rule does."""
        return self.rule.refreshes_jointly

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Those of the rule."""
        return self.rule.measures

    def init(self, view: MatrixView) -> PyTree:
        """The state of the rule."""
        return self.rule.init(view)

    def observe(
        self, view: MatrixView, state: PyTree, gradient: jax.Array, count: jax.Array
    ) -> PyTree:
        """As the rule does."""
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
        """As the rule does."""
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
        """As the rule does."""
        return self.rule.refresh_all(views, states, statistics, gradients, count, key)

    def direction(
        self,
        view: MatrixView,
        state: PyTree,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, PyTree]:
        """K polar(Kᵀ M C) Cᵀ, softened, of the size that is nearest to the whitened momentum."""
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
        # A direction of its own size would not fade where gradients vanish.
        inner, square = (
            (other * factor).sum((-2, -1), keepdims=True) for other in (whitened, factor)
        )
        nearest = factor * (inner / jnp.where(square == 0, 1, square))
        return self.rule.unwhiten(view, state, nearest), state

    def softness_of(self, view: MatrixView, whitened: jax.Array, count: jax.Array) -> ArrayLike:
        """The softness of this step; to make it depend on the layer, overwrite this.

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
        """As the rule does."""
        return self.rule.whiten(view, state, matrix)

    def unwhiten(self, view: MatrixView, state: PyTree, matrix: jax.Array) -> jax.Array:
        """As the rule does."""
        return self.rule.unwhiten(view, state, matrix)
