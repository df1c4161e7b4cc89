"""SOAP (arXiv 2409.11321), as a peer whose price is measured: AdamW in a slowly turning basis.

For each axis of a parameter, an average of the gradient's Gram matrix along it, and an orthogonal
basis Q near its eigenvectors: all Q start at I, and every ``refresh_every`` steps one orthogonal
iteration moves them, Q <- qr(gram Q). The moments are those of the gradient in the basis. As in
the authors' code vectors have no basis, and nor have axes longer than ``max_dim``: for them this is
AdamW. Unlike in it, the first step is taken (it is Adam's), and there is no eigendecomposition.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

#: For each parameter, one matrix for each axis, or None for an axis without a basis.
Matrices = list[tuple[jax.Array | None, ...]]


class SOAPState(NamedTuple):
    """Moments are in the bases of the last step; lists are in the order of the parameters."""

    count: jax.Array
    mu: list[jax.Array]
    nu: list[jax.Array]
    grams: Matrices
    bases: Matrices


def soap(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    refresh_every: int = 10,
    max_dim: int = 10_000,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer; ``b2`` is the decay of the Gram matrices, too."""

    def init(params: optax.Params) -> SOAPState:
        leaves = jax.tree.leaves(params)
        dims = [[dim if x.ndim > 1 and dim <= max_dim else None for dim in x.shape] for x in leaves]

        def matrices(make: Any) -> Matrices:
            return [tuple(None if dim is None else make(dim) for dim in own) for own in dims]

        zeros = lambda: [jnp.zeros_like(x) for x in leaves]
        return SOAPState(
            jnp.zeros([], jnp.int32),
            zeros(),
            zeros(),
            matrices(lambda dim: jnp.zeros((dim, dim))),
            matrices(jnp.eye),
        )

    def update(
        updates: optax.Updates, state: SOAPState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, SOAPState]:
        del params, extra
        gradients, treedef = jax.tree.flatten(updates)
        count = state.count + 1
        mu, nu, directions, grams = [], [], [], []
        own = zip(gradients, state.mu, state.nu, state.grams, state.bases, strict=True)
        for gradient, m, v, gram, bases in own:
            turned = _into(gradient, bases)
            mu.append(b1 * m + (1 - b1) * turned)
            nu.append(b2 * v + (1 - b2) * turned**2)
            root = jnp.sqrt(nu[-1] / (1 - b2**count))
            directions.append(_out_of(mu[-1] / (1 - b1**count) / (root + eps), bases))
            grams.append(
                tuple(
                    None if old is None else b2 * old + (1 - b2) * _gram(gradient, axis)
                    for axis, old in enumerate(gram)
                )
            )

        def turn(mu: list[jax.Array], bases: Matrices) -> tuple[list[jax.Array], Matrices]:
            new = [
                tuple(
                    None if Q is None else jnp.linalg.qr(gram @ Q)[0]
                    for gram, Q in zip(*pair, strict=True)
                )
                for pair in zip(grams, bases, strict=True)
            ]
            parts = zip(mu, bases, new, strict=True)
            return [_into(_out_of(m, old), own) for m, old, own in parts], new

        due = state.count % refresh_every == 0
        mu, bases = jax.lax.cond(due, turn, lambda *same: same, mu, state.bases)
        return treedef.unflatten(directions), SOAPState(count, mu, nu, grams, bases)

    return optax.chain(
        optax.GradientTransformationExtraArgs(init, update),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def _gram(x: jax.Array, axis: int) -> jax.Array:
    """Of a tensor's slices along one axis."""
    rows = jnp.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    return rows @ rows.T


def _along(x: jax.Array, axis: int, matrix: jax.Array) -> jax.Array:
    """One axis multiplied by a matrix."""
    return jnp.moveaxis(jnp.tensordot(x, matrix, axes=(axis, 0)), -1, axis)


def _into(x: jax.Array, bases: tuple[jax.Array | None, ...]) -> jax.Array:
    """A tensor's coefficients in the bases of its axes."""
    for axis, Q in enumerate(bases):
        x = x if Q is None else _along(x, axis, Q)
    return x


def _out_of(x: jax.Array, bases: tuple[jax.Array | None, ...]) -> jax.Array:
    """The tensor that has these coefficients."""
    for axis, Q in enumerate(bases):
        x = x if Q is None else _along(x, axis, Q.T)
    return x
