"""Convolutions as Flax states them, and products along several axes."""

from collections.abc import Sequence

import jax
import numpy as np

from singd_optax.capture._layer_view import LayerView
from singd_optax.layers import Layout
from singd_optax.layers._convolution import Convolution
from singd_optax.layers._product import Product

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]

#: As Flax takes sizes of windows, strides and dilations.
GivenSizes = int | Sequence[int] | None


def read_convolution(layer: LayerView, input_shape: Sizes) -> tuple[Convolution, Layout]:
    """The geometry of a ``Conv`` of (leading, spatial, channels), and its kernel's layout."""
    window, strides, dilation, dilated = _window(layer)
    rank, padding = len(window), layer.padding
    spatial = input_shape[len(input_shape) - rank - 1 : -1]
    mode = "constant"
    if padding in ("CIRCULAR", "REFLECT"):
        mode = {"CIRCULAR": "wrap", "REFLECT": "reflect"}[padding]
        pads: Pads = tuple(((k - 1) // 2, k // 2) for k in dilated)
    elif padding == "CAUSAL":
        pads = ((dilated[0] - 1, 0),)
    elif isinstance(padding, str):
        pads = tuple(jax.lax.padtype_to_pads(spatial, dilated, strides, padding))
    else:
        pads = explicit_pads(padding, rank)
    operation = Convolution(
        window=window,
        padding=pads,
        strides=strides,
        kernel_dilation=dilation,
        input_dilation=(1,) * rank,
        groups=layer.feature_group_count,
        padding_mode=mode,
    )
    return operation, Layout(inputs=(rank, *range(rank)), outputs=(rank + 1,))


def read_conv_transpose(layer: LayerView) -> tuple[Convolution, Layout]:
    """The geometry of a transposed convolution and its kernel's layout.

    A convolution of inputs with zeros between them; ``"SAME"`` and ``"VALID"`` are padded so that
    the shapes are those of the transpose of such a convolution (``jax.lax.conv_transpose``).
    """
    window, strides, dilation, dilated = _window(layer)
    rank, padding, flipped = len(window), layer.padding, layer.transpose_kernel
    if isinstance(padding, str):
        pairs = zip(dilated, strides, strict=True)
        pads: Pads = tuple(_transposed_pads(size, stride, padding) for size, stride in pairs)
    else:
        pads = explicit_pads(padding, rank)
    operation = Convolution(
        window=window,
        padding=pads,
        strides=(1,) * rank,
        kernel_dilation=dilation,
        input_dilation=strides,
        flipped=flipped,
    )
    channels = (rank + 1, rank) if flipped else (rank, rank + 1)
    return operation, Layout(inputs=(channels[0], *range(rank)), outputs=(channels[1],))


def _window(layer: LayerView) -> tuple[Sizes, Sizes, Sizes, Sizes]:
    """For each spatial axis: the window, the strides, its dilation, and its size with that."""
    window = sizes_of(layer.kernel_size, 1)
    strides = sizes_of(layer.strides, len(window))
    dilation = sizes_of(layer.kernel_dilation, len(window))
    dilated = tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))
    return window, strides, dilation, dilated


def _transposed_pads(window: int, stride: int, padding: str) -> tuple[int, int]:
    if padding == "SAME":
        total = window + stride - 2
        low = window - 1 if stride > window - 1 else -(-total // 2)
    else:
        total = window + stride - 2 + max(window - stride, 0)
        low = window - 1
    return low, total - low


def sizes_of(value: GivenSizes, rank: int) -> Sizes:
    """An int for each spatial axis, from an int, a sequence or None (for 1)."""
    if value is None:
        return (1,) * rank
    return (int(value),) * rank if isinstance(value, int | np.integer) else tuple(map(int, value))


def explicit_pads(padding: int | Sequence[int | tuple[int, int]], rank: int) -> Pads:
    """(low, high) for each spatial axis, from an int, or a sequence of ints or pairs."""
    if isinstance(padding, int | np.integer):
        return ((int(padding), int(padding)),) * rank
    pairs = [(p, p) if isinstance(p, int | np.integer) else tuple(p) for p in padding]
    pairs = pairs * rank if len(pairs) == 1 else pairs
    return tuple((int(low), int(high)) for low, high in pairs)


def read_dense_general(layer: LayerView, input_rank: int) -> tuple[Product, Layout]:
    """The product of a layer that sums over several axes, and its kernel's layout."""
    axis, batch = sizes_of(layer.axis, 1), sizes_of(layer.batch_axes, 1)
    features = len(sizes_of(layer.features, 1))
    # Flax sorts both, so that the kernel's axes are in the order of the inputs'.
    summed = tuple(sorted(a % input_rank - input_rank for a in axis))
    shared = tuple(sorted(a % input_rank - input_rank for a in batch))
    output_rank = input_rank - len(axis) + features
    product = Product(
        inputs=summed,
        outputs=tuple(range(-features, 0)),
        input_batch=shared,
        output_batch=tuple(range(-output_rank, -output_rank + len(batch))),
    )
    ends = len(batch), len(batch) + len(axis)
    layout = Layout(
        inputs=tuple(range(*ends)),
        outputs=tuple(range(ends[1], ends[1] + features)),
        batch=tuple(range(len(batch))),
    )
    return product, layout
