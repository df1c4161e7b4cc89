"""What a loss says of its predictions, and Fisher gradients of it with respect to anything.

Statistics of layers come out of taps. Parameters that are in no layer have no tap: for these, the
gradient is taken whole, of one example at a time, with labels (or columns of the Hessian's root) in
the place of the loss's own output gradients.
"""

import itertools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.capture._distribution import Prediction
from singd_optax.capture._fisher import Fisher, GradientOf, no_prediction, with_gradient
from singd_optax.capture._session import LayerCall, Session, listening

#: A loss of parameters by path.
LossOfLeaves = Callable[[dict[str, jax.Array]], jax.Array]


class _Silent(Session):
    """Lets all calls run as they are; caches of inner functions are not shared with others."""

    def call(self, call: LayerCall, inputs: PyTree, run: Callable[[PyTree], PyTree]) -> PyTree:
        """Run it."""
        del call
        return run(inputs)


def predictions_of(loss: Callable[[], PyTree]) -> tuple[PyTree, list[Prediction]]:
    """What a loss returns, and what it named in this trace."""
    found: list[Prediction] = []
    with listening(_Silent(), found.append):
        return loss(), found


def fisher_squares(
    loss: LossOfLeaves, leaves: Mapping[str, jax.Array], fisher: Fisher, key: jax.Array
) -> dict[str, jax.Array]:
    """The diagonal of one example's Fisher information, for any parameters.

    Args:
      loss: Of these parameters: the mean over the example alone.
      leaves: The parameters, by path.
      fisher: ``"mc"`` draws one label, ``"ggn"`` sums over the columns of the Hessian's root, and
        ``"empirical"`` is the square of the gradient of ``loss``.
      key: Of the labels.

    Raises:
      ValueError: No distribution was named.
    """
    if fisher == "empirical":
        return _squares(jax.grad(loss)(dict(leaves)))

    columns: list[int] = []

    def note(leaves: dict[str, jax.Array]) -> jax.Array:
        value, found = predictions_of(lambda: loss(leaves))
        columns.extend(one.columns for one in found)
        return value

    jax.eval_shape(note, dict(leaves))
    if not columns:
        raise no_prediction(fisher)

    def squares(gradient_of: GradientOf) -> dict[str, jax.Array]:
        places = itertools.count()

        def listener(prediction: Prediction) -> jax.Array:
            gradient = gradient_of(next(places), prediction)
            return with_gradient(prediction.outputs, jax.lax.stop_gradient(gradient))

        def drawn(leaves: dict[str, jax.Array]) -> jax.Array:
            with listening(_Silent(), listener):
                return 0 * loss(leaves)  # what goes back is the listener's alone

        return _squares(jax.grad(drawn)(dict(leaves)))

    if fisher == "mc":
        keys = jax.random.split(key, len(columns))
        return squares(lambda place, p: p.sampled_gradient(keys[place], None))

    def add(
        total: dict[str, jax.Array], chosen: tuple[jax.Array, jax.Array]
    ) -> tuple[dict[str, jax.Array], None]:
        def column(place: int, prediction: Prediction) -> jax.Array:
            one = prediction.hessian_column(chosen[1], None)
            return jnp.where(chosen[0] == place, one, jnp.zeros_like(one))

        return jax.tree.map(jnp.add, total, squares(column)), None

    places = jnp.concatenate([jnp.full(count, place) for place, count in enumerate(columns)])
    indices = jnp.concatenate([jnp.arange(count) for count in columns])
    zeros = _squares(jax.tree.map(jnp.zeros_like, dict(leaves)))
    return jax.lax.scan(add, zeros, (places, indices))[0]


def _squares(gradients: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """At least in float32."""
    wide = lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    return {path: wide(leaf) ** 2 for path, leaf in gradients.items()}
