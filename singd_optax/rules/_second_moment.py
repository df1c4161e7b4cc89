"""Second moments of single entries, whole or as a product of rows and columns."""

from typing import Literal

import jax
import jax.numpy as jnp

#: What is kept of the squares of entries.
SecondMoment = Literal["full", "factored"]
SECOND_MOMENTS: tuple[SecondMoment, ...] = ("full", "factored")


def adam_scaled(
    vector: jax.Array,
    second_moment: jax.Array,
    weight: jax.Array,
    decay: jax.Array,
    eps: jax.Array,
    is_turned: bool,
) -> jax.Array:
    """X / (√(V / w) + ε), between ± 1 / √(1 - b2).

    Coefficients in a basis are rounded by about the unit of rounding times the norm of all: so much
    is added to ε, or what rounding makes of zeros would be as large as all else.

    No single gradient is beyond that bound once V has seen it, and nor is an average of gradients
    that decays no slower than √b2. What is, was larger than V could hold, or is in a new basis.

    Args:
      vector: X, (*stack, rows, columns).
      second_moment: V, likewise.
      weight: w, the sum of weights of what V has seen, (*stack).
      decay: b2.
      eps: ε.
      is_turned: Whether X are coefficients in a basis.
    """
    unbiased = second_moment / jnp.where(weight > 0, weight, 1)[..., None, None]
    denominator = jnp.sqrt(unbiased) + eps
    if is_turned:
        denominator = denominator + rounding_of(jnp.sqrt(unbiased))
    scaled = vector / jnp.where(denominator > 0, denominator, 1)
    bound = (1 - decay) ** -0.5
    return jnp.clip(scaled, -bound, bound)


def rounding_of(coefficients: jax.Array) -> jax.Array:
    """By how much coefficients in a basis are rounded, (*stack, 1, 1): unit times norm."""
    largest = jnp.abs(coefficients).max((-2, -1), keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)
    norm = scale * jnp.sqrt(((coefficients / scale) ** 2).sum((-2, -1), keepdims=True))
    return jnp.finfo(coefficients.dtype).eps * norm


def rms_at_most(matrix: jax.Array, bound: float | None) -> jax.Array:
    """Matrices (*stack, rows, columns), those of a larger root mean square scaled to the bound."""
    if bound is None:
        return matrix
    largest = jnp.abs(matrix).max((-2, -1), keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)
    rms = scale * jnp.sqrt(((matrix / scale) ** 2).mean((-2, -1), keepdims=True))
    return matrix * jnp.minimum(1, bound / jnp.where(rms > 0, rms, 1))


def outer_moment(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """V of rank one with these means of its rows and of its columns: r cᵀ / mean(r).

    Args:
      rows: Means over columns, (*stack, rows).
      columns: Means over rows, (*stack, columns).
    """
    mean = rows.mean(-1)[..., None, None]
    return rows[..., :, None] * (columns[..., None, :] / jnp.where(mean > 0, mean, 1))
