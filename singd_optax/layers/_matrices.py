"""Parameters as matrices by their shapes alone, for methods that see gradients only."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.layers._matrix_axes import MatrixAxes, axes_of
from singd_optax.layers._spec import accumulation_dtype_of, parse_options
from singd_optax.layers._tree import Leaves, check_not_flat
from singd_optax.layers._window import Window
from singd_optax.placement import OneDevice, ParameterAxes, Placement
from singd_optax.structures import Identity, Structure


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatrixSpec:
    """How one parameter makes a matrix (or a stack of them); static and hashable.

    Attributes:
      path: The name of the matrix: the keys that lead to the parameter, joined by slashes; with
        the axis in brackets where each axis is preconditioned by itself.
      parameter: The path of the parameter.
      shape: The parameter's shape.
      dtype: The parameter's dtype, by name.
      rows: The axes that are merged to rows.
      columns: The axes that are merged to columns. Axes in neither run over separate matrices.
      tiles: (Axis, count) pairs: axes that are cut into so many parts, which are separate matrices.
      positions: Those of the rows and columns that are positions of a convolution's window.
      structures: The structures of the factors (the matrices that multiply gradients) of (rows,
        columns), choices (``Auto``) resolved.
      factor_dtype: The dtypes, by name, in which these factors are kept.
      placement: Which devices hold what of the factors, see ``singd_optax.sharding``.

    >>> spec = MatrixSpec(
    ...     path="qkv/kernel", parameter="qkv/kernel", shape=(12, 768, 2304), dtype="float32",
    ...     rows=(1,), columns=(2,), tiles=((2, 3),), structures=(Structure, Structure),
    ...     factor_dtype=("float32", "float32"))
    >>> spec.stack_shape, spec.dims
    ((12, 3), (768, 768))
    """

    path: str
    parameter: str
    shape: tuple[int, ...]
    dtype: str
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    tiles: tuple[tuple[int, int], ...] = ()
    positions: tuple[int, ...] = ()
    structures: tuple[Structure, Structure]
    factor_dtype: tuple[str, str]
    placement: Placement = dataclasses.field(default_factory=OneDevice)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """A dict from the path of the parameter to its shape."""
        return {self.parameter: self.shape}

    @property
    def axes(self) -> ParameterAxes:
        """Which axes of the parameter run over a stack, and which make rows and columns."""
        tiled = dict(self.tiles)
        rows, columns = (
            tuple(axis for axis in side if axis not in tiled) for side in (self.rows, self.columns)
        )
        return ParameterAxes((*self._whole_stack, *(None for _ in self.tiles)), rows, columns)

    @property
    def window(self) -> Window | None:
        """Where positions of a convolution are in the matrix; None if it is no convolution's."""
        if not self.positions:
            return None
        tiled, own = dict(self.tiles), (*self.rows, *self.columns)
        sizes = tuple(self.shape[axis] // tiled.get(axis, 1) for axis in own)
        rank = len(self.rows)
        return Window(sizes[:rank], sizes[rank:], tuple(map(own.index, self.positions)))

    @property
    def stacks_with_others(self) -> bool:
        """Whether its state may be kept in one stack with those of equal matrices.

        It may unless each has its place on a mesh.
        """
        return self.placement == OneDevice()

    @property
    def described(self) -> str:
        """What it is, in words for the printed table: "matrix"."""
        return "matrix"

    @property
    def sharing(self) -> str:
        """That nothing is measured of it, in words for the printed table."""
        return "gradients only"

    def with_options(self, **options: object) -> "MatrixSpec":
        """A copy with other ``structures`` or ``factor_dtype``, checked.

        Raises:
          ValueError: An option is not legal, or is of measured layers.
        """
        unknown = [name for name in options if name not in ("structures", "factor_dtype")]
        if unknown:
            raise ValueError(
                f"`{unknown[0]}` is an option of layers that are measured, and {self.path!r} is a "
                "matrix from find_matrices, whose options are `structures` and `factor_dtype`. "
                "For layers, call find_layers."
            )
        return _resolved(dataclasses.replace(self, **parse_options(self.dtype, **options)))

    @property
    def _whole_stack(self) -> tuple[int, ...]:
        """The axes that run over separate matrices."""
        own = self.rows + self.columns
        return tuple(axis for axis in range(len(self.shape)) if axis not in own)

    @property
    def _cut_shape(self) -> tuple[int, ...]:
        """The shape with a leading axis for each tiled one, which is shorter."""
        tiled = dict(self.tiles)
        return tuple(
            part
            for axis, size in enumerate(self.shape)
            for part in ((tiled[axis], size // tiled[axis]) if axis in tiled else (size,))
        )

    @property
    def _order(self) -> tuple[int, ...]:
        """The axes of the cut shape in the order (stack, tiles, rows, columns)."""
        tiled = dict(self.tiles)
        places = {axis: axis + sum(t <= axis for t in tiled) for axis in range(len(self.shape))}
        of = lambda axes: tuple(places[axis] for axis in axes)
        return (
            *of(self._whole_stack),
            *(places[axis] - 1 for axis in tiled),
            *of(self.rows),
            *of(self.columns),
        )

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """How many separate matrices the parameter makes along each axis; ``()`` for one."""
        tiles = (count for _, count in self.tiles)
        return (*(self.shape[axis] for axis in self._whole_stack), *tiles)

    @property
    def dims(self) -> tuple[int, int]:
        """The numbers of rows and of columns of the matrix."""
        tiled = dict(self.tiles)
        row_count, column_count = (
            math.prod(self.shape[axis] // tiled.get(axis, 1) for axis in axes)
            for axes in (self.rows, self.columns)
        )
        return row_count, column_count

    @property
    def statistics_dtype(self) -> jnp.dtype:
        """The dtype of statistics: float32, or float64 for a float64 parameter."""
        return accumulation_dtype_of(self.dtype)

    def to_matrix(self, *arrays: jax.Array) -> jax.Array:
        """The parameter (or its gradient) as matrices (*stack_shape, rows, columns)."""
        (array,) = arrays
        turned = jnp.transpose(array.reshape(self._cut_shape), self._order)
        return turned.reshape(*self.stack_shape, *self.dims)

    def from_matrix(self, matrix: jax.Array) -> tuple[jax.Array, ...]:
        """The inverse of ``to_matrix``: matrices as a tuple with the one parameter."""
        order = self._order
        turned = matrix.reshape([self._cut_shape[axis] for axis in order])
        back = jnp.transpose(turned, sorted(range(len(order)), key=order.__getitem__))
        return (back.reshape(self.shape),)


def matrix_specs(
    leaves: Leaves,
    *,
    structures: PyTree,
    factor_dtype: PyTree = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
) -> dict[str, MatrixSpec]:
    """The parameters of a tree that are matrices; scalars, vectors and integers are left out.

    Args:
      leaves: Parameters, or gradients.
      structures: The structures of the factors of rows and columns, one or a pair, as
        ``parse_structure`` takes.
      factor_dtype: The dtype of the factors, one or a pair; None is float32, or float64 for
        float64.
      matrix_axes: Regular expression on the whole path -> how such a parameter makes matrices, see
        ``MatrixAxes``. The first that matches counts; parameters without a match are cut.

    Returns:
      Name -> how it is a matrix.

    Raises:
      ValueError: Axes do not fit a parameter, or an option is not legal.

    >>> params = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4), "blocks": jnp.ones((2, 5, 6))}
    >>> specs = matrix_specs(
    ...     Leaves(params), structures="dense", matrix_axes={"blocks": ((1,), (2,))})
    >>> {path: (spec.stack_shape, spec.dims) for path, spec in specs.items()}
    {'blocks': ((2,), (5, 6)), 'kernel': ((), (3, 4))}
    """
    if "" in leaves and len(leaves[""].shape) < 2:
        check_not_flat(leaves, "params")
    specs = {}
    for path in leaves:
        leaf = leaves[path]
        shape = jnp.shape(leaf)
        dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            continue
        options = parse_options(dtype.name, structures=structures, factor_dtype=factor_dtype)
        for name, axes, is_one_sided in axes_of(path, shape, matrix_axes):
            spec = MatrixSpec(
                path=name,
                parameter=path,
                shape=shape,
                dtype=dtype.name,
                rows=axes.rows,
                columns=axes.columns,
                tiles=tuple(sorted(axes.tiles.items())),
                positions=axes.positions,
                **options,
            )
            if is_one_sided:
                spec = dataclasses.replace(spec, structures=(spec.structures[0], Identity()))
            specs[name] = _resolved(spec)
    return specs


def _resolved(spec: MatrixSpec) -> MatrixSpec:
    """The same, with structures that were chosen by size."""
    rows, columns = (s.resolve(dim) for s, dim in zip(spec.structures, spec.dims, strict=True))
    return dataclasses.replace(spec, structures=(rows, columns))
