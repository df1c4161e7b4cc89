"""One differentiation of an NNX model for value, gradients and curvature."""

import functools
import inspect
from collections.abc import Callable

from flax import nnx

from singd_optax._types import LossFunction, PyTree
from singd_optax.capture._fisher import Fisher
from singd_optax.capture._gradients import (
    Differentiated,
    GradientOptions,
    scaled_loss,
    value_grad_and_curvature,
)
from singd_optax.capture._measuring import Measuring
from singd_optax.capture._mistakes import check_named_state
from singd_optax.capture._nnx_program import ModelProgram, as_pure, check_model
from singd_optax.capture._program import Arguments
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
    wrt: PyTree = nnx.Param,
) -> Callable[..., tuple[PyTree, nnx.State, dict[str, Statistics]]]:
    """Make an ``nnx.value_and_grad`` that also returns the curvature of the Kronecker layers.

    Curvature is the statistics of each layer: second moments of its inputs and of the gradients of
    its outputs, of which the optimizer makes the layer's factors K and C. The gradient function
    does one forward and one backward pass. Statistics are formed only on steps on which the
    optimizer refreshes its factors. Whatever the loss function changes (batch statistics, random
    states, caches, metrics) is changed, as by ``nnx.value_and_grad``; nothing else is.

    Args:
      loss_fn: ``loss_fn(model, *args, **kwargs)`` returns a scalar, or (scalar, aux) if
        ``has_aux``. It is differentiated with respect to the model's parameters.
      layers: The layers that ``singd_optax.nnx.find_layers`` found for the same loss function.
      has_aux: Whether ``loss_fn`` returns a pair.
      precision: The precision of the products that form statistics, as ``jax.numpy.einsum`` takes
        it.
      fisher: The output gradients that the curvature is made of: ``"empirical"``, those of the
        loss; ``"mc"``, those at labels drawn from the model's own prediction, for one more forward
        and backward pass on refresh steps; ``"ggn"``, the Gauss-Newton matrix exactly. The last two
        need ``tag_distribution`` in the loss function; see ``singd_optax.value_and_grad``.
      seed: The seed of the labels that ``"mc"`` draws, an int.
      wrt: Which variables are parameters, as ``nnx.Optimizer`` takes it; ``nnx.Param`` by default.

    Returns:
      ``grad_fn(model, *args, optimizer=optimizer, **kwargs)`` -> ``(value, grads, curvature)``,
      with ``(value, aux)`` for value if ``has_aux``. ``optimizer`` is the ``nnx.Optimizer``; or
      pass ``opt_state=``, its ``opt_state`` or one of an optax transformation. ``grads`` is what
      ``nnx.value_and_grad`` returns, and ``curvature`` a dict from paths of layers to
      ``Statistics``; hand both to ``optimizer.update(model, grads, curvature=curvature)``.
      ``loss_scale=`` and ``refresh=`` are as for ``singd_optax.value_and_grad``.

    Raises:
      TypeError: ``layers`` are something else, ``loss_fn`` is no function, or an option is of
        another type; when called, ``model`` is no NNX module.
      ValueError: An option is not legal. When called: the model or the optimizer's state do not
        match ``layers``, or the loss function named no distribution where one is needed.

    Example:
      >>> from flax import nnx
      >>> import jax.numpy as jnp, singd_optax
      >>> model = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
      >>> x = jnp.ones((8, 5))
      >>> loss_fn = lambda model, x: jnp.mean(model(x) ** 2)
      >>> layers = singd_optax.nnx.find_layers(loss_fn, model, x)
      >>> optimizer = nnx.Optimizer(model, singd_optax.singd(1e-2, layers), wrt=nnx.Param)
      >>> grad_fn = singd_optax.nnx.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(model, x, optimizer=optimizer)
      >>> updates = optimizer.update(model, grads, curvature=curvature)
      >>> curvature[""].H_K.to_dense().shape
      (6, 6)
    """
    options = GradientOptions(layers, has_aux, precision, fisher, seed, gate="taps")
    options.check(loss_fn)

    @functools.wraps(loss_fn)
    def grad_fn(
        model: nnx.Module,
        *args: PyTree,
        opt_state: PyTree = None,
        optimizer: nnx.Optimizer | None = None,
        loss_scale: PyTree = None,
        refresh: bool | None = None,
        **kwargs: PyTree,
    ) -> tuple[PyTree, nnx.State, dict[str, Statistics]]:
        check_model(model)
        if optimizer is not None:
            opt_state = optimizer.opt_state
        check_named_state(args, opt_state, "optimizer=optimizer")
        if opt_state is None:
            raise ValueError(
                "The gradient function needs the optimizer's state, which has the factors, got "
                "none. Call "
                "grad_fn(model, batch, optimizer=optimizer), where optimizer is nnx.Optimizer("
                "model, tx, wrt=nnx.Param) with one of singd_optax's optimizers as tx."
            )
        params = as_pure(nnx.state(model, wrt, graph=True))
        args, kwargs = _positional(loss_fn, model, args, kwargs)
        program = ModelProgram(loss_fn, model, args, kwargs, wrt, has_aux)
        is_sampled = fisher != "empirical"

        def plain() -> tuple[PyTree, nnx.State]:
            def loss(model: PyTree, *args: PyTree) -> PyTree:
                return scaled_loss(program.run(model, {}, (args, kwargs)), has_aux, loss_scale)

            value, grads = nnx.value_and_grad(
                loss,
                argnums=nnx.DiffState(0, wrt),
                has_aux=has_aux,
                graph=True,
                graph_updates=True,
            )(model, *args)
            return value, grads

        def differentiated(measuring: Measuring) -> Differentiated:
            if is_sampled:
                return *plain(), measuring.sampled()

            def tapped_loss(model: PyTree, slots: dict[str, Statistics], *args: PyTree) -> PyTree:
                loss = lambda carriers: program.run(model, carriers, (args, kwargs))
                return scaled_loss(measuring.run(slots, loss), has_aux, loss_scale)

            value, (grads, statistics) = nnx.value_and_grad(
                tapped_loss,
                argnums=(nnx.DiffState(0, wrt), 1),
                has_aux=has_aux,
                graph=True,
                graph_updates=True,
            )(model, measuring.slots, *args)
            return value, grads, statistics

        opt_state = as_pure(opt_state)
        return value_grad_and_curvature(
            options,
            program,
            params,
            "model",
            opt_state,
            loss_scale,
            refresh,
            plain,
            differentiated,
        )

    return grad_fn


def _positional(
    loss_fn: LossFunction, model: nnx.Module, args: tuple[PyTree, ...], kwargs: dict[str, PyTree]
) -> Arguments:
    """Arguments by place where they can be: NNX propagates what the loss changes in these."""
    if not kwargs:
        return args, kwargs
    bound = inspect.signature(loss_fn).bind(model, *args, **kwargs)
    bound.apply_defaults()
    return bound.args[1:], bound.kwargs
