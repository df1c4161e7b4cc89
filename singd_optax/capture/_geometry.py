"""Convolutions as Flax states them, and products along several axes."""

from collections.abc import Sequence

import jax
import numpy as np

from singd_optax.layers import Convolution, Layout, Product

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]

#: As Flax takes strides and dilations, and padding, which may also be a name.
GivenSizes = int | Sequence[int] | None
GivenPadding = str | int | Sequence[int | tuple[int, int]]


def read_convolution(
    kernel_size: int | Sequence[int],
    strides: GivenSizes,
    padding: GivenPadding,
    kernel_dilation: GivenSizes,
    *,
    groups: int,
    input_shape: Sizes,
) -> tuple[Convolution, Layout]:
    """The geometry of a Flax ``Conv`` and its kernel's layout.

    Args:
      kernel_size: The window.
      strides: For each spatial axis.
      padding: Likewise.
      kernel_dilation: Likewise.
      groups: Feature groups.
      input_shape: (leading, spatial, channels).
    """
    window, steps, dilation, dilated = _window(kernel_size, strides, kernel_dilation)
    rank = len(window)
    spatial = input_shape[len(input_shape) - rank - 1 : -1]
    mode = "constant"
    if padding in ("CIRCULAR", "REFLECT"):
        mode = {"CIRCULAR": "wrap", "REFLECT": "reflect"}[str(padding)]
        pads: Pads = tuple(((k - 1) // 2, k // 2) for k in dilated)
    elif padding == "CAUSAL":
        pads = ((dilated[0] - 1, 0),)
    elif isinstance(padding, str):
        pads = tuple(jax.lax.padtype_to_pads(spatial, dilated, steps, padding))
    else:
        pads = explicit_pads(padding, rank)
    operation = Convolution(
        window=window,
        padding=pads,
        strides=steps,
        kernel_dilation=dilation,
        input_dilation=(1,) * rank,
        groups=groups,
        padding_mode=mode,
    )
    return operation, Layout(inputs=(rank, *range(rank)), outputs=(rank + 1,))


def read_conv_transpose(
    kernel_size: int | Sequence[int],
    strides: GivenSizes,
    padding: GivenPadding,
    kernel_dilation: GivenSizes,
    *,
    flipped: bool,
) -> tuple[Convolution, Layout]:
    """The geometry of a Flax ``ConvTranspose`` and its kernel's layout.

    A convolution of inputs with zeros between them; ``"SAME"`` and ``"VALID"`` are padded so that
    the shapes are those of the transpose of such a convolution (``jax.lax.conv_transpose``).

    Args:
      kernel_size: The window.
      strides: For each spatial axis.
      padding: Likewise.
      kernel_dilation: Likewise.
      flipped: Whether the kernel is that of the convolution whose transpose this is.
    """
    window, steps, dilation, dilated = _window(kernel_size, strides, kernel_dilation)
    rank = len(window)
    if isinstance(padding, str):
        pairs = zip(dilated, steps, strict=True)
        pads: Pads = tuple(_transposed_pads(size, step, padding) for size, step in pairs)
    else:
        pads = explicit_pads(padding, rank)
    operation = Convolution(
        window=window,
        padding=pads,
        strides=(1,) * rank,
        kernel_dilation=dilation,
        input_dilation=steps,
        flipped=flipped,
    )
    channels = (rank + 1, rank) if flipped else (rank, rank + 1)
    return operation, Layout(inputs=(channels[0], *range(rank)), outputs=(channels[1],))


def _window(
    kernel_size: int | Sequence[int], strides: GivenSizes, kernel_dilation: GivenSizes
) -> tuple[Sizes, Sizes, Sizes, Sizes]:
    """For each spatial axis: the window, the strides, its dilation, and its size with that."""
    window = sizes_of(kernel_size, 1)
    rank = len(window)
    steps, dilation = sizes_of(strides, rank), sizes_of(kernel_dilation, rank)
    return (
        window,
        steps,
        dilation,
        tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)),
    )


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


def general_product(
    input_rank: int, axis: Sizes, batch: Sizes, features: int
) -> tuple[Product, Layout]:
    """The product of a Flax ``DenseGeneral`` or ``LinearGeneral``, and its kernel's layout.

    Args:
      input_rank: Of the inputs.
      axis: The axes that are summed over.
      batch: The axes that inputs and kernel share; the outputs have them first.
      features: How many axes the outputs get at their end.
    """
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
