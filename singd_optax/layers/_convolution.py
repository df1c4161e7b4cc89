"""Convolutions of any rank: inputs are patches, which are never formed all at once."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from singd_optax._types import PyTree
from singd_optax.layers._operation import (
    Operation,
    PlainRows,
    Rows,
    Whitening,
    batch_and_shared,
    quadratic_of,
    safe_inverse,
    sketch_of,
    sum_of_parts,
    turned,
)
from singd_optax.structures import Columns, Precision, StructuredMatrix, contract

Sizes = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Convolution(Operation):
    """A convolution of (leading, spatial, channels) with a kernel (window, channels, outputs).

    Fan-in is ordered (channel, window). With groups, channels are averaged over the groups before
    patches are taken, as in the authors' package.

    Attributes:
      window: The kernel's spatial sizes.
      padding: (low, high) for each spatial axis; negative ones crop.
      strides: The strides of the window.
      kernel_dilation: Steps between the window's entries.
      input_dilation: Steps between the inputs' entries, zeros between (transposed convolutions).
      groups: Feature groups.
      padding_mode: ``"constant"`` (zeros), ``"wrap"`` or ``"reflect"``.
      flipped: Whether the kernel's spatial axes run backwards.
    """

    shares_leading: ClassVar[bool] = False

    window: Sizes
    padding: tuple[tuple[int, int], ...]
    strides: Sizes
    kernel_dilation: Sizes
    input_dilation: Sizes
    groups: int = 1
    padding_mode: str = "constant"
    flipped: bool = False

    def arrange(self, inputs: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images with a batch axis; a single one without it is a batch of one."""
        if inputs.ndim == len(self.window) + 1:
            return inputs[None], gradient[None]
        return inputs, gradient

    def leading(self, gradient: jax.Array) -> Sizes:
        """All axes but the channels."""
        return gradient.shape[:-1]

    def expected_leading(self, inputs: jax.Array) -> Sizes:
        """The images' axes, and the output's pixels."""
        split = inputs.ndim - len(self.window) - 1
        padded = [
            (size - 1) * step + 1 + sum(pad)
            for size, step, pad in zip(
                inputs.shape[split:-1], self.input_dilation, self.padding, strict=True
            )
        ]
        return (*inputs.shape[:split], *self.output_sizes(tuple(padded)))

    def input_rows(self, inputs: jax.Array) -> "PatchRows":
        """Patches, formed later, of the padded inputs."""
        rank = len(self.window)
        split = inputs.ndim - rank - 1
        batch, shared = batch_and_shared(inputs.shape[:split])
        images = inputs.reshape(batch, shared, *inputs.shape[split:])
        if self.groups > 1:
            channels = images.shape[-1] // self.groups
            images = images.reshape(*images.shape[:-1], self.groups, channels)
            images = images.mean(-2, dtype=jnp.promote_types(jnp.float32, images.dtype))
            images = images.astype(inputs.dtype)
        return PatchRows(self._padded(images), self)

    def output_rows(self, gradient: jax.Array) -> jax.Array:
        """The gradient at each pixel."""
        return gradient.reshape(*batch_and_shared(gradient.shape[:-1]), gradient.shape[-1])

    def _padded(self, images: jax.Array) -> jax.Array:
        if self.padding_mode != "constant":
            pads = [(0, 0), (0, 0), *self.padding, (0, 0)]
            return jnp.pad(images, pads, mode=self.padding_mode)
        pairs = zip(self.padding, self.input_dilation, strict=True)
        config = [(0, 0, 0), (0, 0, 0), *((*pad, step - 1) for pad, step in pairs), (0, 0, 0)]
        return jax.lax.pad(images, jnp.zeros((), images.dtype), config)

    def offsets(self) -> list[Sizes]:
        """Where in the padded inputs each entry of the window starts, in the kernel's order."""
        ranges = [range(size) for size in self.window]
        if self.flipped:
            ranges = [entries[::-1] for entries in ranges]
        return [
            tuple(entry * step for entry, step in zip(entries, self.kernel_dilation, strict=True))
            for entries in itertools.product(*ranges)
        ]

    def output_sizes(self, padded: Sizes) -> Sizes:
        """The outputs' spatial sizes, from those of the padded inputs."""
        return tuple(
            (size - (window - 1) * dilation - 1) // stride + 1
            for size, window, dilation, stride in zip(
                padded, self.window, self.kernel_dilation, self.strides, strict=True
            )
        )


