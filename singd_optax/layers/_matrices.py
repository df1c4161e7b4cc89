"""Parameters as matrices by their shapes alone, for methods that see gradients only."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from singd_optax._validate import check_pattern
from singd_optax.layers._spec import accumulation_dtype_of, parse_options
from singd_optax.layers._tree import Leaves, check_not_flat
from singd_optax.placement import OneDevice, ParameterAxes, Placement
from singd_optax.structures import Structure

#: The axes that make the rows, and those that make the columns; all others are stacked.
MatrixAxes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatrixSpec:
    """How one parameter makes a matrix (or a stack of them); static and hashable.

    Attributes:
      path: Keys that lead to the parameter, joined by slashes.
      shape: The parameter's shape.
      dtype: Its dtype, by name.
      rows: The axes that are merged to rows.
      columns: The axes that are merged to columns. Axes in neither run over separate matrices.
      structures: The structures of the factors of (rows, columns), choices (``Auto``) resolved.
      factor_dtype: The dtypes, by name, in which these are kept.
      placement: Which devices hold what of the factors, see ``singd_optax.sharding``.

    >>> spec = MatrixSpec(
    ...     path="attention/kernel", shape=(12, 768, 8, 64), dtype="float32", rows=(1,),
    ...     columns=(2, 3), structures=(Structure, Structure), factor_dtype=("float32", "float32"))
    >>> spec.stack_shape, spec.dims
    ((12,), (768, 512))
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    structures: tuple[Structure, Structure]
    factor_dtype: tuple[str, str]
    placement: Placement = dataclasses.field(default_factory=OneDevice)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Path -> shape of the parameter."""
        return {self.path: self.shape}

    @property
    def axes(self) -> ParameterAxes:
        """Which axes of the parameter run over a stack, and which make rows and columns."""
        return ParameterAxes(self.stack, self.rows, self.columns)

    @property
    def described(self) -> str:
        """What it is, for people."""
        return "matrix"

    @property
    def sharing(self) -> str:
        """That nothing is measured of it, for people."""
        return "gradients only"

    def with_options(self, **options: object) -> "MatrixSpec":
        """A copy with other ``structures`` or ``factor_dtype``, checked.

        Raises:
          ValueError: An option is not legal, or is of measured layers.
        """
        unknown = [name for name in options if name not in ("structures", "factor_dtype")]
        if unknown:
            raise ValueError(
                f"`{unknown[0]}` is an option of layers that are measured, {self.path!r} is a "
                "matrix from find_matrices. Its options: structures, factor_dtype."
            )
        return _resolved(dataclasses.replace(self, **parse_options(self.dtype, **options)))

    @property
    def stack(self) -> tuple[int, ...]:
        """The axes that run over separate matrices."""
        return tuple(
            axis for axis in range(len(self.shape)) if axis not in self.rows + self.columns
        )

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """How many matrices there are along these; ``()`` for one matrix."""
        return tuple(self.shape[axis] for axis in self.stack)

    @property
    def dims(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        row_count, column_count = (
            math.prod(self.shape[axis] for axis in axes) for axes in (self.rows, self.columns)
        )
        return row_count, column_count

    @property
    def statistics_dtype(self) -> jnp.dtype:
        """The dtype of statistics: float32, or float64 for a float64 parameter."""
        return accumulation_dtype_of(self.dtype)

    def to_matrix(self, *arrays: jax.Array) -> jax.Array:
        """The parameter (or its gradient) as (*stack_shape, rows, columns)."""
        (array,) = arrays
        turned = jnp.transpose(array, (*self.stack, *self.rows, *self.columns))
        return turned.reshape(*self.stack_shape, *self.dims)

    def from_matrix(self, matrix: jax.Array) -> tuple[jax.Array, ...]:
        """The inverse of ``to_matrix``."""
        order = (*self.stack, *self.rows, *self.columns)
        turned = matrix.reshape([self.shape[axis] for axis in order])
        return (jnp.transpose(turned, sorted(range(len(order)), key=order.__getitem__)),)


def default_matrix_axes(shape: tuple[int, ...]) -> MatrixAxes | None:
    """Leading axes as rows, trailing ones as columns, cut where the larger side is smallest.

    So a convolution's kernel (height, width, in, out) is (height width in, out), and attention's
    (in, heads, size) and (heads, size, out) are in x heads size and heads size x out.

    Args:
      shape: Of a parameter.

    Returns:
      The axes, or None for a scalar or a vector (or what is one but for axes of length 1).

    >>> default_matrix_axes((3, 3, 64, 128))
    ((0, 1, 2), (3,))
    >>> default_matrix_axes((768, 12, 64))
    ((0,), (1, 2))
    >>> default_matrix_axes((1, 768)) is None
    True
    """
    if sum(size > 1 for size in shape) < 2 or 0 in shape:
        return None
    sides = [(math.prod(shape[:cut]), math.prod(shape[cut:])) for cut in range(1, len(shape))]
    cut = 1 + min(range(len(sides)), key=lambda index: max(sides[index]))
    return tuple(range(cut)), tuple(range(cut, len(shape)))


def check_matrix_axes(matrix_axes: Any) -> None:
    """Raise unless this is None or a mapping from patterns to pairs of axes, or to None.

    >>> check_matrix_axes({"blocks/.*kernel": ((1,), (2,)), "embedding": None})
    >>> check_matrix_axes({"embedding": 0})
    Traceback (most recent call last):
    ValueError: `matrix_axes` maps regular expressions to pairs of axes, as ((1,), (2,)), or to ...
    """
    if matrix_axes is None:
        return
    if not isinstance(matrix_axes, Mapping):
        raise TypeError(
            "`matrix_axes` must be None or a dict from regular expressions on paths to pairs of "
            f"axes, as {{'blocks/.*kernel': ((1,), (2,))}}, got {matrix_axes!r} of type "
            f"{type(matrix_axes).__name__}."
        )
    for pattern, axes in matrix_axes.items():
        check_pattern("matrix_axes key", pattern)
        pair = isinstance(axes, tuple | list) and len(axes) == 2
        if axes is not None and not (
            pair
            and all(isinstance(side, tuple | list) and len(side) > 0 for side in axes)
            and all(
                isinstance(axis, int) and not isinstance(axis, bool)
                for side in axes
                for axis in side
            )
        ):
            raise ValueError(
                "`matrix_axes` maps regular expressions to pairs of axes, as ((1,), (2,)), or to "
                f"None for parameters that pass through; got {axes!r} for {pattern!r}."
            )


def matrix_specs(
    leaves: Leaves,
    *,
    structures: Any,
    factor_dtype: Any = None,
    matrix_axes: Mapping[str, MatrixAxes | None] | None = None,
) -> dict[str, MatrixSpec]:
    """The parameters of a tree that are matrices; scalars, vectors and integers are left out.

    Args:
      leaves: Parameters, or gradients.
      structures: Of the factors of rows and columns, one or a pair, as ``parse_structure`` takes.
      factor_dtype: Of the factors, one or a pair; None is float32, or float64 for float64.
      matrix_axes: Regular expression on the whole path -> (axes of rows, axes of columns), or
        None to leave the parameter out. The first that matches counts; parameters without a
        match are cut by ``default_matrix_axes``.

    Returns:
      Path -> how it is a matrix.

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
        axes = _axes_of(path, shape, matrix_axes)
        if axes is None:
            continue
        options = parse_options(dtype.name, structures=structures, factor_dtype=factor_dtype)
        spec = MatrixSpec(
            path=path, shape=shape, dtype=dtype.name, rows=axes[0], columns=axes[1], **options
        )
        specs[path] = _resolved(spec)
    return specs


def _resolved(spec: MatrixSpec) -> MatrixSpec:
    """The same, with structures that were chosen by size."""
    rows, columns = (s.resolve(dim) for s, dim in zip(spec.structures, spec.dims, strict=True))
    return dataclasses.replace(spec, structures=(rows, columns))


def _axes_of(
    path: str, shape: tuple[int, ...], matrix_axes: Mapping[str, MatrixAxes | None] | None
) -> MatrixAxes | None:
    for pattern, axes in (matrix_axes or {}).items():
        if not re.fullmatch(pattern, path):
            continue
        if axes is None:
            return None
        rank = len(shape)
        flat = [axis for side in axes for axis in side]
        if any(not -rank <= axis < rank for axis in flat) or (
            len({axis % rank for axis in flat}) < len(flat)
        ):
            raise ValueError(
                f"`matrix_axes` of {pattern!r} are {axes!r}, which do not fit {path!r} of shape "
                f"{shape}: name each axis once, from {-rank} to {rank - 1}."
            )
        rows, columns = (tuple(axis % rank for axis in side) for side in axes)
        return rows, columns
    return default_matrix_axes(shape)
