"""Going through a data set."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from singd_optax._types import LossFunction, PyTree

#: Something to go through, as often as there are passes, or a function that returns that.
Batches: TypeAlias = Iterable[PyTree] | Callable[[], Iterable[PyTree]]


def arguments(batches: Batches) -> Iterator[tuple[PyTree, ...]]:
    """Each batch as the arguments that come after the parameters.

    Raises:
      TypeError: This is nothing to go through.
    """
    batches = batches() if callable(batches) else batches
    # An array, a dict or a tuple of arrays is one batch, though Python can go through it.
    is_one = isinstance(batches, Mapping) or hasattr(batches, "shape")
    is_one |= isinstance(batches, tuple) and all(hasattr(one, "shape") for one in batches)
    if is_one or not hasattr(batches, "__iter__"):
        raise _no_batches(batches)
    iterator = iter(batches)
    for batch in iterator:
        yield batch if type(batch) is tuple else (batch,)


def whole_beside(params: PyTree) -> NamedSharding | None:
    """Of arrays that are whole on each device of the parameters' mesh; None without a mesh.

    A step that starts with arrays there, and hands on arrays there, is compiled once.
    """
    shardings = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(params))
    meshes = [one.mesh for one in shardings if isinstance(one, NamedSharding)]
    return NamedSharding(meshes[0], PartitionSpec()) if meshes else None


def copied_to(tree: PyTree, sharding: NamedSharding | None) -> PyTree:
    """A copy, there."""
    tree = jax.tree.map(jnp.array, tree)
    return tree if sharding is None else jax.device_put(tree, sharding)


def form_of(batch: tuple[PyTree, ...]) -> Hashable:
    """What a compiled step depends on: containers, shapes and dtypes."""
    leaves, treedef = jax.tree.flatten(batch)
    return treedef, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def check_examples(batch: tuple[PyTree, ...]) -> None:
    """Raise unless all arrays of a batch have examples along their first axis.

    Args:
      batch: Arguments.

    Raises:
      ValueError: They have not.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    if not shapes or any(not shape or shape[0] != shapes[0][0] for shape in shapes):
        raise ValueError(
            "One example at a time needs batches in which every array has the examples along its "
            f"first axis, got arrays of shapes {shapes}. Close the function over what is no "
            "example (of `fit`, it is others='diagonal' that needs this)."
        )


def _no_batches(batches: object) -> TypeError:
    return TypeError(
        "Batches must be an iterable of batches, or a function that returns one, got a "
        f"{type(batches).__name__}. For one batch, write [(x, y)]."
    )


def no_batch(what: str, batches: Batches) -> ValueError:
    """There is nothing in these batches, which have this name."""
    return ValueError(
        f"There is no batch in `{what}` (any more), got {type(batches).__name__}. Pass a list or a "
        "data loader with at least one batch, or a function that returns a new iterator for each "
        "pass."
    )


def check_batch(
    function: LossFunction,
    params: PyTree,
    batch: tuple[PyTree, ...],
    rank: int | None = 0,
    what: str = "The loss function",
) -> None:
    """Raise unless a function can be called with this batch, and returns an array of this rank.

    Args:
      function: Of parameters and the batch.
      params: Parameters.
      batch: Arguments.
      rank: None for any.
      what: What the function is.

    Raises:
      ValueError: It cannot, or returns something else.
    """
    shapes = jax.tree.map(lambda leaf: getattr(leaf, "shape", leaf), batch)
    try:
        value = jax.eval_shape(function, params, *batch)
    except Exception as error:  # of whatever the model is made with
        raise ValueError(
            f"{what} cannot be called with a batch: it is called as function(params, *batch), "
            f"with {len(batch)} argument(s) of shapes {shapes}, and raised "
            f"{type(error).__name__}: {error}. Make each batch a tuple of what it takes after the "
            "parameters."
        ) from error
    got = getattr(value, "shape", type(value).__name__)
    if rank is not None and (not hasattr(value, "shape") or len(value.shape) != rank):
        what = "a scalar" if rank == 0 else f"an array with {rank} axes"
        raise ValueError(
            f"The loss function must return {what}, got {got} for a batch of shapes {shapes}. "
            "Take the mean over the batch, and return no auxiliary values."
        )