@flax.struct.dataclass
class PatchRows(Rows):
    """Patches of images (batch, shared, spatial, channels), which are padded already."""

    images: jax.Array
    convolution: Convolution = flax.struct.field(pytree_node=False)

    def gram(
        self, factor: Whitening, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> tuple[StructuredMatrix, jax.Array]:
        """In the way that the factor's structure needs: see ``PatchColumns``."""
        columns = self._columns(weights, bias)
        squares = columns.squares(precision=precision).sum()
        return factor.gram_by_columns(columns, precision=precision), squares

    def sums(self, weights: jax.Array | None, bias: bool, precision: Precision) -> jax.Array:
        """One entry of the window after the other."""
        del precision
        columns = self._columns(weights, bias)
        total = columns.sums().sum(0)
        if not bias:
            return total
        return jnp.concatenate([total, columns.totals().sum(keepdims=True).astype(total.dtype)])

    def quadratic(
        self, matrix: StructuredMatrix | None, is_root: bool, bias: bool, precision: Precision
    ) -> jax.Array:
        """Of squares one entry of the window after the other; with a matrix, of parts of images."""
        columns = self._columns(None, bias)
        if matrix is None:
            found = columns.row_squares(precision=precision)
        else:
            form = lambda rows: quadratic_of(rows, matrix, is_root, precision)
            found = columns.map_parts(form)
        return found.reshape(self.images.shape[0], -1)

    def squared_products(
        self,
        basis: StructuredMatrix | None,
        gradients: jax.Array,
        bias: bool,
        exact: bool,
        precision: Precision,
    ) -> jax.Array:
        """Of parts of the examples, of which each is some images; exactly, one by one."""

        def form(part: tuple[jax.Array, jax.Array]) -> jax.Array:
            own = PatchRows(part[0], self.convolution)._columns(None, bias)
            rows = own._rows(0, own.shape[1]).astype(gradients.dtype)
            rows = turned(rows, basis, precision)
            flat = part[1].reshape(-1, part[1].shape[-1])
            if exact:
                return contract("ni,no->io", rows, flat, precision=precision) ** 2
            return contract("ni,no->io", rows**2, flat**2, precision=precision)

        most = 1 if exact else max(1, self.images.shape[0] // 8)
        return sum_of_parts(form, (self.images, gradients), most)

    def sketch(
        self, columns: jax.Array, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> jax.Array:
        """Of parts of the images, one after the other."""
        form = lambda rows: sketch_of(rows, columns, None, precision)
        total: jax.Array = self._columns(weights, bias).accumulate(form)
        return total

    def _columns(self, weights: jax.Array | None, bias: bool) -> "PatchColumns":
        images = self.images.reshape(-1, *self.images.shape[2:])
        return PatchColumns(images, self._pixel_weights(weights), bias, self.convolution)

    def averaged(self, weights: jax.Array | None) -> PlainRows:
        """Mean patches, by averaging once for each entry of the window."""
        batch, shared = self.images.shape[:2]
        columns = self._columns(weights, False)
        sums = columns.sums().reshape(batch, shared, -1).sum(1)
        total = columns.totals().reshape(batch, shared).sum(1)
        return PlainRows((sums * safe_inverse(total)[:, None])[:, None])

    def _pixel_weights(self, weights: jax.Array | None) -> jax.Array | None:
        if weights is None:
            return None
        sizes = self.convolution.output_sizes(self.images.shape[2:-1])
        return weights.reshape(-1, *sizes)


@flax.struct.dataclass
class PatchColumns(Columns):
    """Patches as rows: one for each image and output pixel, a column for each input of the kernel.

    Attributes:
      images: (images, spatial, channels), padded.
      weights: (images, output spatial), or None; each row is times the root of its weight.
      bias: Whether there is a last column of ones.
      convolution: The geometry.
    """

    images: jax.Array
    weights: jax.Array | None
    bias: bool = flax.struct.field(pytree_node=False)
    convolution: Convolution = flax.struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(images x output pixels, channels x window, and one more with a bias)."""
        window = math.prod(self.convolution.window)
        rows = self.images.shape[0] * math.prod(self._sizes)
        return rows, self.images.shape[-1] * window + self.bias

    @property
    def _sizes(self) -> Sizes:
        return self.convolution.output_sizes(self.images.shape[1:-1])

    def _view(self, images: jax.Array, offsets: jax.Array) -> jax.Array:
        """What one entry of the window sees, (images, output pixels, channels)."""
        strides = self.convolution.strides
        spans = [(n - 1) * step + 1 for n, step in zip(self._sizes, strides, strict=True)]
        zero = jnp.zeros((), offsets.dtype)
        shape = (images.shape[0], *spans, images.shape[-1])
        view = jax.lax.dynamic_slice(images, (zero, *offsets, zero), shape)
        view = jax.lax.slice(view, (0,) * view.ndim, view.shape, (1, *strides, 1))
        return view.reshape(images.shape[0], -1, images.shape[-1])

    def _each_view(self, form: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """``form`` (..., channels) of each view, one after the other, (..., channels x window)."""
        offsets = jnp.asarray(self.convolution.offsets(), jnp.int32)
        columns = jax.lax.map(lambda entry: form(self._view(self.images, entry)), offsets)
        columns = jnp.moveaxis(columns, 0, -1)
        return columns.reshape(*columns.shape[:-2], -1)

    def squares(self, *, precision: Precision = "highest") -> jax.Array:
        """Sums of squares, from one view at a time."""
        weights = None if self.weights is None else self.weights.reshape(self.images.shape[0], -1)

        def form(view: jax.Array) -> jax.Array:
            if weights is None:
                return contract("npc,npc->c", view, view, precision=precision)
            scale = weights.astype(view.dtype)
            return contract("npc,npc,np->c", view, view, scale, precision=precision)

        squares = self._each_view(form)
        if not self.bias:
            return squares
        return jnp.concatenate([squares, self.totals().sum(keepdims=True).astype(squares.dtype)])

    def row_squares(self, *, precision: Precision = "highest") -> jax.Array:
        """The sum of squares of each row, without its weight, (images, output pixels)."""

        def add(total: jax.Array, entry: jax.Array) -> tuple[jax.Array, None]:
            view = self._view(self.images, entry)
            return total + contract("npc,npc->np", view, view, precision=precision), None

        offsets = jnp.asarray(self.convolution.offsets(), jnp.int32)
        dtype = jnp.promote_types(jnp.float32, self.images.dtype)
        start = jnp.full((self.images.shape[0], math.prod(self._sizes)), float(self.bias), dtype)
        return jax.lax.scan(add, start, offsets)[0]

    def sums(self) -> jax.Array:
        """Weighted sums over pixels, (images, channels x window), at least float32."""
        weights = None if self.weights is None else self.weights.reshape(self.images.shape[0], -1)

        def form(view: jax.Array) -> jax.Array:
            if weights is None:
                return view.sum(1, dtype=jnp.promote_types(jnp.float32, view.dtype))
            return contract("npc,np->nc", view, weights.astype(view.dtype))

        return self._each_view(form)

    def totals(self) -> jax.Array:
        """The sum of weights over the pixels of each image."""
        count = self.images.shape[0]
        if self.weights is None:
            return jnp.full(count, float(math.prod(self._sizes)))
        return self.weights.reshape(count, -1).sum(1)

    def accumulate(
        self,
        form: Callable[[jax.Array], PyTree],
        start: jax.Array | int = 0,
        size: int | None = None,
    ) -> PyTree:
        """Sums over parts of at most an eighth of the images, if there are as many."""
        parts = self._parts()

        def form_part(columns: PatchColumns) -> PyTree:
            return form(columns._rows(start, self.shape[1] if size is None else size))

        def step(total: PyTree, columns: PatchColumns) -> tuple[PyTree, None]:
            return jax.tree.map(jnp.add, total, form_part(columns)), None

        one = jax.tree.map(lambda x: x[0], parts)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(form_part, one))
        return jax.lax.scan(step, zeros, parts)[0]

    def map_parts(self, form: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """``form`` of all columns of the rows, (rows, ...), of one part after the other."""
        found = jax.lax.map(lambda part: form(part._rows(0, self.shape[1])), self._parts())
        return found.reshape(-1, *found.shape[2:])

    def _parts(self) -> "PatchColumns":
        """Parts of at most an eighth of the images, along one more axis."""
        count = self.images.shape[0]
        part = max(d for d in range(1, max(1, count // 8) + 1) if count % d == 0)
        return jax.tree.map(lambda x: x.reshape(count // part, part, *x.shape[1:]), self)

    def _rows(self, start: jax.Array | int, size: int) -> jax.Array:
        """Columns ``start`` to ``start + size`` of all rows, from the channels they belong to."""
        window, channels = math.prod(self.convolution.window), self.images.shape[-1]
        width = min(channels, -(-(size + window - 1) // window))
        # The last channels bring the column of ones with them, as one more after theirs.
        first = jnp.minimum(start // window, channels - width)
        images = jax.lax.dynamic_slice_in_dim(self.images, first, width, axis=-1)
        views = [
            self._view(images, entry) for entry in np.asarray(self.convolution.offsets(), np.int32)
        ]
        views = [view.reshape(-1, width) for view in views]
        rows = jnp.stack(views, axis=-1).reshape(-1, width * window)
        if self.bias:
            rows = jnp.concatenate([rows, jnp.ones_like(rows[:, :1])], axis=1)
        if size != rows.shape[1]:
            rows = jax.lax.dynamic_slice_in_dim(rows, start - first * window, size, axis=1)
        return self._weighted(rows)

    def _weighted(self, rows: jax.Array) -> jax.Array:
        if self.weights is None:
            return rows
        return rows * jnp.sqrt(self.weights).reshape(-1, 1).astype(rows.dtype)
