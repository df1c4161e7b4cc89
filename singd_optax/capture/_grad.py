"""One differentiation for value, gradients and curvature."""

import functools
from collections.abc import Callable

import jax

from singd_optax._types import LossFunction, PyTree
from singd_optax.capture._fisher import Fisher, differentiate
from singd_optax.capture._gradients import (
    Differentiated,
    Gate,
    GradientOptions,
    scaled_loss,
    value_grad_and_curvature,
)
from singd_optax.capture._measuring import Measuring
from singd_optax.capture._mistakes import check_named_state
from singd_optax.capture._program import ParamsProgram
from singd_optax.layers import Layers
from singd_optax.measures import Statistics
from singd_optax.structures import Precision


def value_and_grad(
    loss_fn: LossFunction,
    layers: Layers,
    *,
    has_aux: bool = False,
    precision: Precision = "highest",
    fisher: Fisher = "empirical",
    seed: int = 0,
    gate: Gate | None = None,
) -> Callable[..., tuple[PyTree, PyTree, dict[str, Statistics]]]:
    """Make a ``jax.value_and_grad`` that also returns the curvature of the Kronecker layers.

    Curvature is the statistics of each layer: second moments of its inputs and of the gradients of
    its outputs, of which the optimizer makes the layer's factors K and C. The gradient function
    does one forward and one backward pass. Statistics are formed only on steps on which the
    optimizer refreshes its factors, which its state says; on all others they are zeros, at no cost.

    Args:
      loss_fn: ``loss_fn(params, *args, **kwargs)`` returns a scalar, or (scalar, aux) if
        ``has_aux``. It is differentiated with respect to ``params``.
      layers: The layers that ``find_layers`` found for the same loss function.
      has_aux: Whether ``loss_fn`` returns a pair.
      precision: The precision of the products that form statistics, as ``jax.numpy.einsum`` takes
        it.
      fisher: The output gradients that the curvature is made of. ``"empirical"``: those of the
        loss, which one backward pass gives for nothing; at a good fit, they are small where the
        model is right, and so is the curvature. ``"mc"``: those at labels drawn from the model's
        own prediction, an unbiased estimate of the Fisher information (here the Gauss-Newton
        matrix), for one more backward pass on refresh steps only; worth its price with few updates
        between, noisy labels, or curvature that is used for itself (Laplace approximations).
        ``"ggn"``: that matrix exactly, for one backward pass for each output of a position; for
        tests and very small models. Both need ``tag_distribution`` in the loss function.
      seed: The seed of the labels that ``"mc"`` draws, an int.
      gate: Where it is decided whether this step forms statistics. ``"taps"``: behind each layer, a
        branch for each, in a program that is hardly larger than that of the gradient. ``"top"``:
        one branch for all, between two programs of the gradient, which take twice as long to
        compile; for GPUs, where the host waits at each branch. None is "top" there (by the number
        of branches: it was not timed on one), and "taps" anywhere else. To have no branch at all,
        decide yourself: see ``refresh`` below.

    Returns:
      ``grad_fn(params, *args, opt_state=opt_state, loss_scale=None, refresh=None, **kwargs)`` ->
      ``(value, grads, curvature)``, with ``(value, aux)`` for value if ``has_aux``. ``curvature``
      is a dict from paths of layers to ``Statistics``; hand it to
      ``tx.update(grads, opt_state, params, curvature=curvature)`` with the same ``opt_state``.
      With a ``loss_scale``, for models that compute in float16, the backward pass is that of
      the loss (which is to be float32) times this number, which may be traced; value, gradients
      and statistics come out as without it, unless gradients overflow: then they are not finite.
      ``refresh`` is static: with True statistics are formed on this step whatever the state
      says, with False they are not (``curvature`` is empty, and the gradient's program that of
      ``jax.value_and_grad``). Hand it on to ``tx.update(..., refresh=refresh)``, see
      ``singd_optax.refresh_due``.

    Raises:
      TypeError: ``layers`` are something else, ``loss_fn`` is no function, or an option is of
        another type.
      ValueError: An option is not legal. When called: ``params`` or ``opt_state`` do not match
        ``layers``, or the loss function named no distribution where one is needed.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> tx = singd_optax.singd(1e-2, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      >>> updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      >>> curvature["params"].H_K.to_dense().shape
      (6, 6)
    """
    options = GradientOptions(layers, has_aux, precision, fisher, seed, gate)
    options.check(loss_fn)

    @functools.wraps(loss_fn)
    def grad_fn(
        params: PyTree,
        *args: PyTree,
        opt_state: PyTree = None,
        loss_scale: PyTree = None,
        refresh: bool | None = None,
        **kwargs: PyTree,
    ) -> tuple[PyTree, PyTree, dict[str, Statistics]]:
        check_named_state(args, opt_state, "opt_state=opt_state")
        program = ParamsProgram(loss_fn, params, args, kwargs, has_aux)

        def loss(params: PyTree, carriers: dict[str, PyTree]) -> PyTree:
            return program.run(params, carriers, (args, kwargs))

        def plain() -> tuple[PyTree, PyTree]:
            scaled = lambda params: scaled_loss(loss(params, {}), has_aux, loss_scale)
            return jax.value_and_grad(scaled, has_aux=has_aux)(params)

        def differentiated(measuring: Measuring) -> Differentiated:
            if measuring.is_named_inside:
                return *plain(), measuring.sampled()

            def tapped_loss(params: PyTree, slots: dict[str, Statistics]) -> PyTree:
                result = measuring.run(slots, lambda carriers: loss(params, carriers))
                return scaled_loss(result, has_aux, loss_scale)

            return differentiate(
                tapped_loss, params, measuring.slots, has_aux, fisher, measuring.sampling
            )

        return value_grad_and_curvature(
            options,
            program,
            params,
            "params",
            opt_state,
            loss_scale,
            refresh,
            plain,
            differentiated,
        )

    return grad_fn
