"""Updates of one size, whatever the optimizer that made them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._validate import check_number
from singd_optax.layers import (
    Layers,
    Leaves,
    check_layers,
)
from singd_optax.placement import laid_out_like, partitions_of
from singd_optax.rules import Hyperparameter
from singd_optax.transforms._params import present_layers
from singd_optax.transforms._running_size import scaled_to


class ConsistentRMSState(NamedTuple):
    """The state of ``scale_by_consistent_rms``.

    Attributes:
      layer_rms: Path of a layer -> the running root mean square of its update, one for each layer
        of a stack; 0 before the first update.
    """

    layer_rms: dict[str, jax.Array]


def scale_by_consistent_rms(
    layers: Layers, rms: float = 0.2, *, decay: Hyperparameter = 0.9
) -> optax.GradientTransformation:
    """Scale the update of each Kronecker layer to one root mean square.

    AdamW's updates have a root mean square of about 0.2 to 0.4 before the learning rate, whatever
    the layer's size; with this, its learning rates carry over. Kernel and bias of a layer are
    scaled together, layers of a stack one by one; all other parameters pass through.

    The size is constant as long as gradients come. Where they vanish (an expert that is not used,
    batches of padding, a loss of 0), what momentum is left of the update shrinks, and is not
    scaled up again: far below its running size, an update fades.

    Args:
      layers: From ``find_layers``.
      rms: The root mean square of each layer's update, before the learning rate.
      decay: Of the running mean square, a number in [0, 1). After momentum m, √m is a good one:
        the running size then shrinks at a quarter of momentum's pace.

    Returns:
      A transformation. An update of zeros stays zeros.

    Raises:
      ValueError: ``rms`` is not positive, or ``decay`` out of range. From ``init``: there are no
        parameters.
      TypeError: ``layers`` or a number is of another type.
    """
    check_layers(layers)
    check_number("rms", rms, strict=True, schedule=False)
    check_number("decay", decay, maximum=1, strict_maximum=True, schedule=False)

    def init_fn(params: optax.Params) -> ConsistentRMSState:
        specs = present_layers(layers, params)
        return ConsistentRMSState(
            {spec.path: jnp.zeros(spec.stack_shape, spec.statistics_dtype) for spec in specs}
        )

    def update_fn(
        updates: optax.Updates, state: ConsistentRMSState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ConsistentRMSState]:
        del params
        return laid_out_like(scaled_updates, partitions_of((updates, state)), updates, state)

    def scaled_updates(
        updates: optax.Updates, state: ConsistentRMSState
    ) -> tuple[optax.Updates, ConsistentRMSState]:
        leaves = Leaves(updates)
        changed, running = {}, dict(state.layer_rms)
        for path, last in state.layer_rms.items():
            spec = layers[path]
            if any(name not in leaves for name in spec.shapes):
                continue
            matrix = spec.to_matrix(*(leaves[name] for name in spec.shapes))
            scaled, running[path] = scaled_to(
                matrix.astype(spec.statistics_dtype), last, rms, decay
            )
            for name, leaf in zip(spec.shapes, spec.from_matrix(scaled), strict=True):
                changed[name] = leaf.astype(leaves[name].dtype)
        return leaves.replaced(changed), ConsistentRMSState(running)

    return optax.GradientTransformation(init_fn, update_fn)
