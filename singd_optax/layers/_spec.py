"""What a Kronecker layer is: one kernel, and how its numbers make a (fan-in, fan-out) matrix."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax._types import PyTree
from singd_optax._validate import check_choice, check_number, concrete_number
from singd_optax.layers._layout import Layout
from singd_optax.layers._stacking import Stacking
from singd_optax.layers._window import Window
from singd_optax.placement import OneDevice, ParameterAxes, Placement
from singd_optax.structures import Diagonal, Structure, parse_structures

KFACApprox = Literal["expand", "reduce"]
LossAverage = Literal["batch", "batch+sequence"] | None
CurvatureFraction = float | Literal["auto"]

KFAC_APPROXES: tuple[KFACApprox, ...] = ("expand", "reduce")
LOSS_AVERAGES: tuple[LossAverage, ...] = ("batch", "batch+sequence", None)

#: The kind of a layer whose inputs are indices.
EMBED = "embed"

#: The kinds of layers whose inputs are (channels, window).
_CONVOLUTIONS = ("conv", "conv_transpose")

#: What ``curvature_fraction="auto"`` keeps: rows, rows for each dim of the larger factor, and
#: examples where whole examples are left out. Chosen by ``benchmarks/positions.py``.
LEAST_ROWS = 2048
ROWS_PER_DIM = 8
LEAST_EXAMPLES = 128

#: What ``Layers.replace`` and ``find_layers`` may set; the rest follows from the model.
OPTIONS = ("structures", "kfac_approx", "loss_average", "factor_dtype", "curvature_fraction")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """The static, hashable description of one Kronecker layer, as ``find_layers`` makes it.

    The gradient of a layer is a matrix of ``fan_in`` x ``fan_out``: the kernel as (inputs,
    outputs), with the bias, if there is one, as its last row. It is preconditioned by two factors:
    K on the side of the inputs, and C on that of the outputs. They are made of statistics: second
    moments of the layer's inputs, and of the gradients of its outputs.

    Attributes:
      path: The layer's name: the keys that lead to the sub-tree that holds the kernel, joined by
        slashes; for a kernel that was marked by ``tag``, those that lead to the kernel.
      kind: What the layer is: ``"dense"``, ``"conv"``, ``"embed"``, ...
      kernel_path: The path of the kernel.
      kernel_shape: The kernel's shape, stacked axes included.
      bias_path: The path of the bias, or None without one.
      bias_shape: The bias's shape, or None without one.
      dtype: The kernel's dtype, by name.
      layout: Which axes of the kernel are inputs, are outputs, or run over separate matrices.
      tied: Whether the model also uses the kernel as its transpose.
      stacking: Which axes of the kernel run over layers (scan over layers) and are no axes of one
        layer.
      is_mapped: Whether the model changes the kernel's numbers before it multiplies (scales,
        normalizes, masks or quantizes them): statistics are those of the kernel that multiplies.
      rider: Where what measures the layer travels beside its kernel: ``"module"``, inside the
        variables of the Flax module that is applied, or ``"params"``, inside the params of the
        loss function; None where nothing slices the kernel, and nothing has to travel.
      kfac_approx: How shared positions (tokens, pixels) are collapsed: ``"expand"`` treats them
        as more data, ``"reduce"`` averages inputs and sums output gradients over them first
        (arXiv 2311.00636).
      loss_average: Over what the loss is a mean: ``"batch"``, ``"batch+sequence"``, or None for
        a sum.
      structures: The structures of K (input side) and C (output side), choices (``Auto``)
        resolved for their dims. K of an embedding is always diagonal, as the second moment of its
        inputs is.
      factor_dtype: The dtypes, by name, in which K and C are kept.
      curvature_fraction: The share of positions (or of examples, for convolutions and
        ``"reduce"``) that statistics are formed of, in (0, 1]: every k-th from a random start, k
        the largest divisor of their number up to 1 / ``curvature_fraction``. ``"auto"`` is the
        least share that leaves ``enough_rows`` rows, of no fewer than 128 examples.
      placement: Which devices hold what of the factors, see ``singd_optax.sharding``; ``OneDevice``
        if the compiler is left to choose.
    """

    path: str
    kind: str
    kernel_path: str
    kernel_shape: tuple[int, ...]
    bias_path: str | None = None
    bias_shape: tuple[int, ...] | None = None
    dtype: str
    structures: tuple[Structure, Structure]
    factor_dtype: tuple[str, str]
    kfac_approx: KFACApprox = "expand"
    loss_average: LossAverage = "batch"
    curvature_fraction: CurvatureFraction = "auto"
    stacking: Stacking = dataclasses.field(default_factory=Stacking)
    layout: Layout = dataclasses.field(default_factory=Layout)
    tied: bool = False
    is_mapped: bool = False
    rider: Literal["module", "params"] | None = None
    placement: Placement = dataclasses.field(default_factory=OneDevice)

    def __post_init__(self) -> None:
        K, C = self.structures
        K = K.resolve(self.fan_in, bias=self.bias_shape is not None)
        C = C.resolve(self.fan_out)
        object.__setattr__(self, "structures", (Diagonal() if self.kind == EMBED else K, C))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """A dict from the path of the kernel, and of the bias if there is one, to its shape."""
        shapes = {self.kernel_path: self.kernel_shape}
        if self.bias_path is not None and self.bias_shape is not None:
            shapes[self.bias_path] = self.bias_shape
        return shapes

    @property
    def described(self) -> str:
        """The kind, and what is special about the kernel, in words for the printed table."""
        tied = " (tied)" if self.tied else ""
        return self.kind + tied + (" (kernel changed first)" if self.is_mapped else "")

    @property
    def sharing(self) -> str:
        """What is done with shared positions and the average of the loss, in words."""
        shared = f"{self.kfac_approx}, loss mean over {self.loss_average or 'nothing'}"
        if self.curvature_fraction == "auto":
            return f"{shared}, of {self.enough_rows} rows or more"
        part = "" if self.curvature_fraction == 1 else f", of {self.curvature_fraction:.3g} of it"
        return shared + part

    @property
    def enough_rows(self) -> int:
        """How many rows of a layer's inputs ``curvature_fraction="auto"`` leaves, if it has them.

        The second moment of n rows of d features is off by about sqrt(d / n) of itself, a third
        for eight rows a dim, and refreshes average over draws. To whiten n rows and to form their
        gram takes 4 n d² operations a side, the layer itself 6 N d² for its N rows forward and
        backward: with n = 8 d a refresh costs 11 d / N of a layer of d x d, and of all rows 4 / 3.
        """
        return max(LEAST_ROWS, ROWS_PER_DIM * max(self.dims))

    @property
    def axes(self) -> ParameterAxes:
        """Which axes of the kernel run over a stack, and which make rows and columns."""
        rank = len(self.kernel_shape)
        stacked = self.stacking.positions(rank)
        own = [axis for axis in range(rank) if axis not in stacked]
        batch, rows, columns = (
            tuple(own[axis] for axis in axes)
            for axes in (self.layout.batch, self.layout.inputs, self.layout.outputs)
        )
        return ParameterAxes((*stacked, *batch), rows, columns)

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """How many layers one kernel stacks along each axis, outermost first; ``()`` for one."""
        return self.stacking.split(self.kernel_shape)[0]

    @property
    def own_shape(self) -> tuple[int, ...]:
        """The kernel's shape in one layer of the stack."""
        return self.stacking.split(self.kernel_shape)[1]

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """How many matrices there are: layers of a stack, then the kernel's own batch axes.

        It is ``()`` for one matrix.
        """
        return self.scan_shape + self.layout.sizes(self.own_shape)[0]

    @property
    def fan_in(self) -> int:
        """The number of rows of the gradient matrix: inputs, and one more if there is a bias."""
        return self.layout.sizes(self.own_shape)[1] + (self.bias_shape is not None)

    @property
    def fan_out(self) -> int:
        """The number of columns of the gradient matrix, which is that of outputs."""
        return self.layout.sizes(self.own_shape)[2]

    @property
    def dims(self) -> tuple[int, int]:
        """The sizes of K and C: (``fan_in``, ``fan_out``)."""
        return self.fan_in, self.fan_out

    @property
    def window(self) -> Window | None:
        """Where positions of a convolution are in the matrix; None if it is no convolution's."""
        if self.kind not in _CONVOLUTIONS:
            return None
        rows, columns = (
            tuple(self.own_shape[axis] for axis in axes)
            for axes in (self.layout.inputs, self.layout.outputs)
        )
        return Window(rows, columns, tuple(range(1, len(rows))))

    @property
    def statistics_dtype(self) -> jnp.dtype:
        """The dtype of statistics: float32, or float64 for a float64 kernel."""
        return accumulation_dtype_of(self.dtype)

    @property
    def stacks_with_others(self) -> bool:
        """Whether its state may be kept in one stack with those of equal layers.

        It may where nothing slices the layer, and it has no place on a mesh.
        """
        alone = self.rider is not None or self.scan_shape or self.tied
        return not alone and self.placement == OneDevice()

    def with_options(self, **options: PyTree) -> "LayerSpec":
        """A copy with other options, checked; ``Layers.replace`` says which there are."""
        return dataclasses.replace(self, **parse_options(self.dtype, **options))

    def renamed(self, path: str) -> "LayerSpec":
        """A copy whose ``path`` is this one."""
        return dataclasses.replace(self, path=path)

    def riding(self, rider: Literal["module", "params"]) -> "LayerSpec":
        """A copy with this ``rider``: where what measures the layer travels beside its kernel."""
        return dataclasses.replace(self, rider=rider)

    def to_matrix(self, *arrays: jax.Array) -> jax.Array:
        """Kernel and bias, or their gradients, as matrices (*stack_shape, fan_in, fan_out)."""
        kernel, *biases = arrays
        stacked = len(self.scan_shape)
        parts = [self.layout.to_matrix(self.stacking.to_front(kernel), stacked)]
        for bias in biases:
            front = self.stacking.to_front(bias)
            parts.append(self.layout.bias_to_row(front, self.own_shape, stacked))
        dtype = jnp.result_type(*parts)
        return jnp.concatenate([part.astype(dtype) for part in parts], axis=-2)

    def from_matrix(self, matrix: jax.Array) -> tuple[jax.Array, ...]:
        """The inverse of ``to_matrix``: a tuple of the kernel, and the bias if there is one."""
        stacked = len(self.scan_shape)
        rows = self.layout.sizes(self.own_shape)[1]
        parts = [self.layout.from_matrix(matrix[..., :rows, :], self.own_shape, stacked)]
        if self.bias_shape is not None:
            own = self.stacking.split(self.bias_shape)[1]
            parts.append(self.layout.bias_from_row(matrix[..., rows:, :], own, stacked))
        return tuple(self.stacking.from_front(part) for part in parts)


