"""The statistics of a whole batch from those of its shards."""

from collections.abc import Hashable, Mapping

import jax

from singd_optax.measures import Statistics


def pmean_curvature(
    curvature: Mapping[str, Statistics], axis_name: Hashable
) -> dict[str, Statistics]:
    """The ``jax.lax.pmean`` of curvature, in which numbers of rows add up.

    Where each device has a shard of the batch (``jax.shard_map``, ``jax.pmap``), and the loss is a
    mean, this is the curvature of the whole batch as ``jax.lax.pmean`` of gradients is its
    gradient. With a plain ``jax.lax.pmean`` the moments are the same, but N in
    ``singd_optax.sampling_damping`` is that of one shard.

    Args:
      curvature: The curvature of a shard, which ``value_and_grad`` returned: statistics by path of
        a layer.
      axis_name: The name of the mesh axis over which the batch is split, or a tuple of several.

    Returns:
      The curvature of the whole batch.

    Example:
      >>> import flax.linen as nn, functools, jax, jax.numpy as jnp, singd_optax
      >>> from jax.sharding import PartitionSpec as P
      >>> model = nn.Dense(2)
      >>> x = jnp.ones((8, 3))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> opt_state = singd_optax.singd(0.1, layers).init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> specs = {"in_specs": (P(), P(), P("data")), "out_specs": P(), "check_vma": False}
      >>> @functools.partial(jax.shard_map, mesh=mesh, **specs)
      ... def measured(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   curvature = singd_optax.training.pmean_curvature(curvature, "data")
      ...   return *jax.lax.pmean((value, grads), "data"), curvature
      >>> float(measured(params, opt_state, x)[2]["params"].rows)
      8.0
    """
    return {path: _whole(one, axis_name) for path, one in curvature.items()}


def _whole(statistics: Statistics, axis_name: Hashable) -> Statistics:
    mean: Statistics = jax.lax.pmean(statistics, axis_name)
    rows = None if statistics.rows is None else jax.lax.psum(statistics.rows, axis_name)
    transposed = statistics.transposed and _whole(statistics.transposed, axis_name)
    return mean._replace(rows=rows, transposed=transposed)
