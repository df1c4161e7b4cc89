"""Second moments of single entries, kept in full or as a product of rows and columns."""

from typing import Literal

import jax
import jax.numpy as jnp

#: How the averages of squared entries are kept.
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
    """Adam's step X / (√(V / w) + ε), kept between ± 1 / √(1 - b2).

    Rounding changes coefficients in a basis by about the unit of rounding times the norm of all.
    This is added to ε, or what rounding makes of zeros would become as large as all else.

    No gradient exceeds the bound once it is in V, nor does an average of gradients that decays no
    slower than √b2. Only what is in a new basis, or is larger than V can hold, is cut by it.

    Args:
      vector: X, (*stack, rows, columns).
      second_moment: V, (*stack, rows, columns).
      weight: w, the sum of the weights of all that is in V, (*stack).
      decay: b2, in [0, 1).
      eps: ε >= 0.
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
    """The rounding of coefficients in a basis, (*stack, 1, 1): its unit times their norm."""
    largest = jnp.abs(coefficients).max((-2, -1), keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)
    norm = scale * jnp.sqrt(((coefficients / scale) ** 2).sum((-2, -1), keepdims=True))
    return jnp.finfo(coefficients.dtype).eps * norm


def rms_at_most(matrix: jax.Array, bound: float | None) -> jax.Array:
    """The matrices (*stack, rows, columns), scaled down where their root mean square is larger."""
    if bound is None:
        return matrix
    largest = jnp.abs(matrix).max((-2, -1), keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)
    rms = scale * jnp.sqrt(((matrix / scale) ** 2).mean((-2, -1), keepdims=True))
    return matrix * jnp.minimum(1, bound / jnp.where(rms > 0, rms, 1))


def outer_moment(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """The matrix of rank one with these means of its rows and of its columns: r cᵀ / mean(r).

    Args:
      rows: r, the means over columns, (*stack, rows).
      columns: c, the means over rows, (*stack, columns).
    """
    mean = rows.mean(-1)[..., None, None]
    return rows[..., :, None] * (columns[..., None, :] / jnp.where(mean > 0, mean, 1))
