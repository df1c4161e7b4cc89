"""What a Kronecker layer is: one kernel, and how its numbers make a (fan-in, fan-out) matrix."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from singd_optax._validate import check_choice
from singd_optax.layers._stacking import Stacking
from singd_optax.structures import Structure, parse_structures

KFACApprox = Literal["expand", "reduce"]
LossAverage = Literal["batch", "batch+sequence"] | None

KFAC_APPROXES: tuple[KFACApprox, ...] = ("expand", "reduce")
LOSS_AVERAGES: tuple[LossAverage, ...] = ("batch", "batch+sequence", None)

#: What ``Layers.replace`` and ``find_layers`` may set; the rest follows from the model.
OPTIONS = ("structures", "kfac_approx", "loss_average", "factor_dtype")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """The static, hashable description of one Kronecker layer.

    The gradient of a layer is a matrix of ``fan_in`` x ``fan_out``: the kernel as (inputs,
    outputs), with the bias, if there is one, as its last row.

    Attributes:
      path: Keys that lead to the sub-tree that holds the kernel, joined by slashes.
      kind: What the layer is, ``"dense"``.
      kernel_shape: The kernel's shape, stacked axes included.
      bias_shape: The bias's shape, or None without one.
      dtype: The kernel's dtype, by name.
      stacking: Which axes of the kernel run over layers (scan over layers) and not over the layer.
      kfac_approx: How shared positions (tokens, pixels) are collapsed: ``"expand"`` treats them
        as more data, ``"reduce"`` averages inputs and sums output gradients over them first
        (arXiv 2311.00636).
      loss_average: Over what the loss is a mean: ``"batch"``, ``"batch+sequence"``, or None for
        a sum.
      structures: The structures of K (input side) and C (output side), choices (``Auto``)
        resolved for their dims.
      factor_dtype: The dtypes, by name, in which K and C are kept.
      kernel: The kernel's name.
      bias: The bias's name.
    """

    path: str
    kind: str
    kernel_shape: tuple[int, ...]
    bias_shape: tuple[int, ...] | None
    dtype: str
    structures: tuple[Structure, Structure]
    factor_dtype: tuple[str, str]
    kfac_approx: KFACApprox = "expand"
    loss_average: LossAverage = "batch"
    stacking: Stacking = dataclasses.field(default_factory=Stacking)
    kernel: str = "kernel"
    bias: str = "bias"

    def __post_init__(self) -> None:
        K, C = (s.resolve(dim) for s, dim in zip(self.structures, self.dims, strict=True))
        object.__setattr__(self, "structures", (K, C))

    @property
    def kernel_path(self) -> str:
        """The path of the kernel itself."""
        return join_path(self.path, self.kernel)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Path -> shape of the layer's parameters: the kernel, and the bias if there is one."""
        shapes = {self.kernel_path: self.kernel_shape}
        if self.bias_shape is not None:
            shapes[join_path(self.path, self.bias)] = self.bias_shape
        return shapes

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """How many layers are stacked, outermost first; ``()`` for a single layer."""
        return self.stacking.split(self.kernel_shape)[0]

    @property
    def fan_in(self) -> int:
        """Rows of the gradient matrix: inputs, and one more if there is a bias."""
        *inputs, _ = self.stacking.split(self.kernel_shape)[1]
        return math.prod(inputs) + (self.bias_shape is not None)

    @property
    def fan_out(self) -> int:
        """Columns of the gradient matrix: outputs."""
        return self.stacking.split(self.kernel_shape)[1][-1]

    @property
    def dims(self) -> tuple[int, int]:
        """The sizes of K and C."""
        return self.fan_in, self.fan_out

    @property
    def statistics_dtype(self) -> jnp.dtype:
        """The dtype of statistics: float32, or float64 for a float64 kernel."""
        return accumulation_dtype_of(self.dtype)

    def with_options(self, **options: Any) -> "LayerSpec":
        """A copy with some of the options set, checked."""
        return dataclasses.replace(self, **parse_options(self.dtype, **options))

    def to_matrix(self, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        """Kernel and bias (values or gradients) as one matrix (*stack_shape, fan_in, fan_out)."""
        parts = [kernel] if bias is None else [kernel, bias]
        fronts = [self.stacking.to_front(part) for part in parts]
        rows = [front.reshape(*self.stack_shape, -1, self.fan_out) for front in fronts]
        dtype = jnp.result_type(*rows)
        return jnp.concatenate([row.astype(dtype) for row in rows], axis=-2)

    def from_matrix(self, matrix: jax.Array) -> tuple[jax.Array, ...]:
        """The inverse of ``to_matrix``: the kernel, and the bias if there is one."""
        parts, row = [], 0
        for shape in self.shapes.values():
            layer_shape = self.stacking.split(shape)[1]
            rows = math.prod(layer_shape) // self.fan_out
            part = matrix[..., row : row + rows, :].reshape(*self.stack_shape, *layer_shape)
            parts.append(self.stacking.from_front(part))
            row += rows
        return tuple(parts)


def join_path(*parts: str) -> str:
    """Parts joined by slashes, empty ones left out."""
    return "/".join(part for part in parts if part)


def accumulation_dtype_of(dtype: DTypeLike) -> jnp.dtype:
    """Float32, or float64 for float64."""
    return jnp.promote_types(jnp.float32, dtype)


def parse_options(dtype: str, **options: Any) -> dict[str, Any]:
    """Options as ``LayerSpec`` keeps them.

    Args:
      dtype: The kernel's dtype, by name.
      **options: Any of ``OPTIONS``.

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
    if "factor_dtype" in options:
        parsed["factor_dtype"] = _parse_factor_dtype(options["factor_dtype"], dtype)
    return parsed


def _parse_factor_dtype(value: Any, dtype: str) -> tuple[str, str]:
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"`factor_dtype` is one dtype or a pair, of K and of C, got {value!r}.")
    names = []
    for entry in pair:
        try:
            parsed = jnp.dtype(accumulation_dtype_of(dtype) if entry is None else entry)
        except TypeError as error:
            raise TypeError(f"`factor_dtype` is a dtype, None or a pair, got {value!r}.") from error
        check_choice("factor_dtype", parsed.name, ("bfloat16", "float32", "float64"))
        names.append(parsed.name)
    return names[0], names[1]
