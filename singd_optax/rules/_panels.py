"""A QR decomposition that compiles to two loops, whatever the size of the matrix."""

import jax
import jax.numpy as jnp
from jax import lax

from singd_optax.structures import contract

#: As wide as a tile of a TPU's registers.
_WIDTH = 128


def orthonormal_by_panels(matrices: jax.Array, width: int = _WIDTH) -> jax.Array:
    """Q of the QR decompositions of square matrices, by Householder's reflections in panels.

    TPUs have no routine for it: there the compiler writes out one of ``jnp.linalg.qr`` for the
    size, and takes minutes for thousands of rows. Here all panels are one loop. With unit vectors v
    for the reflections I - 2 v vᵀ of a panel as columns of V, their product is I - V T Vᵀ, with T
    upper triangular. A column of zeros is not reflected, and Q is orthonormal whatever the rank.

    Args:
      matrices: (..., dim, dim).
      width: The number of columns of a panel.

    Returns:
      Q, (..., dim, dim), as LAPACK's but for the sign of the last column.

    >>> Q = orthonormal_by_panels(jnp.array([[3.0, 1.0], [4.0, 2.0]]), width=2)
    >>> (Q[:, 0] * 5).round(4)
    Array([-3., -4.], dtype=float32)
    """
    dim = matrices.shape[-1]
    rest = -dim % width
    batch = [(0, 0)] * (matrices.ndim - 2)
    A = jnp.pad(matrices, [*batch, (0, rest), (0, rest)])
    rows = jnp.arange(dim + rest)
    places = jnp.arange(width)
    panels = (dim + rest) // width

    def cut(array: jax.Array, start: jax.Array, size: int) -> jax.Array:
        return lax.dynamic_slice_in_dim(array, start, size, axis=array.ndim - 1)

    def factored(panel: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
        """V and T of the panel that begins at this row."""

        def with_column(
            place: jax.Array, known: tuple[jax.Array, jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            X, V, T = known
            is_pivot = rows == start + place
            v = jnp.where(rows >= start + place, cut(X, place, 1)[..., 0], 0)
            largest = jnp.abs(v).max(-1, keepdims=True)
            v = v / jnp.where(largest > 0, largest, 1)
            pivot = jnp.where(is_pivot, v, 0).sum(-1, keepdims=True)
            norm = jnp.sqrt((v * v).sum(-1, keepdims=True))
            v = v + jnp.where(is_pivot, jnp.where(pivot < 0, -norm, norm), 0)
            norm = jnp.sqrt((v * v).sum(-1, keepdims=True))
            v = (v / jnp.where(norm > 0, norm, 1))[..., :, None]
            X = X - 2 * v * (v * X).sum(-2, keepdims=True)
            along = (V * v).sum(-2, keepdims=True)
            t = jnp.where(places == place, 2, 0) - 2 * (T * along).sum(-1)
            is_here = places == place
            return X, jnp.where(is_here, v, V), jnp.where(is_here, t[..., :, None], T)

        T = jnp.zeros_like(panel[..., :width, :])
        _, V, T = lax.fori_loop(0, width, with_column, (panel, jnp.zeros_like(panel), T))
        return V, T

    def reflected(V: jax.Array, T: jax.Array, matrix: jax.Array, equation: str) -> jax.Array:
        along = contract("...ik,...ij->...kj", V, matrix, precision="highest")
        along = contract(equation, T, along, precision="highest")
        return matrix - contract("...ik,...kj->...ij", V, along, precision="highest")

    def forwards(
        panel: jax.Array, known: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        A, Vs, Ts = known
        start = panel * width
        V, T = factored(cut(A, start, width), start)
        put = lambda whole, part: lax.dynamic_update_slice_in_dim(
            whole, part, start, axis=whole.ndim - 1
        )
        return reflected(V, T, A, "...lk,...lj->...kj"), put(Vs, V), put(Ts, T)

    def backwards(step: jax.Array, Q: jax.Array) -> jax.Array:
        start = (panels - 1 - step) * width
        return reflected(cut(Vs, start, width), cut(Ts, start, width), Q, "...kl,...lj->...kj")

    Ts = jnp.zeros_like(A[..., :width, :])
    _, Vs, Ts = lax.fori_loop(0, panels, forwards, (A, jnp.zeros_like(A), Ts))
    eye = jnp.zeros_like(A) + jnp.eye(dim + rest, dtype=A.dtype)
    return lax.fori_loop(0, panels, backwards, eye)[..., :dim, :dim]
