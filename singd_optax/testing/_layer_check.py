"""What a check says of each layer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from singd_optax._types import PyTree
from singd_optax.layers import LayerSpec
from singd_optax.measures import Statistics
from singd_optax.structures import Diagonal, Structure
from singd_optax.testing._heard import Sums
from singd_optax.testing._passes import Passes


@dataclasses.dataclass(frozen=True)
class LayerCheck:
    """What ``check_layers`` found out about one layer.

    Errors are relative, in the Frobenius norm, the largest of a stack; at most ``rtol`` where all
    is well. a are the inputs of a call of the layer, and g the gradients of its outputs.

    Attributes:
      path: The path of the layer.
      kind: The kind of the layer.
      calls: The number of its calls that were heard while the loss ran.
      gradient_error: The error of Σ a gᵀ over its calls, against its gradient; None where the loss
        takes derivatives through the layer, whose share of the gradient belongs to no call.
      input_error: The error of the second moment of its inputs (the side of K); None where not all
        of its calls could be heard, under derivatives that the loss takes.
      output_error: The error of the second moment of its output gradients (the side of C); None
        where ``input_error`` is.
      outside: The size of the part of its gradient that is owed to no call, such as that of a
        penalty on parameters, relative to the size of the part that is.
      rtol: The largest error that is allowed.
      problem: What is wrong, in words; None if nothing is.
    """

    path: str
    kind: str
    calls: int
    gradient_error: float | None
    input_error: float | None
    output_error: float | None
    outside: float
    rtol: float
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the layer is measured as what it is."""
        return self.problem is None

    @property
    def verdict(self) -> str:
        """What was found, in words for the printed table: "ok", or the problem."""
        if self.problem is not None:
            return self.problem
        notes = [] if self.calls else ["not called with these arguments"]
        if self.gradient_error is None:
            what = "gradient is" if self.input_error is not None else "gradient and statistics are"
            notes.append(f"its {what} not compared: the loss takes derivatives through it")
        elif self.outside > self.rtol:
            notes.append(f"its gradient has a part of no call, {self.outside:.2g} times as large")
        return "; ".join(["ok", *notes])


#: What errors may be, by the rounding of the coarsest dtype that a layer computes in.
TOLERANCES = ((1e-12, 1e-7), (1e-5, 1e-3), (2e-3, 1e-2), (np.inf, 5e-2))

_NOISE = 8

#: What a cast may change of a number.
_CAST = 0.02


@np.errstate(all="ignore")
def compare(
    spec: LayerSpec, passes: Passes, sums: dict[PyTree, Sums], rtol: float | None
) -> LayerCheck:
    """Compare what a layer says with what is.

    Args:
      spec: The layer.
      passes: What was computed.
      sums: What its calls said, by path and place in the stack.
      rtol: What errors may be; None for a tolerance by dtype.
    """
    heard = passes.heard
    eps = heard.eps.get(spec.path, float(jnp.finfo(spec.dtype).eps))
    rtol = rtol or next(value for limit, value in TOLERANCES if eps < limit)
    count = int(np.prod(spec.scan_shape, dtype=np.int64))
    own = [sums.get((spec.path, place), Sums()) for place in range(count)]
    full, outside, echoed = (
        np.asarray(tree[spec.path], np.float64).reshape(count, -1, spec.fan_in, spec.fan_out)
        for tree in (passes.gradients, passes.outside, passes.echoed)
    )
    want, got = full - outside, echoed - full
    noise = eps * (np.sqrt([one.squares for one in own]) + _norms(full) + _norms(outside))
    errors = _errors(got, want, _NOISE * noise / rtol)
    sides = [_moment_errors(spec, side, passes.statistics[spec.path], own) for side in (0, 1)]
    nested = spec.path in heard.nested
    calls = sum(one.calls for one in own)
    problems = []
    # Derivatives that the loss takes may leave out what a callback would have been told.
    unheard = nested and calls < passes.evaluations[spec.path]
    if not all(np.isfinite(x).all() for x in (full, sides)):
        problems.append("its gradient or its statistics are not finite")
    else:
        if not nested and errors.max() > rtol:
            problems.append(_wrong_product(spec, calls, got, want, rtol))
        for what, error in zip(("inputs", "output gradients"), sides, strict=True):
            if error > rtol and not unheard:
                problems.append(f"the second moment of its {what} is another one")
        if _is_of_others(spec, passes, own):
            problems.append("what measures one layer of its stack is at the call of another")
    norm = np.linalg.norm(want)
    return LayerCheck(
        path=spec.path,
        kind=spec.kind,
        calls=calls,
        gradient_error=None if nested else float(errors.max()),
        input_error=None if unheard else sides[0],
        output_error=None if unheard else sides[1],
        outside=float(np.linalg.norm(outside) / norm) if norm else 0.0,
        rtol=rtol,
        problem="; ".join(problems) or None,
    )


