"""Markers: how the trace in which layers are found shows a call of a layer.

In that trace nothing is computed. The outputs of a call are replaced by a stand-in of their type,
which depends on the inputs and on a marker, but not on the kernel. The marker is a primitive, whose
operands are the call's kernel and bias: so a reader of the program sees which arrays these are,
and what else the loss owes to them is a use outside of the calls that are measured. Stand-ins have
derivatives, since a loss may take some: with respect to the inputs, and to the kernel.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive

#: ``CALL_MARKER(*arrays, index=, vmapped=)``: a scalar. ``index`` says which call it is, and
#: ``vmapped`` how many leading axes of each array a ``vmap`` runs over.
CALL_MARKER = Primitive("singd_optax_mark")
CALL_MARKER.def_impl(lambda *arrays, **params: jnp.zeros(()))
CALL_MARKER.def_abstract_eval(lambda *arrays, **params: jax.core.ShapedArray((), jnp.float32))


def insert_marker(index: int, arrays: Sequence[jax.Array]) -> jax.Array:
    """A scalar that depends on a call's marker, whose operands are the call's kernel and bias.

    It has no derivative, and can be made under every transformation.
    """

    @jax.custom_jvp
    def marked(*arrays: jax.Array) -> jax.Array:
        return _bind(index, (0,) * len(arrays))(*arrays)

    @marked.defjvp
    def _(
        primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, jax.Array]:
        del tangents
        return marked(*primals), jnp.zeros((), jnp.float32)

    return marked(*arrays)


def stand_in(
    gate: jax.Array,
    inputs: jax.Array,
    outputs: jax.Array,
    kernel: jax.Array | None,
    on_derivative: Callable[[], None] | None = None,
) -> jax.Array:
    """Something of the type of the outputs that depends on the inputs and on the gate.

    Args:
      gate: From ``insert_marker``.
      inputs: The inputs of the call; derivatives with respect to them depend on the gate, too.
      outputs: The outputs of the call, of which only the type is taken.
      kernel: With respect to which there are derivatives, that depend on inputs and gate.
      on_derivative: Called when the loss itself takes a derivative through the call; without it,
        derivatives in forward mode are as illegal as those of a tap.
    """
    total = (1 + gate) * jnp.sum(jnp.asarray(inputs).astype(jnp.float32))
    if kernel is not None:
        total = total + _derivative(kernel, total)
    result = jnp.zeros_like(outputs) + total.astype(outputs.dtype)
    return _reverse_mode_only(result) if on_derivative is None else _noted(on_derivative)(result)


@jax.custom_vjp
def _reverse_mode_only(outputs: jax.Array) -> jax.Array:
    return outputs


_reverse_mode_only.defvjp(
    lambda outputs: (_reverse_mode_only(outputs), None), lambda _, gradient: (gradient,)
)


def _noted(on_derivative: Callable[[], None]) -> Callable[[jax.Array], jax.Array]:
    """An identity that says when it is differentiated."""

    @jax.custom_jvp
    def identity(outputs: jax.Array) -> jax.Array:
        return outputs

    @identity.defjvp
    def _(
        primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, jax.Array]:
        on_derivative()
        return identity(*primals), tangents[0]

    return identity


def _bind(index: int, vmapped: tuple[int, ...]) -> Callable[..., jax.Array]:
    @custom_vmap
    def bind(*arrays: jax.Array) -> jax.Array:
        return CALL_MARKER.bind(*arrays, index=index, vmapped=vmapped)

    @bind.def_vmap
    def _(size: int, batched: list[bool], *arrays: jax.Array) -> tuple[jax.Array, bool]:
        del size
        counts = tuple(count + is_mapped for count, is_mapped in zip(vmapped, batched, strict=True))
        return _bind(index, counts)(*arrays), False

    return bind


@jax.custom_jvp
def _derivative(kernel: jax.Array, scale: jax.Array) -> jax.Array:
    """Zero, with derivatives with respect to all entries of the kernel."""
    del kernel, scale
    return jnp.zeros((), jnp.float32)


@_derivative.defjvp
def _(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    kernel, scale = primals
    return _derivative(kernel, scale), jnp.sum(tangents[0].astype(jnp.float32)) * scale
