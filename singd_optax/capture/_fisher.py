"""Whose output gradients the statistics are made of: the Fisher information's three flavours."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from singd_optax.capture._distribution import Prediction, predictions
from singd_optax.layers import LayerSpec
from singd_optax.measures import Statistics

Fisher = Literal["empirical", "mc", "ggn"]
FISHERS: tuple[Fisher, ...] = ("empirical", "mc", "ggn")

Curvature = dict[str, Statistics]
Loss = Callable[[Any, Curvature], Any]
Listener = Callable[[Prediction], jax.Array]


class Sampling(NamedTuple):
    """What ``"mc"`` and ``"ggn"`` need beside the loss.

    Attributes:
      due: Whether this step refreshes any layer.
      key: A random key of this step.
      loss_average: Of all layers.
      loss_scale: By which output gradients are multiplied for the backward pass; None for 1.
    """

    due: jax.Array
    key: jax.Array
    loss_average: str | None
    loss_scale: Any = None


def differentiate(
    loss: Loss, params: Any, slots: Curvature, has_aux: bool, fisher: Fisher, sampling: Sampling
) -> tuple[Any, Any, Curvature]:
    """Value, gradients and statistics of a tapped loss.

    Args:
      loss: ``loss(params, slots)``; the "gradients" of slots are statistics.
      params: To differentiate for.
      slots: Zeros.
      has_aux: Whether the loss returns a pair.
      fisher: ``"empirical"``: output gradients are the loss's own, and one backward pass does it
        all. ``"mc"``: those at labels drawn from the model, by one more backward pass on refresh
        steps. ``"ggn"``: exact, by one backward pass for each column of the outputs' Hessian.
      sampling: For the last two.
    """
    if fisher == "empirical":
        value, (grads, curvature) = jax.value_and_grad(loss, (0, 1), has_aux=has_aux)(params, slots)
        return value, grads, curvature

    found: list[Prediction] = []

    def with_outputs(params: Any, slots: Curvature) -> Any:
        with predictions() as marked:
            result = loss(params, slots)
        found[:] = marked
        value, aux = result if has_aux else (result, None)
        # Predictions leave through the outputs; only what is static may stay in `found`.
        outputs = [prediction.outputs for prediction in marked]
        return (value, outputs), (aux, [prediction.weights for prediction in marked])

    (value, outputs), pull, (aux, weights) = jax.vjp(with_outputs, params, slots, has_aux=True)
    if not outputs:
        raise _no_prediction(fisher)
    marked = [
        Prediction(output, old.name, old.standard_deviation, weight)
        for old, output, weight in zip(found, outputs, weights, strict=True)
    ]
    one = jnp.ones((), value.dtype)
    # The statistics of this pass are not used, so that they are never computed.
    grads, _ = pull((one, jax.tree.map(jnp.zeros_like, outputs)))

    def statistics_of(gradients: list[jax.Array]) -> Curvature:
        if sampling.loss_scale is not None:
            gradients = [g * jnp.asarray(sampling.loss_scale, g.dtype) for g in gradients]
        _, curvature = pull((jnp.zeros_like(one), gradients))
        return curvature

    form = _monte_carlo if fisher == "mc" else _exact
    curvature = jax.lax.cond(
        sampling.due,
        lambda: form(statistics_of, marked, sampling),
        lambda: jax.tree.map(jnp.zeros_like, slots),
    )
    return ((value, aux) if has_aux else value), grads, curvature


def _monte_carlo(
    statistics_of: Callable[[list[jax.Array]], Curvature],
    marked: list[Prediction],
    sampling: Sampling,
) -> Curvature:
    keys = jax.random.split(sampling.key, len(marked))
    return statistics_of(
        [
            prediction.sampled_gradient(key, sampling.loss_average)
            for prediction, key in zip(marked, keys, strict=True)
        ]
    )


def _exact(
    statistics_of: Callable[[list[jax.Array]], Curvature],
    marked: list[Prediction],
    sampling: Sampling,
) -> Curvature:
    passes = sum(prediction.columns for prediction in marked)
    total: Curvature | None = None
    for place, current in enumerate(marked):

        def one_column(index: jax.Array, place: int = place) -> Curvature:
            gradients = [jnp.zeros_like(prediction.outputs) for prediction in marked]
            gradients[place] = marked[place].hessian_column(index, sampling.loss_average)
            # Output gradients add up over the passes; each sees the same inputs.
            return {
                path: statistics.weighed(inputs=1 / passes)
                for path, statistics in statistics_of(gradients).items()
            }

        def add(total: Curvature, index: jax.Array, form: Any = one_column) -> Any:
            return jax.tree.map(jnp.add, total, form(index)), None

        first = one_column(jnp.zeros((), jnp.int32))
        start = first if total is None else jax.tree.map(jnp.add, total, first)
        total = jax.lax.scan(add, start, jnp.arange(1, current.columns))[0]
    assert total is not None
    return total


def sampled_statistics(
    statistics_of: Callable[[Listener], Curvature],
    columns: Sequence[int],
    slots: Curvature,
    fisher: Fisher,
    sampling: Sampling,
) -> Curvature:
    """Statistics of a loss that names its predictions where its outputs cannot be had.

    Args:
      statistics_of: Makes one pass of the loss of its own, in which ``tag_distribution`` calls
        this listener.
      columns: For each prediction, how many columns the root of its Hessian has.
      slots: Zeros.
      fisher: ``"mc"`` or ``"ggn"``.
      sampling: As for ``differentiate``.

    Raises:
      ValueError: No prediction was named.
    """
    if not columns:
        raise _no_prediction(fisher)

    def one_pass(gradient_of: Callable[[int, Prediction], jax.Array]) -> Curvature:
        places = itertools.count()

        def listener(prediction: Prediction) -> jax.Array:
            gradient = gradient_of(next(places), prediction)
            if sampling.loss_scale is not None:
                gradient = gradient * jnp.asarray(sampling.loss_scale, gradient.dtype)
            return _with_gradient(prediction.outputs, jax.lax.stop_gradient(gradient))

        return statistics_of(listener)

    def monte_carlo() -> Curvature:
        keys = jax.random.split(sampling.key, len(columns))
        return one_pass(lambda place, p: p.sampled_gradient(keys[place], sampling.loss_average))

    def exact() -> Curvature:
        total = sum(columns)

        def add(summed: Curvature, chosen: tuple[jax.Array, jax.Array]) -> Any:
            def column(place: int, prediction: Prediction) -> jax.Array:
                one = prediction.hessian_column(chosen[1], sampling.loss_average)
                return jnp.where(chosen[0] == place, one, jnp.zeros_like(one))

            formed = {
                path: statistics.weighed(inputs=1 / total)
                for path, statistics in one_pass(column).items()
            }
            return jax.tree.map(jnp.add, summed, formed), None

        places = jnp.repeat(
            jnp.arange(len(columns)), jnp.asarray(columns), total_repeat_length=total
        )
        indices = jnp.concatenate([jnp.arange(count) for count in columns])
        zeros = jax.tree.map(jnp.zeros_like, slots)
        return jax.lax.scan(add, zeros, (places, indices))[0]

    return jax.lax.cond(
        sampling.due,
        monte_carlo if fisher == "mc" else exact,
        lambda: jax.tree.map(jnp.zeros_like, slots),
    )


@jax.custom_vjp
def _with_gradient(outputs: jax.Array, gradient: jax.Array) -> jax.Array:
    """The outputs, whose gradient is this one whatever the loss makes of them."""
    del gradient
    return outputs


_with_gradient.defvjp(
    lambda outputs, gradient: (outputs, gradient), lambda gradient, _: (gradient, None)
)


def _no_prediction(fisher: str) -> ValueError:
    return ValueError(
        f"fisher={fisher!r} needs the distribution that the model predicts, and the loss "
        "function named none. In it, write outputs = singd_optax.tag_distribution(outputs, "
        "'categorical') (or 'bernoulli', 'gaussian')."
    )


def common_loss_average(specs: Iterable[LayerSpec]) -> str | None:
    """The ``loss_average`` of all layers.

    Raises:
      ValueError: They have several.
    """
    averages = {spec.loss_average for spec in specs}
    if len(averages) != 1:
        raise ValueError(
            "fisher='mc' and 'ggn' sample labels for the whole loss, so that all layers must have "
            f"one loss_average, got {sorted(map(repr, averages))}."
        )
    return averages.pop()
