"""A layer's rows formed by hand, in float64 and in numpy: slow, plain, and no code of the tap.

Rows are (kernel batch, examples, shared positions, features). A kernel without batch axes has a
first axis of size 1.
"""

import math

import numpy as np

from singd_optax.layers._convolution import Convolution
from singd_optax.layers._lookup import Lookup
from singd_optax.layers._operation import Operation
from singd_optax.layers._product import Product


def output_rows(operation: Operation, gradient: np.ndarray) -> np.ndarray:
    """The output gradients of a call as rows."""
    if isinstance(operation, Product):
        return _product(gradient, operation.output_batch, operation.outputs)
    split = gradient.ndim - 1 - (len(operation.window) if isinstance(operation, Convolution) else 0)
    return gradient.reshape(1, *_two(gradient.shape[:split], gradient.shape[split:-1]), -1)


def input_rows(operation: Operation, inputs: np.ndarray) -> np.ndarray:
    """The inputs of a call as rows; indices (examples, shared positions) where they are such.

    Channels of a convolution with groups are averaged over these, as its statistics want.
    """
    if isinstance(operation, Product):
        return _product(inputs, operation.input_batch, operation.inputs)
    if isinstance(operation, Convolution):
        groups = operation.groups
        split = inputs.reshape(*inputs.shape[:-1], groups, inputs.shape[-1] // groups)
        return _patches(operation, split.mean(-2))
    return inputs.reshape(_two(inputs.shape, ()))


def product(operation: Operation, inputs: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Σ a gᵀ, (kernel batch, inputs, outputs), without a row for the bias."""
    columns = output_rows(operation, gradient)
    if isinstance(operation, Lookup):
        table = np.zeros((operation.size, columns.shape[-1]))
        np.add.at(table, inputs.reshape(-1), columns.reshape(-1, columns.shape[-1]))
        return table[None]
    if not isinstance(operation, Convolution):
        return times(input_rows(operation, inputs), columns)
    # Each group of outputs sees its own channels.
    parts = np.split(inputs, operation.groups, axis=-1)
    seen = np.split(columns, operation.groups, axis=-1)
    pairs = zip(parts, seen, strict=True)
    return np.concatenate([times(_patches(operation, part), g) for part, g in pairs], axis=-1)


def squared_norms(operation: Operation, inputs: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Σ |a|² |g|², a with the entry of a bias: how large rounding errors of Σ a gᵀ may be."""
    columns = (output_rows(operation, gradient) ** 2).sum(-1)
    rows = input_rows(operation, inputs)
    squares = np.ones(rows.shape) if isinstance(operation, Lookup) else (rows**2).sum(-1) + 1
    return (squares * columns).sum((-2, -1))


def times(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The rows of one side times those of the other, for each kernel."""
    flat = [side.reshape(side.shape[0], -1, side.shape[-1]) for side in (rows, columns)]
    return np.swapaxes(flat[0], -1, -2) @ flat[1]


def _two(leading: tuple[int, ...], pixels: tuple[int, ...]) -> tuple[int, int]:
    """Examples, which run over the first axis, and positions, which are all others."""
    return (leading[0] if leading else 1), math.prod(leading[1:]) * math.prod(pixels)


def _product(array: np.ndarray, batch: tuple[int, ...], features: tuple[int, ...]) -> np.ndarray:
    own = [axis % array.ndim for axis in (*batch, *features)]
    leading = [axis for axis in range(array.ndim) if axis not in own]
    kernels = math.prod(array.shape[axis] for axis in own[: len(batch)])
    ordered = array.transpose(*own[: len(batch)], *leading, *own[len(batch) :])
    sizes = tuple(array.shape[axis] for axis in leading)
    return ordered.reshape(kernels, *_two(sizes, ()), -1)


def _patches(operation: Convolution, images: np.ndarray) -> np.ndarray:
    """(1, images, pixels, channels x window)."""
    rank = len(operation.window)
    leading, sizes = images.shape[: -1 - rank], images.shape[-1 - rank : -1]
    x = images.reshape(-1, *sizes, images.shape[-1])
    for axis, (step, (low, high)) in enumerate(
        zip(operation.input_dilation, operation.padding, strict=True), start=1
    ):
        x = _padded(x, axis, step, low, high, operation.padding_mode)
    spans = [
        (n - 1) * d + 1 for n, d in zip(operation.window, operation.kernel_dilation, strict=True)
    ]
    axes = tuple(range(1, rank + 1))
    views = np.lib.stride_tricks.sliding_window_view(x, spans, axis=axes)
    places = tuple(slice(None, None, step) for step in operation.strides)
    entries = tuple(slice(None, None, step) for step in operation.kernel_dilation)
    views = views[(slice(None), *places, slice(None), *entries)]
    if operation.flipped:
        views = np.flip(views, axis=tuple(range(-rank, 0)))
    features = math.prod(views.shape[-1 - rank :])
    pixels = views.shape[1 : 1 + rank]
    return views.reshape(1, *_two(leading, pixels), features)


def _padded(x: np.ndarray, axis: int, step: int, low: int, high: int, mode: str) -> np.ndarray:
    if step > 1:
        shape = list(x.shape)
        shape[axis] = (shape[axis] - 1) * step + 1
        wide = np.zeros(shape, x.dtype)
        wide[(slice(None),) * axis + (slice(None, None, step),)] = x
        x = wide
    pads = [(0, 0)] * x.ndim
    pads[axis] = max(low, 0), max(high, 0)
    x = np.pad(x, pads, mode=mode)  # type: ignore[call-overload]
    end = x.shape[axis] + min(high, 0)
    return x[(slice(None),) * axis + (slice(max(-low, 0), end),)]