def _norms(stack: np.ndarray) -> np.ndarray:
    return np.linalg.norm(stack.reshape(len(stack), -1), axis=1)


def _errors(got: np.ndarray, want: np.ndarray, least: PyTree) -> np.ndarray:
    """Relative errors; what is less than ``least`` is taken for as much."""
    scale = np.maximum(_norms(want), least)
    return _norms(got - want) / np.where(scale == 0, 1, scale)


def _wrong_product(
    spec: LayerSpec, calls: int, got: np.ndarray, want: np.ndarray, rtol: float
) -> str:
    """In what way the sum is not the gradient."""
    if not calls:
        return "no call of it was heard, and it has a gradient: its calls are not measured"
    how = "is not its gradient"
    scale = float((got * want).sum() / max((want**2).sum(), np.finfo(float).tiny))
    kernel = spec.fan_in - (spec.bias_shape is not None)
    rows, wanted = got[..., :kernel, :], want[..., :kernel, :]
    size = np.linalg.norm(got) + np.linalg.norm(want)
    if abs(scale) > rtol and np.linalg.norm(got - scale * want) <= rtol * size:
        how = f"is {scale:.4g} times its gradient"
    elif kernel == spec.fan_out and np.linalg.norm(rows - wanted.swapaxes(-1, -2)) <= rtol * size:
        how = "is the transpose of its gradient (of a `tag`, exchange the kernel's indices)"
    elif kernel < spec.fan_in and np.linalg.norm(rows - wanted) <= rtol * size:
        how = "is its gradient for the kernel, but not for the bias"
    return (
        f"Σ a gᵀ {how}: its calls multiply other inputs or another kernel than they say, or "
        "change the product, or the kernel is used elsewhere"
    )


def _moment_errors(spec: LayerSpec, side: int, statistics: Statistics, own: list[Sums]) -> float:
    """The error of the second moment on one side, and of its trace, in both ways of use."""
    worst = 0.0
    structure, dim = spec.structures[side], spec.dims[side]
    for transposed, given in ((False, statistics), (True, statistics.transposed)):
        if given is None:
            continue
        got = _entries(given[side])
        mean = np.asarray((given.mean_U, given.mean_G)[side], np.float64)
        got = got.reshape(len(own), -1, *got.shape[len(spec.stack_shape) :])
        mean = mean.reshape(len(own), -1)
        heard = [one.sides.get(transposed) for one in own]
        zeros = np.zeros(
            (got.shape[1], dim) if structure == Diagonal() else (*got.shape[1:2], dim, dim)
        )
        full = np.stack([zeros if one is None else one[2 * side] for one in heard])
        trace = np.stack([mean[0] * 0 if one is None else one[2 * side + 1] for one in heard])
        errors = (
            _errors(got, _projected(structure, full), 0.0),
            _errors(mean, trace / dim, 0.0),
        )
        worst = max(worst, float(np.max(errors)))
    return worst


def _entries(matrix: PyTree) -> np.ndarray:
    if matrix.structure == Diagonal():
        return np.asarray(matrix.diagonal, np.float64)
    return np.asarray(matrix.to_dense(), np.float64)


def _projected(structure: Structure, full: np.ndarray) -> np.ndarray:
    if structure == Diagonal():
        return full
    with jax.enable_x64(True):
        return np.asarray(structure.project(jnp.asarray(full)).to_dense())


def _is_of_others(spec: LayerSpec, passes: Passes, own: list[Sums]) -> bool:
    """Whether a call in a stack multiplied with another kernel than the one of its place."""
    if spec.is_mapped:
        return False  # its numbers are others in any case
    kernels = np.moveaxis(
        np.asarray(passes.parameters[spec.kernel_path]),
        spec.stacking.positions(len(spec.kernel_shape)),
        tuple(range(len(spec.scan_shape))),
    ).reshape(len(own), -1)
    return not all(
        np.allclose(np.sort(kernel), seen, rtol=_CAST, atol=0)  # it may have been cast
        for kernel, one in zip(kernels, own, strict=True)
        for seen in one.kernels
    )
