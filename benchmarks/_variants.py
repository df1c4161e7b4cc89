"""Directions of SINGD, by a short name: natural, polar, and what lies between."""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

import singd_optax
from singd_optax.optimizers import SINGD
from singd_optax.rules import Entries, Polar, Wrapped

MOMENTUM = 0.85


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisePolar(Polar):
    """Polar, with the softness of noise.

    Attributes:
      examples: N.
      multiple: Of e0.
    """

    examples: int = 1
    multiple: float = 1.0

    def softness_of(self, view: Any, whitened: jax.Array, count: jax.Array) -> jax.Array:
        """That e is the multiple of e0, for heavy-ball momentum, 1/(1 - b) times the average."""
        rows, columns = view.dims
        e0 = math.sqrt(rows) + math.sqrt(columns)
        e0 *= math.sqrt(1 / ((1 + MOMENTUM) * (1 - MOMENTUM) * self.examples))
        mean = jnp.sqrt((whitened**2).sum((-2, -1), keepdims=True) / min(view.dims))
        return jnp.minimum(self.multiple * e0 / jnp.where(mean > 0, mean, 1), 1e3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountedSINGD(SINGD):
    """SINGD, damped by how few examples its moments are of: λ = max(least, share (d_i d_o / N²)^p).

    Attributes:
      examples: N.
      share: Of the relative errors of both moments.
      power: p.
      least: Damping at least.
    """

    examples: int = 1
    share: float = 0.1
    power: float = 0.5
    least: float = 0.0

    def factor_step(self, view: Any, *rest: Any) -> Any:
        """That of SINGD, with the damping of these dims."""
        rows, columns = view.dims
        damping = self.share * (rows * columns / self.examples**2) ** self.power
        damping = max(self.least, damping)
        return SINGD.factor_step(dataclasses.replace(self, damping=damping), view, *rest)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerPolar(Polar):
    """Singular values of the whitened momentum to a power: 0 is polar, 1 is natural.

    Attributes:
      power: p of U diag(σ^p) Vᵀ.
    """

    power: float = 0.5

    def direction(self, view: Any, state: Any, vector: Any, gradient: Any, count: Any) -> Any:
        """By an SVD."""
        del gradient, count
        U, values, Vt = jnp.linalg.svd(self.rule.whiten(view, state, vector), full_matrices=False)
        largest = values.max(-1, keepdims=True)
        powers = (values / jnp.where(largest > 0, largest, 1)) ** self.power
        return self.rule.unwhiten(view, state, (U * powers[..., None, :]) @ Vt), state


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignPolar(Polar):
    """The sign of each entry of the whitened momentum."""

    def direction(self, view: Any, state: Any, vector: Any, gradient: Any, count: Any) -> Any:
        """K sign(Kᵀ M C) Cᵀ."""
        del gradient, count
        return self.rule.unwhiten(
            view, state, jnp.sign(self.rule.whiten(view, state, vector))
        ), state


class SquaresOf(NamedTuple):
    """What ``WhitenedAdam`` keeps: averages of squares of whitened gradients."""

    squares: Entries


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhitenedAdam(Wrapped):
    """Adam in whitened coordinates: K [ (Kᵀ M C) / √V ] Cᵀ, V of (Kᵀ G C)²."""

    Own: ClassVar[type | None] = SquaresOf
    b2: float = 0.95

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", self.rule.whitening())
        super().__post_init__()

    def own_init(self, view: Any) -> SquaresOf:
        """Zeros."""
        return SquaresOf(jnp.zeros((*view.stack_shape, *view.dims), view.statistics_dtype))

    def direction(self, view: Any, state: Any, vector: Any, gradient: Any, count: Any) -> Any:
        """As Adam's; K and C turn slowly, which V follows."""
        inner = self.inner(state)
        momentum, fresh = (self.rule.whiten(view, inner, x) for x in (vector, gradient))
        squares = self.b2 * state.squares + (1 - self.b2) * fresh**2
        unbiased = squares / (1 - self.b2 ** (count + 1))
        scaled = momentum / (jnp.sqrt(unbiased) + 1e-12)
        return self.rule.unwhiten(view, inner, scaled), state._replace(squares=squares)


def rule_of(variant: str, examples: int, **options: Any) -> Any:
    """What a variant says: "kind [number][@damping]", the damping that of ``SINGD()`` if not said.

    Kinds: natural, polar, polar_express, quintic, soft (softness s), noise (multiple of e0), power
    (p), sign, adam (b2).
    Damping: a number, "early>late/steps" of ``damping_schedule``, or "n" and the share of
    ``CountedSINGD``; "q" and the share of it with power 1, at least 0.03.
    """
    first, _, damping = variant.partition("@")
    kind, _, number = first.partition(" ")
    if damping[:1] in ("n", "q"):
        numbers: dict[str, float] = {"power": 1.0, "least": 0.03} if damping[0] == "q" else {}
        numbers["share"] = float(damping[1:])
        rule: SINGD = CountedSINGD(examples=examples, **numbers, **options)
    else:
        rule = SINGD(**options, **({"damping": _damping(damping)} if damping else {}))
    if kind == "natural":
        return rule
    if kind == "power":
        return PowerPolar(rule, power=float(number))
    if kind == "sign":
        return SignPolar(rule)
    if kind == "adam":
        return WhitenedAdam(rule, b2=float(number or 0.95))
    if kind == "soft":
        return Polar(rule, softness=float(number))
    if kind == "noise":
        return NoisePolar(rule, examples=examples, multiple=float(number))
    return Polar(rule, iteration="muon" if kind == "polar" else kind)


def _damping(text: str) -> Any:
    early, is_schedule, rest = text.partition(">")
    if not is_schedule:
        return float(text)
    late, _, steps = rest.partition("/")
    return singd_optax.damping_schedule(float(late), early=float(early), early_steps=int(steps))
