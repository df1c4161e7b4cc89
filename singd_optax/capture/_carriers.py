"""Carriers: taps that travel beside a stacked kernel, through whatever slices it."""

import flax.struct
import jax

from singd_optax.capture._tap import Tap
from singd_optax.layers import LayerSpec
from singd_optax.measures import Measure
from singd_optax.structures import Precision


@flax.struct.dataclass
class TapCarrier:
    """A tap, its arrays laid out so that they are sliced as the kernel is.

    The static fields are part of every jit cache's key, so that a function that was traced with
    other options, or for another layer, is never taken for this one.
    """

    arrays: tuple[jax.Array, ...]
    treedef: jax.tree_util.PyTreeDef = flax.struct.field(pytree_node=False)
    shapes: tuple[tuple[int, ...], ...] = flax.struct.field(pytree_node=False)
    spec: LayerSpec = flax.struct.field(pytree_node=False)
    measures: tuple[Measure, ...] = flax.struct.field(pytree_node=False)
    precision: Precision = flax.struct.field(pytree_node=False)
    always: bool = flax.struct.field(pytree_node=False, default=False)

    @classmethod
    def of(cls, tap: Tap) -> "TapCarrier":
        """What travels for a tap of all layers of a stack."""
        arrays, treedef = jax.tree.flatten((tap.slot, tap.carried, tap.refresh))
        stacking, rank = tap.spec.stacking, len(tap.spec.kernel_shape)
        return cls(
            arrays=tuple(stacking.beside(array, rank) for array in arrays),
            treedef=treedef,
            shapes=tuple(array.shape[len(tap.spec.scan_shape) :] for array in arrays),
            spec=tap.spec,
            measures=tap.measures,
            precision=tap.precision,
            always=tap.always,
        )

    def tap(self) -> Tap:
        """The tap of the slice that is at hand."""
        arrays = [
            array.reshape(shape) for array, shape in zip(self.arrays, self.shapes, strict=True)
        ]
        slot, carried, refresh = jax.tree.unflatten(self.treedef, arrays)
        return Tap(
            slot,
            carried,
            refresh,
            self.spec,
            self.measures,
            self.precision,
            always=self.always,
        )
