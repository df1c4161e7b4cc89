"""One batch's part of the sums that a curvature is made of, in the step that ``fit`` jits."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from singd_optax._types import PyTree
from singd_optax.capture._fisher import Fisher, common_loss_average
from singd_optax.capture._nnx_functional import Functional
from singd_optax.capture._predictions import fisher_squares, predictions_of
from singd_optax.curvature._examples import each_example
from singd_optax.layers import Layers, LayerSpec, RuleState
from singd_optax.layers._rule_tag import RuleTag
from singd_optax.layers._tree import Leaves
from singd_optax.measures import (
    NO_MOMENTS,
    Measure,
    MomentTotals,
    SquareTotals,
    Statistics,
)
from singd_optax.placement import OneDevice, on_auto_axes
from singd_optax.rules import ColumnBasis, RowBasis
from singd_optax.structures import Precision, StructuredMatrix

Kind = Literal["kfac", "ekfac", "singd", "diagonal"]
KINDS: tuple[Kind, ...] = ("kfac", "ekfac", "singd", "diagonal")

#: What is done with parameters outside of layers.
Others = Literal["none", "diagonal"]
OTHERS: tuple[Others, ...] = ("none", "diagonal")

#: Bases of the rows and of the columns of each layer.
Bases = dict[str, tuple[StructuredMatrix, StructuredMatrix]]


class NoState(NamedTuple):
    """Of layers whose measures need nothing."""


class BasisState(NamedTuple):
    """Of layers whose squares are taken in a basis.

    Attributes:
      K: Of the rows.
      C: Of the columns.
    """

    K: RowBasis
    C: ColumnBasis


class Sums(NamedTuple):
    """Sums over batches, in float32 (float64 where that is on).

    Attributes:
      layers: Path -> the totals of a layer, a pair where its kernel is also used as its transpose.
      others: Path -> the diagonal of a parameter outside of layers.
      nll: The summed negative log-likelihood.
      terms: How many terms that has.
    """

    layers: dict[str, PyTree]
    others: dict[str, jax.Array]
    nll: jax.Array
    terms: jax.Array


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What is estimated, and of what: all that is static.

    Attributes:
      loss: A mean as ``loss_average`` says.
      layers: All positions of each count.
      kind: Of the curvature.
      fisher: Whose output gradients.
      other_paths: Parameters outside of layers that get a diagonal.
      seed: Of labels that are drawn.
      precision: Of products.
      exact_squares: Whether squares are those of whole examples.
    """

    loss: Functional
    layers: Layers
    kind: Kind
    fisher: Fisher
    other_paths: tuple[str, ...]
    seed: int
    precision: Precision
    exact_squares: bool

    @property
    def loss_average(self) -> str | None:
        """That of all layers."""
        return common_loss_average(self.layers.values())

    def measure(self, spec: LayerSpec, in_basis: bool) -> Measure:
        """What is summed of a layer."""
        if self.kind == "kfac" or (self.kind == "ekfac" and not in_basis):
            return MomentTotals()
        exact = self.exact_squares and spec.kfac_approx == "expand"
        return SquareTotals(("K", "C") if in_basis else None, exact=exact)

    def zeros(self, params: PyTree, in_basis: bool) -> Sums:
        """Sums of nothing."""
        leaves = Leaves(params)
        totals: dict[str, PyTree] = {}
        for path, spec in self.layers.items():
            zeros = _wide(self.measure(spec, in_basis).zeros(spec))
            totals[path] = (zeros, jax.tree.map(jnp.zeros_like, zeros)) if spec.tied else (zeros,)
        others = {
            path: _wide(jnp.zeros(jnp.shape(leaves[path])))
            for path in (() if in_basis else self.other_paths)
        }
        nll, terms = _wide((jnp.zeros([], jnp.float32),) * 2)
        return Sums(totals, others, nll, jnp.array(terms))

    def step(self, in_basis: bool, where: NamedSharding | None) -> Callable[..., Sums]:
        """``step(params, bases, sums, index, batch)`` -> sums with one batch more; jitted.

        Args:
          in_basis: Whether this is the second pass.
          where: Of the sums.
        """

        @functools.partial(jax.jit, donate_argnums=2, out_shardings=where)
        def step(
            params: PyTree, bases: Bases, sums: Sums, index: jax.Array, batch: tuple[PyTree, ...]
        ) -> Sums:
            state = self._state(bases, index, in_basis)
            grad_fn = self.loss.value_and_grad(
                self.layers,
                precision=self.precision,
                fisher=self.fisher,
                seed=self.seed,
            )
            value, _, curvature = grad_fn(params, *batch, opt_state=state, refresh=True)
            formed = {
                path: _values(statistics, self.measure(self.layers[path], in_basis))
                for path, statistics in curvature.items()
            }
            add = lambda total, new: total + new.astype(total.dtype)
            layers = jax.tree.map(add, sums.layers, formed)
            if in_basis:
                return sums._replace(layers=layers)
            terms = self.terms(params, batch)
            others = jax.tree.map(add, sums.others, self._others(params, index, batch))
            nll = sums.nll + (value * terms).astype(sums.nll.dtype)
            return Sums(layers, others, nll, sums.terms + terms.astype(sums.terms.dtype))

        return step

    def terms(self, params: PyTree, batch: tuple[PyTree, ...]) -> jax.Array:
        """Over how many terms the loss of this batch is a mean; NaN if nothing says so."""
        average = self.loss_average
        _, found = predictions_of(lambda: self.loss.loss_fn(params, *batch))
        if found:
            return found[0].terms(average)
        sizes = [jnp.shape(leaf)[0] for leaf in jax.tree.leaves(batch) if jnp.ndim(leaf)]
        known = {"batch": float(sizes[0]) if sizes else 1.0, None: 1.0}
        return jnp.asarray(known.get(average, jnp.nan))

    def _state(self, bases: Bases, index: jax.Array, in_basis: bool) -> tuple[RuleState, ...]:
        """An optimizer's state that wants nothing but these measures."""
        specs = self.layers
        measures = {path: self.measure(spec, in_basis) for path, spec in specs.items()}
        own = {path: BasisState(*bases[path]) if in_basis else NoState() for path in specs}
        one = jnp.ones([], jnp.int32)
        states = [
            RuleState(
                index,
                one,
                {path: own[path] for path in specs if measures[path] == measure},
                None,
                {},
                {},
                {},
                {},
                RuleTag("Curvature", (NO_MOMENTS, measure)),
            )
            for measure in dict.fromkeys(measures.values())
        ]
        return tuple(states)

    def _others(
        self, params: PyTree, index: jax.Array, batch: tuple[PyTree, ...]
    ) -> dict[str, jax.Array]:
        """The diagonal of parameters outside of layers, one example after the other."""
        if not self.other_paths:
            return {}
        key = jax.random.fold_in(jax.random.key(self.seed + 1), index)
        count = jax.tree.leaves(batch)[0].shape[0]

        def squares(
            params: PyTree, example: tuple[PyTree, ...], key: jax.Array
        ) -> dict[str, jax.Array]:
            leaves = Leaves(params)
            values = {path: leaves[path] for path in self.other_paths}
            loss = lambda values: self.loss.loss_fn(leaves.replaced(values), *example)
            return fisher_squares(loss, values, self.fisher, key[0])

        each = each_example(squares, params, batch, jax.random.split(key, count))
        return on_auto_axes(functools.partial(jax.tree.map, lambda leaf: _wide(leaf).sum(0)), each)


def whole_data(layers: Layers) -> Layers:
    """The layers with all positions counted, on the devices where their arguments are."""
    specs = []
    for spec in layers.specs:
        fraction = 1.0 if spec.curvature_fraction == "auto" else spec.curvature_fraction
        dtype = (spec.statistics_dtype.name,) * 2
        specs.append(
            dataclasses.replace(
                spec, curvature_fraction=fraction, factor_dtype=dtype, placement=OneDevice()
            )
        )
    return dataclasses.replace(layers, specs=tuple(specs))


def _values(statistics: Statistics, measure: Measure) -> tuple[PyTree, ...]:
    """Of both uses of a kernel, if there are two."""
    value = statistics.value_of(measure)
    if statistics.transposed is None:
        return (value,)
    return value, statistics.transposed.value_of(measure)


def _wide(tree: PyTree) -> PyTree:
    """In the widest dtype of floats that is on."""
    wide = jax.dtypes.canonicalize_dtype(jnp.float64)
    return jax.tree.map(lambda leaf: leaf.astype(wide), tree)