def join_path(*parts: str) -> str:
    """Parts joined by slashes, empty ones left out."""
    return "/".join(part for part in parts if part)


def accumulation_dtype_of(dtype: DTypeLike) -> jnp.dtype:
    """Float32, or float64 for float64."""
    return jnp.promote_types(jnp.float32, dtype)


def parse_options(dtype: str, **options: PyTree) -> dict[str, PyTree]:
    """Options as ``LayerSpec`` keeps them.

    Args:
      dtype: The kernel's dtype, by name.
      **options: Some of ``OPTIONS``, by name.

    Returns:
      The same options, parsed.

    Raises:
      ValueError: An option is unknown, or its value is not legal.
    """
    parsed = dict(options)
    for name in options:
        check_choice("option of a layer", name, OPTIONS)
    if "structures" in options:
        parsed["structures"] = parse_structures(options["structures"])
    if "kfac_approx" in options:
        check_choice("kfac_approx", options["kfac_approx"], KFAC_APPROXES)
    if "loss_average" in options:
        check_choice("loss_average", options["loss_average"], LOSS_AVERAGES)
    if "curvature_fraction" in options:
        parsed["curvature_fraction"] = _parse_fraction(options["curvature_fraction"])
    if "factor_dtype" in options:
        parsed["factor_dtype"] = _parse_factor_dtype(options["factor_dtype"], dtype)
    return parsed


def _parse_fraction(value: PyTree) -> CurvatureFraction:
    if isinstance(value, str):
        check_choice("curvature_fraction", value, ("auto",))
        return "auto"
    check_number("curvature_fraction", value, strict=True, maximum=1, schedule=False)
    return _hashable_number("curvature_fraction", value)


def _hashable_number(name: str, value: PyTree) -> float:
    number = concrete_number(value)
    if number is None:
        raise TypeError(
            f"`{name}` must be a number that is known before anything is traced, got {value!r}. "
            "Pass a Python number."
        )
    return number


def _parse_factor_dtype(value: PyTree, dtype: str) -> tuple[str, str]:
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ValueError(
            f"`factor_dtype` must be one dtype, or a pair for K and for C, got {value!r}."
        )
    names = []
    for entry in pair:
        try:
            parsed = jnp.dtype(accumulation_dtype_of(dtype) if entry is None else entry)
        except TypeError as error:
            raise TypeError(
                f"`factor_dtype` must be a dtype, None, or a pair of these, got {value!r}."
            ) from error
        check_choice("factor_dtype", parsed.name, ("bfloat16", "float32", "float64"))
        names.append(parsed.name)
    return names[0], names[1]
