"""Damping by how few rows the moments are of."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from singd_optax._validate import check_number
from singd_optax.measures import Statistics
from singd_optax.rules._numbers import Hyperparameter, hyperparameter_at
from singd_optax.structures import StructuredMatrix


@dataclasses.dataclass(frozen=True)
class SamplingDamping:
    """What ``sampling_damping`` returns: damping that each layer has for itself.

    Attributes:
      least: λ at least, a number >= 0 or a schedule.
      share: What the errors of both moments are multiplied with, a number >= 0.
    """

    least: Hyperparameter = 0.03
    share: float = 1.0

    def __post_init__(self) -> None:
        check_number("least", self.least)
        check_number("share", self.share, schedule=False)

    def __repr__(self) -> str:
        """As it is written."""
        return f"sampling_damping({self.least!r}, share={self.share:g})"


#: λ: a number, a schedule, or ``sampling_damping()``.
Damping = Hyperparameter | SamplingDamping


def sampling_damping(least: Hyperparameter = 0.03, *, share: float = 1.0) -> SamplingDamping:
    """Damp a layer by how little its moments are known: where rows are few, much.

    λ = max(least, share (b_K / N) (b_C / N)), where N is the number of rows that the moments of a
    refresh are of (examples, tokens, pixels), and b how many numbers a row of a moment has: d if it
    is dense, the size of its block, 1 if it is diagonal. A moment of N rows is known up to about
    b / N of its size, by which covariances are shrunk (Ledoit and Wolf, 2004), and λ is relative to
    both moments. With thousands of rows in a batch, as in language models and convolutions,
    ``least`` is all of it; with 32 rows, and 64 inputs and outputs, it is 4 for dense factors. To
    whiten what is mostly noise hurts: at AdamW's settings the held-out loss of two small networks
    on tables fell from 0.304 to 0.065 and from 0.123 to 0.101 by it, where AdamW has 0.060 and
    0.072 (``benchmarks/directions.py wine --carry-over``, ``breast_cancer``).

    Args:
      least: λ where rows are many: a number >= 0, or a schedule such as ``damping_schedule()``.
      share: How much of the error, a number >= 0.

    Returns:
      A value for ``damping`` of SINGD, in the units of ``damping_mode="relative"``; with
      "absolute", it is ``least`` alone.

    Raises:
      TypeError: A number is no number.
      ValueError: It is out of range.

    >>> sampling_damping(0.1)
    sampling_damping(0.1, share=1)
    """
    return SamplingDamping(least, share)


def check_damping(value: Damping) -> None:
    """Raise unless it is damping.

    Args:
      value: A number >= 0, a schedule, or ``sampling_damping()``.

    Raises:
      TypeError: It is something else.
      ValueError: It is out of range.
    """
    if not isinstance(value, SamplingDamping):
        check_number("damping", value)


def damping_at(
    damping: Damping,
    count: jax.Array,
    statistics: Statistics,
    factors: tuple[StructuredMatrix, StructuredMatrix],
    *,
    is_relative: bool,
) -> jax.Array:
    """λ of a layer at a step, in the units of its mode.

    Args:
      damping: What the user said.
      count: The step.
      statistics: Of the layer.
      factors: K and C, in whose structures the moments are.
      is_relative: Whether λ is times the means of both moments.

    Returns:
      A number, or one for each matrix of a stack.
    """
    if not isinstance(damping, SamplingDamping):
        value = hyperparameter_at(damping, count)
    else:
        value = hyperparameter_at(damping.least, count)
        if is_relative and statistics.rows is not None:
            rows = jnp.maximum(statistics.rows, 1)
            widths = _numbers_a_row(factors[0]) * _numbers_a_row(factors[1])
            value = jnp.maximum(value, damping.share * widths / rows**2)
    return value * statistics.mean_U * statistics.mean_G if is_relative else value


def _numbers_a_row(matrix: StructuredMatrix) -> float:
    """Of what a structure keeps: d of a dense matrix, 1 of a diagonal one."""
    stack = max(math.prod(matrix.batch_shape), 1)
    return sum(leaf.size for leaf in jax.tree.leaves(matrix)) / (stack * matrix.dim)
