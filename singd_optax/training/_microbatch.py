"""Gradients and statistics of a batch, one micro-batch after another."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from singd_optax._types import PyTree
from singd_optax._validate import check_size
from singd_optax.layers import Layers, LayerSpec, measured_states
from singd_optax.layers._check import check_layers
from singd_optax.measures import by_origin

Accumulation = optax.microbatching.AccumulationType


def microbatch(
    grad_fn: Callable[..., PyTree],
    layers: Layers,
    microbatch_size: int,
    *,
    argnums: int | Sequence[int] = 1,
    argnames: str | Sequence[str] = (),
    in_axes: int | Sequence[int] = 0,
    has_aux: bool = False,
    aux: PyTree = Accumulation.MEAN,
) -> Callable[..., PyTree]:
    """Call ``grad_fn`` on one micro-batch after another, with the results of the whole batch.

    So only the activations of one micro-batch are held at a time. It is built on
    ``optax.microbatch``. For mean losses value, gradients and statistics are averaged. U is the
    second moment of a layer's inputs, and G that of its output gradients g: with n micro-batches of
    N/n examples and the factor N/n in each one's own G_i = (N/n) Σ g gᵀ (g of that micro-batch's
    mean loss, n times as large as of the whole's), the mean over i of G_i is G = N Σ g gᵀ of the
    whole, and likewise for U. For a sum loss (``loss_average=None``) value, gradients and G add up,
    and U is averaged. In both cases this is the full batch's result up to rounding, also after K
    and C whitened it, which is linear. Gradients are accumulated in at least float32. Micro-batches
    of one call are equally large; with ``position_weights``, and with losses that are a mean over a
    number of tokens that varies, the mean over micro-batches is not the mean over the whole.

    Args:
      grad_fn: The gradient function, from ``singd_optax.value_and_grad``.
      layers: The layers that ``grad_fn`` was made with.
      microbatch_size: The number of examples in a micro-batch, a divisor of the batch size.
      argnums: The positional arguments of ``grad_fn`` that have a batch axis, by number; params are
        number 0, and the default is 1, the first one after them.
      argnames: The keyword arguments of ``grad_fn`` that have a batch axis, by name.
      in_axes: The batch axis, one for all of these arguments or one for each.
      has_aux: Whether the loss function returns (loss, aux).
      aux: How aux is accumulated: an ``optax.microbatching.AccumulationType``, or a tree of them.

    Returns:
      A function that is called as ``grad_fn`` is, and returns what that does.

    Raises:
      TypeError: ``layers`` or ``microbatch_size`` are of another type.
      ValueError: Some layers have a sum loss and others a mean; when called, the size of the batch
        is no multiple of ``microbatch_size``.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, numpy as np, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jax.random.normal(jax.random.key(0), (32, 5))
      >>> params = model.init(jax.random.key(1), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> opt_state = singd_optax.singd(0.1, layers).init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> micro_fn = singd_optax.training.microbatch(grad_fn, layers, 8)
      >>> whole, parts = (fn(params, x, opt_state=opt_state) for fn in (grad_fn, micro_fn))
      >>> close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
      >>> _ = jax.tree.map(close, whole, parts)
    """
    check_layers(layers)
    check_size("microbatch_size", microbatch_size)
    total = Accumulation.SUM if is_sum_loss(layers) else Accumulation.MEAN

    @functools.wraps(grad_fn)
    def accumulated(
        params: PyTree,
        *args: PyTree,
        opt_state: PyTree = None,
        refresh: bool | None = None,
        **kwargs: PyTree,
    ) -> PyTree:
        states = {path: state for state in measured_states(opt_state) for path in state.rule_states}
        states = {} if refresh is False else states

        def wide(*args: PyTree, **kwargs: PyTree) -> PyTree:
            value, grads, curvature = grad_fn(*args, opt_state=opt_state, refresh=refresh, **kwargs)
            plain = {path: one._replace(measured_at=None) for path, one in curvature.items()}
            return value, jax.tree.map(_widen, grads), plain

        loop = optax.microbatch(
            wide,
            argnums,
            microbatch_size,
            (
                (total, aux) if has_aux else total,
                total,
                {
                    path: by_origin(
                        layers[path],
                        states[path].rule_tag.measures,
                        Accumulation.MEAN,
                        total,
                        Accumulation.SUM,
                    )
                    for path in sorted(states)
                },
            ),
            argnames=argnames,
            in_axes=in_axes,
        )
        value, grads, curvature = loop(params, *args, **kwargs)
        grads = jax.tree.map(lambda g, p: g.astype(jnp.result_type(p)), grads, params)
        counted = {
            path: one._replace(measured_at=states[path].rule_count)
            for path, one in curvature.items()
        }
        return value, grads, counted

    return accumulated


def is_sum_loss(layers: Layers) -> bool:
    """Whether the loss is a sum over the batch, and not a mean.

    Args:
      layers: The layers that ``find_layers`` found.

    Raises:
      ValueError: Some layers say so and others do not.
    """
    averages = {spec.loss_average for spec in layers.values() if isinstance(spec, LayerSpec)}
    if None in averages and len(averages) > 1:
        raise ValueError(
            f"All layers must have a loss_average, or all None, got {averages}: with None the loss "
            "is a sum over the batch, with others a mean. Micro-batches add up in the one case and "
            "are averaged in the other: set loss_average by find_layers for all layers alike."
        )
    return None in averages


def _widen(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
