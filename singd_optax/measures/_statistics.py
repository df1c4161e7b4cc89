"""What one layer measured, and in which step."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax.layers import MatrixView
from singd_optax.measures._measure import Measure, Measured
from singd_optax.measures._moments import Moments, moments_of, zero_mean
from singd_optax.placement import Sides
from singd_optax.structures import StructuredMatrix

_OF_ONE_USE: dict[str, int | None] = {
    "H_K": 0,
    "H_C": 1,
    "mean_U": None,
    "mean_G": None,
    "transposed": None,
    "measured_at": None,
    "others": None,
    "rows": None,
}
#: Which side each field of ``Statistics`` is of, as placements want it.
SIDES: Sides = _OF_ONE_USE | {"transposed": _OF_ONE_USE}


class Statistics(NamedTuple):
    """What one layer measured on a refresh step; zeros on any other.

    On the matrices see arXiv 2312.05705, section 3; the means set the scale of relative damping.
    Sums, means and casts of whole trees of statistics are legal; means of trees are also means of
    ``rows``, which add up in ``training.microbatch``, ``MultiSteps`` and ``pmean_curvature``.

    Attributes:
      H_K: Π(Kᵀ U K), with U the second moment of the layer's inputs, a structured matrix (*stack,
        fan_in, fan_in); Π(U) for a rule whose measure is plain ``Moments()``.
      H_C: Π(Cᵀ G C), with G the second moment of the gradients of its outputs, a structured matrix
        (*stack, fan_out, fan_out); or Π(G).
      mean_U: Tr U / fan_in, (*stack,).
      mean_G: Tr G / fan_out, (*stack,).
      transposed: For a kernel that the model also uses as its transpose (tied embeddings), the
        statistics of those uses, in which the output gradients are on the side of K, and the
        inputs on the side of C. None for all other kernels.
      measured_at: How many updates the optimizer state had that this was measured with, int32: by
        it statistics of another step than that of their gradients are seen. None while they are
        being formed.
      others: The values of the rule's measures beside moments.
      rows: The number of rows that the moments are of, (*stack,): those at hand, each as often as
        it counts. The numbers of calls, micro-batches and shards add up.
    """

    H_K: StructuredMatrix
    H_C: StructuredMatrix
    mean_U: jax.Array
    mean_G: jax.Array
    transposed: "Statistics | None" = None
    measured_at: jax.Array | None = None
    others: tuple[Measured, ...] = ()
    rows: jax.Array | None = None

    @classmethod
    def zeros(cls, view: MatrixView, measures: tuple[Measure, ...] = ()) -> "Statistics":
        """Zeros of the shapes and dtypes that the layer's statistics have.

        Args:
          view: The layer.
          measures: The measures of the rule.
        """
        H_K, H_C = moments_of(measures).zeros(view)
        others = tuple(
            Measured(measure.zeros(view), measure)
            for measure in measures
            if not isinstance(measure, Moments)
        )
        zero = zero_mean(view)
        zeros = cls(H_K, H_C, zero, zero, others=others, rows=zero)
        return zeros._replace(transposed=zeros) if getattr(view, "tied", False) else zeros

    def value_of(self, measure: Measure) -> PyTree:
        """The value of one of the rule's measures beside moments.

        Args:
          measure: The measure, equal to that of the rule.
        """
        return next(other.value for other in self.others if other.measure == measure)

    def scaled(self, *, inputs: ArrayLike = 1, gradients: ArrayLike = 1) -> "Statistics":
        """The statistics in other units.

        Args:
          inputs: How many times larger the squares of inputs are.
          gradients: How many times larger the squares of output gradients are.
        """
        return self._replace(
            H_K=self.H_K * inputs,
            H_C=self.H_C * gradients,
            mean_U=self.mean_U * inputs,
            mean_G=self.mean_G * gradients,
            transposed=self.transposed
            and self.transposed.scaled(inputs=gradients, gradients=inputs),
            others=tuple(other.scaled(inputs, gradients) for other in self.others),
        )

    def weighed(self, *, inputs: ArrayLike = 1) -> "Statistics":
        """The statistics where inputs were counted several times, and what has gradients was not.

        Args:
          inputs: One over the number of times that inputs were counted.
        """
        return self._replace(
            H_K=self.H_K * inputs,
            mean_U=self.mean_U * inputs,
            rows=None if self.rows is None else self.rows * inputs,
            transposed=self.transposed
            and self.transposed._replace(
                rows=None if self.transposed.rows is None else self.transposed.rows * inputs,
                H_C=self.transposed.H_C * inputs,
                mean_G=self.transposed.mean_G * inputs,
            ),
            others=tuple(
                other if other.measure.degrees[1] else other.times(inputs) for other in self.others
            ),
        )

    def merged(self) -> "Statistics":
        """The statistics of both uses of a kernel that is also used as its transpose, as one.

        Inputs and output gradients have different units, and each side gets some of both: so each
        use is first scaled to (s U) ⊗ (G / s), which is the same curvature, with s such that
        both means are equal.
        """
        if self.transposed is None:
            return self
        return cast(
            Statistics,
            jax.tree.map(
                jnp.add,
                _balanced(self._replace(transposed=None, measured_at=None)),
                _balanced(self.transposed),
            ),
        )


def _balanced(use: Statistics) -> Statistics:
    empty = (use.mean_U == 0) | (use.mean_G == 0)
    scale = jnp.where(empty, 0, jnp.sqrt(use.mean_G / jnp.where(empty, 1, use.mean_U)))
    inverse = jnp.where(empty, 0, 1 / jnp.where(empty, 1, scale))
    return use.scaled(inputs=scale, gradients=inverse)


def is_stale(statistics: Statistics, count: jax.Array) -> jax.Array:
    """Whether statistics were measured before the update with this count.

    Args:
      statistics: The statistics of a layer; without a count, or with one that is no count any more
        (a mean of several), they are never stale.
      count: The number of updates made before, of the state that they are used with, int32.

    >>> from singd_optax.layers import find_matrices
    >>> spec = find_matrices({"w": jnp.ones((2, 2))}, structures="diagonal")["w"]
    >>> measured = Statistics.zeros(spec)._replace(measured_at=jnp.int32(3))
    >>> [bool(is_stale(measured, jnp.int32(count))) for count in (3, 4)]
    [False, True]
    """
    measured = statistics.measured_at
    if measured is None or jnp.result_type(measured) != jnp.result_type(count):
        return jnp.asarray(False)
    return jnp.any(measured < count)


def by_origin(
    view: MatrixView,
    measures: tuple[Measure, ...],
    inputs: object,
    gradients: object,
    rows: object,
) -> Statistics:
    """Statistics that say of each field of what it is made: of inputs, or of output gradients.

    Args:
      view: The layer; if its kernel is also used as its transpose, inputs and gradients are
        exchanged in the statistics of that use.
      measures: The measures of the rule.
      inputs: What to put where inputs alone are measured: ``H_K``, ``mean_U``, ...
      gradients: What to put where gradients are: ``H_C``, ``mean_G``, and what has both.
      rows: What to put for the number of rows.

    Returns:
      A prefix of the layer's statistics.
    """

    def use(first: object, second: object) -> Statistics:
        others = tuple(
            second if measure.degrees[1] else first
            for measure in measures
            if not isinstance(measure, Moments)
        )
        both = (first, second) * 2
        return Statistics(*both, others=others, rows=rows)  # type: ignore[arg-type]

    plain = use(inputs, gradients)
    if not getattr(view, "tied", False):
        return plain
    return plain._replace(transposed=use(gradients, inputs))
