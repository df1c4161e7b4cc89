"""One example at a time: a vmapped function, on meshes too."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.placement import axes_of_first, explicit_axes, first_split, gathered_over

Tree = TypeVar("Tree")


def each_example(
    function: Callable[..., Tree], params: PyTree, *examples: PyTree, chunk: int | None = None
) -> Tree:
    """What a function returns for each example, along the first axis.

    On a mesh with Explicit axes the examples stay where they are, and are computed there. A mesh
    axis that splits them can split nothing else of what is computed for them: parameters that are
    split over it (FSDP) are gathered over it.

    Args:
      function: ``function(params, *example)``; an example keeps its first axis, of length 1.
      params: Parameters.
      *examples: Trees of arrays, (examples, ...).
      chunk: How many examples are computed at a time, on all devices; None for all.

    Raises:
      ValueError: On such a mesh the function cannot be called with one example.
    """
    axes = axes_of_first(examples)
    examples = first_split(examples, axes)
    params = gathered_over(params, axes)

    def one(example: tuple[PyTree, ...]) -> Tree:
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        try:
            return function(params, *alone)
        except Exception as error:
            if not explicit_axes():
                raise
            raise ValueError(
                "A model on a mesh with Explicit axes must run with a batch of one, as gradients "
                f"of one example each are needed here, and raised {type(error).__name__}: {error}. "
                "Let it take the mesh axis of the examples from its input, as in out_sharding="
                "P(jax.typeof(x).sharding.spec[0], ...), in the place of a name; or make the mesh "
                "with Auto axes."
            ) from error

    if chunk is None:
        return jax.vmap(one)(examples)
    if not axes:
        return jax.lax.map(one, examples, batch_size=chunk)
    # A loop over an axis that is split would have to gather it: this one is over what each
    # device has.
    mesh = jax.sharding.get_abstract_mesh()
    parts = 1
    for axis in axes:
        parts *= mesh.shape[axis]
    apart = lambda leaf: jnp.swapaxes(leaf.reshape(parts, -1, *leaf.shape[1:]), 0, 1)
    joined = lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])
    found = jax.lax.map(
        jax.vmap(one), jax.tree.map(apart, examples), batch_size=max(1, chunk // parts)
    )
    return jax.tree.map(joined, found)
