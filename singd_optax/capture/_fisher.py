"""Whose output gradients the statistics are made of: the Fisher information's three flavours."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from singd_optax._types import PyTree
from singd_optax.capture._distribution import Prediction
from singd_optax.capture._session import PredictionListener, predicting
from singd_optax.layers import LayerSpec
from singd_optax.measures import Statistics

Fisher = Literal["empirical", "mc", "ggn"]
FISHERS: tuple[Fisher, ...] = ("empirical", "mc", "ggn")

StatisticsByLayer = dict[str, Statistics]
Loss = Callable[[PyTree, StatisticsByLayer], PyTree]

#: The output gradient of a prediction, the k-th of the loss.
GradientOf = Callable[[int, Prediction], jax.Array]


class Sampling(NamedTuple):
    """What ``"mc"`` and ``"ggn"`` need beside the loss.

    Attributes:
      due: Whether this step refreshes any layer; True if that is known.
      key: A random key of this step.
      loss_average: The ``loss_average`` of all layers.
      loss_scale: The number by which output gradients are multiplied for the backward pass; None
        for 1.
    """

    due: jax.Array | bool
    key: jax.Array
    loss_average: str | None
    loss_scale: PyTree = None


def differentiate(
    loss: Loss,
    params: PyTree,
    slots: StatisticsByLayer,
    has_aux: bool,
    fisher: Fisher,
    sampling: Sampling,
) -> tuple[PyTree, PyTree, StatisticsByLayer]:
    """Value, gradients and statistics of a tapped ``loss(params, slots)``.

    The "gradients" of slots, which are zeros, are statistics: in one backward pass with those of
    the parameters, or for ``"mc"`` and ``"ggn"`` in others, on refresh steps.
    """
    if fisher == "empirical":
        value, (grads, curvature) = jax.value_and_grad(loss, (0, 1), has_aux=has_aux)(params, slots)
        return value, grads, curvature

    found: list[Prediction] = []

    def with_outputs(params: PyTree, slots: StatisticsByLayer) -> PyTree:
        found.clear()
        with predicting(found.append):
            result = loss(params, slots)
        value, aux = result if has_aux else (result, None)
        # Predictions leave through the outputs; only what is static may stay in `found`.
        outputs = [prediction.outputs for prediction in found]
        return (value, outputs), (aux, [prediction.weights for prediction in found])

    (value, outputs), pull, (aux, weights) = jax.vjp(with_outputs, params, slots, has_aux=True)
    if not outputs:
        raise no_prediction(fisher)
    tagged = [
        Prediction(output, old.name, old.standard_deviation, weight)
        for old, output, weight in zip(found, outputs, weights, strict=True)
    ]
    one = jnp.ones((), value.dtype)
    # The statistics of this pass are not used, so that they are never computed.
    grads, _ = pull((one, jax.tree.map(jnp.zeros_like, outputs)))

    def one_pass(gradient_of: GradientOf) -> StatisticsByLayer:
        gradients = [gradient_of(place, prediction) for place, prediction in enumerate(tagged)]
        return pull((jnp.zeros_like(one), gradients))[1]

    columns = [prediction.columns for prediction in tagged]
    curvature = _statistics(one_pass, columns, slots, fisher, sampling)
    return ((value, aux) if has_aux else value), grads, curvature


def sampled_statistics(
    statistics_of: Callable[[PredictionListener], StatisticsByLayer],
    columns: Sequence[int],
    slots: StatisticsByLayer,
    fisher: Fisher,
    sampling: Sampling,
) -> StatisticsByLayer:
    """Statistics of a loss that names its predictions where its outputs cannot be had.

    ``statistics_of`` makes one pass of the loss of its own, in which ``tag_distribution`` calls the
    listener; ``columns`` are those of the root of each prediction's Hessian.
    """
    if not columns:
        raise no_prediction(fisher)

    def one_pass(gradient_of: GradientOf) -> StatisticsByLayer:
        places = itertools.count()

        def listener(prediction: Prediction) -> jax.Array:
            gradient = gradient_of(next(places), prediction)
            return with_gradient(prediction.outputs, jax.lax.stop_gradient(gradient))

        return statistics_of(listener)

    return _statistics(one_pass, columns, slots, fisher, sampling)


def _statistics(
    one_pass: Callable[[GradientOf], StatisticsByLayer],
    columns: Sequence[int],
    slots: StatisticsByLayer,
    fisher: Fisher,
    sampling: Sampling,
) -> StatisticsByLayer:
    """Statistics of one pass with drawn gradients, or of a pass for each column; zeros if not due.

    ``one_pass`` forms them of the output gradients of all predictions.
    """

    def scaled(gradient: jax.Array) -> jax.Array:
        scale = sampling.loss_scale
        return gradient if scale is None else gradient * jnp.asarray(scale, gradient.dtype)

    def monte_carlo() -> StatisticsByLayer:
        keys = jax.random.split(sampling.key, len(columns))
        return one_pass(
            lambda place, p: scaled(p.sampled_gradient(keys[place], sampling.loss_average))
        )

    def exact() -> StatisticsByLayer:
        total = sum(columns)

        def add(
            summed: StatisticsByLayer, chosen: tuple[jax.Array, jax.Array]
        ) -> tuple[StatisticsByLayer, None]:
            def column(place: int, prediction: Prediction) -> jax.Array:
                one = scaled(prediction.hessian_column(chosen[1], sampling.loss_average))
                return jnp.where(chosen[0] == place, one, jnp.zeros_like(one))

            # Output gradients add up over the passes; each sees the same inputs.
            formed = {
                path: statistics.weighed(inputs=1 / total)
                for path, statistics in one_pass(column).items()
            }
            return jax.tree.map(jnp.add, summed, formed), None

        places = jnp.asarray(np.repeat(np.arange(len(columns)), columns))
        indices = jnp.asarray(np.concatenate([np.arange(count) for count in columns]))
        zeros = jax.tree.map(jnp.zeros_like, slots)
        return jax.lax.scan(add, zeros, (places, indices))[0]

    form = monte_carlo if fisher == "mc" else exact
    if sampling.due is True:
        return form()
    return jax.lax.cond(sampling.due, form, lambda: jax.tree.map(jnp.zeros_like, slots))


@jax.custom_vjp
def with_gradient(outputs: jax.Array, gradient: jax.Array) -> jax.Array:
    """The outputs, whose gradient is this one whatever the loss makes of them."""
    del gradient
    return outputs


with_gradient.defvjp(
    lambda outputs, gradient: (outputs, gradient), lambda gradient, _: (gradient, None)
)


def no_prediction(fisher: str) -> ValueError:
    """For a loss that names no distribution."""
    return ValueError(
        f"fisher={fisher!r} needs the distribution that the model predicts, and the loss "
        "function named none. Inside of it, write outputs = singd_optax.tag_distribution(outputs, "
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
            "fisher='mc' and 'ggn' are of the whole loss, so that all layers must have one "
            f"loss_average, got {', '.join(sorted(map(repr, averages)))}. Set it by "
            "layers.replace('', loss_average=...)."
        )
    return averages.pop()
