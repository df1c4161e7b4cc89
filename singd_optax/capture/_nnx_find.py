"""Find the Kronecker layers of an NNX model."""

from collections.abc import Callable
from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from singd_optax._validate import check_flag
from singd_optax.capture._find import found
from singd_optax.capture._mistakes import check_loss_first
from singd_optax.capture._nnx_program import ModelProgram, check_model
from singd_optax.layers import KFACApprox, Layers, LossAverage
from singd_optax.structures import Structure


def find_layers(
    loss_fn: Callable[..., Any],
    model: nnx.Module,
    *args: Any,
    structures: str | Structure | tuple[str | Structure, str | Structure] = "auto",
    kfac_approx: KFACApprox = "expand",
    loss_average: LossAverage = "batch",
    factor_dtype: DTypeLike | tuple[DTypeLike | None, DTypeLike | None] | None = None,
    curvature_fraction: float = 1.0,
    strict: bool = False,
    wrt: Any = nnx.Param,
    **kwargs: Any,
) -> Layers:
    """The Kronecker layers of an NNX model: ``singd_optax.find_layers`` for NNX.

    The loss function is traced with abstract values, on a copy of the model; nothing is computed,
    and the model is not changed. Print the result: it names every parameter, those that are no
    Kronecker layer with the reason.

    Args:
      loss_fn: ``loss_fn(model, *args, **kwargs)``. What it returns does not matter here.
      model: An NNX module; abstract (``nnx.eval_shape``) or not.
      *args: As for ``loss_fn``; shapes matter only where the model depends on them.
      structures: As for ``singd_optax.find_layers``.
      kfac_approx: As for ``singd_optax.find_layers``.
      loss_average: As for ``singd_optax.find_layers``.
      factor_dtype: As for ``singd_optax.find_layers``.
      curvature_fraction: As for ``singd_optax.find_layers``.
      strict: As for ``singd_optax.find_layers``.
      wrt: Which variables are parameters, as for ``nnx.Optimizer``.
      **kwargs: As for ``loss_fn``.

    Returns:
      The layers; their paths are those of ``nnx.state(model, wrt)``.

    Raises:
      TypeError: ``model`` is no NNX module.
      ValueError: As ``singd_optax.find_layers``.

    Example:
      >>> from flax import nnx
      >>> import jax.numpy as jnp, singd_optax
      >>> model = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
      >>> loss_fn = lambda model, x: jnp.mean(model(x) ** 2)
      >>> singd_optax.nnx.find_layers(loss_fn, model, jnp.ones((8, 5)), structures="dense")
      1 Kronecker layer...
        layer   kind          kernel  K                  C                  sharing ...
        (root)  dense + bias  (5, 3)  6 Dense() float32  3 Dense() float32  expand, ...
    """
    check_loss_first(loss_fn, model, "model")
    check_flag("strict", strict)
    check_model(model)
    program = ModelProgram(loss_fn, model, args, kwargs, wrt)
    if not program.leaves:
        raise ValueError(
            f"The model, a {type(model).__name__}, has no parameters that `wrt` selects: {wrt}."
        )
    return found(
        program,
        program.special,
        strict,
        structures=structures,
        kfac_approx=kfac_approx,
        loss_average=loss_average,
        factor_dtype=factor_dtype,
        curvature_fraction=curvature_fraction,
    )
