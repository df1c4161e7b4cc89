"""A self-test of what is measured: are the layers of a loss function what they say they are?"""

from collections.abc import Callable

import jax
from flax import nnx

from singd_optax._types import PyTree
from singd_optax._validate import check_flag, check_number
from singd_optax.capture._nnx_program import ModelProgram
from singd_optax.capture._program import ParamsProgram
from singd_optax.layers import Layers
from singd_optax.layers._check import check_layers as check_type
from singd_optax.layers._check import check_params
from singd_optax.layers._rendered import Part, Table
from singd_optax.layers._tree import Leaves
from singd_optax.testing._layer_check import LayerCheck, compare
from singd_optax.testing._passes import plainly_measured, run_passes


def check_layers(
    loss_fn: Callable[..., PyTree],
    layers: Layers,
    params: PyTree,
    *args: PyTree,
    rtol: float | None = None,
    print_table: bool = True,
    wrt: PyTree = nnx.Param,
    **kwargs: PyTree,
) -> dict[str, LayerCheck]:
    """Check, with real numbers, that each layer is measured as what it is.

    A Kronecker layer is a claim: that a loss depends on a kernel through products with inputs a
    whose gradients are g, and in no other way. Where it is false (a ``tag`` with another equation
    or other inputs, a module that changes its kernel on the way), nothing fails, and the optimizer
    takes wrong steps. So call this once for a new model, on a small batch. It compares

    - Σ a gᵀ over all calls of a layer with its gradient, which nothing else than the true a and g
      gives, and
    - the layer's statistics, with K = C = I, with second moments of a and g that are formed by
      hand on the host, in float64: scaled, weighted and projected as the layer's options say.

    Penalties on parameters are no calls, and their gradients are left out of the comparison. Where
    the loss takes derivatives through a layer (forces, gradient penalties), these belong to no call
    either: then the second moments alone are compared, if all calls could be heard under these
    derivatives, as the table says. Statistics are formed of
    all positions, whatever ``curvature_fraction`` is, and products are made at the highest
    precision. Each second moment is a full matrix on the host, unless its structure is diagonal.

    Args:
      loss_fn: ``loss_fn(params, *args, **kwargs)`` returns a scalar, or (scalar, aux).
      layers: The layers that ``find_layers`` (or ``singd_optax.nnx.find_layers``) found for the
        same loss function.
      params: The parameters, with numbers; or the ``nnx.Module`` that the loss function gets. It is
        not changed.
      *args: What ``loss_fn`` is called with after its first argument.
      rtol: The largest relative error that is allowed, in the Frobenius norm, > 0; None for 1e-7 in
        float64, 1e-3 in float32, 1e-2 in float16, and 5e-2 in bfloat16, by the coarsest dtype that
        the layer computes in.
      print_table: Whether to print what was found.
      wrt: Which variables are parameters, for an ``nnx.Module``; ``nnx.Param`` by default.
      **kwargs: What ``loss_fn`` is called with by name.

    Returns:
      A dict from the path of each layer to what was found. If this returns, all is well.

    Raises:
      AssertionError: A layer is not what it says; the message is the table.
      TypeError: An argument is of another type, or has no numbers.
      ValueError: ``params`` do not match ``layers``, or ``rtol`` is not legal.

    Example:
      >>> import jax, jax.numpy as jnp, singd_optax
      >>> def loss_fn(params, x):
      ...     y = singd_optax.tag(x @ params["w"], x, params["w"])
      ...     return jnp.mean(y**2)
      >>> params, x = {"w": jnp.ones((5, 3))}, jnp.ones((8, 5))
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> checks = check_layers(loss_fn, layers, params, x)
      1 layer is measured as what it is
        layer  kind    calls  Σ a gᵀ  inputs  output gradients  verdict
        w      tagged  1      ...     ...     ...               ok
      >>> def lying_loss_fn(params, x):
      ...     y = singd_optax.tag(2 * x @ params["w"], x, params["w"])
      ...     return jnp.mean(y**2)
      >>> check_layers(lying_loss_fn, layers, params, x)
      Traceback (most recent call last):
      AssertionError: ... Σ a gᵀ is 0.5 times its gradient: ...
    """
    check_type(layers)
    if not callable(loss_fn):
        raise TypeError(
            f"`loss_fn` must be a function of params and a batch, got {loss_fn!r} of type "
            f"{type(loss_fn).__name__}. Write check_layers(loss_fn, layers, params, batch)."
        )
    if rtol is not None:
        check_number("rtol", rtol, strict=True, schedule=False)
    check_flag("print_table", print_table)
    program: PyTree
    if isinstance(params, nnx.Pytree):
        program = ModelProgram(loss_fn, params, args, kwargs, wrt)
        check_params(layers.values(), Leaves(program.leaves), "model")
    else:
        program = ParamsProgram(loss_fn, params, args, kwargs)
        check_params(layers.values(), Leaves(params), "params")
    _check_numbers([*program.leaves.values(), *program.arrays])
    plain = plainly_measured(layers)
    passes = run_passes(program, plain)
    sums = passes.heard.sums()
    checks = {path: compare(spec, passes, sums, rtol) for path, spec in plain.items()}
    table = _table(checks)
    if not all(check.ok for check in checks.values()):
        raise AssertionError(table)
    if print_table:
        print(table)
    return checks


def _check_numbers(arrays: list[PyTree]) -> None:
    for array in arrays:
        if isinstance(array, jax.ShapeDtypeStruct | jax.core.Tracer):
            raise TypeError(
                "check_layers compares numbers, got an array that has none: "
                f"{array!r}. Call it outside of jax.jit and other transformations, with "
                "parameters and a batch that have values."
            )


def _table(checks: dict[str, LayerCheck]) -> str:
    wrong = [path for path, check in checks.items() if not check.ok]
    count = len(wrong) or len(checks)
    verb = f"layer{' is' if count == 1 else 's are'} {'not ' if wrong else ''}measured as what "
    title = f"{count} {verb}{'it is' if count == 1 else 'they are'}"
    rows = [["layer", "kind", "calls", "Σ a gᵀ", "inputs", "output gradients", "verdict"]]
    for path, check in checks.items():
        errors = (check.gradient_error, check.input_error, check.output_error)
        texts = ["-" if error is None else f"{error:.1e}" for error in errors]
        rows.append([path or "(root)", check.kind, str(check.calls), *texts, check.verdict])
    return str(Table.of([Part(title + (f": {wrong}" if wrong else ""), rows)]))
