"""Find the Kronecker layers of an NNX model."""

from flax import nnx

from singd_optax._types import LossFunction, PyTree
from singd_optax._validate import check_flag
from singd_optax.capture._layers_of_program import (
    FactorDtypes,
    LayerOptions,
    StructurePair,
    layers_of_program,
)
from singd_optax.capture._mistakes import check_loss_first
from singd_optax.capture._nnx_program import ModelProgram, check_model
from singd_optax.layers import KFACApprox, Layers, LossAverage
from singd_optax.layers._spec import CurvatureFraction


def find_layers(
    loss_fn: LossFunction,
    model: nnx.Module,
    *args: PyTree,
    structures: StructurePair = "auto",
    kfac_approx: KFACApprox = "expand",
    loss_average: LossAverage = "batch",
    factor_dtype: FactorDtypes = None,
    curvature_fraction: CurvatureFraction = "auto",
    strict: bool = False,
    wrt: PyTree = nnx.Param,
    **kwargs: PyTree,
) -> Layers:
    """Find the Kronecker layers of an NNX model, as ``singd_optax.find_layers`` does for Linen.

    A Kronecker layer is a kernel that multiplies its inputs, with its bias. Its gradient is
    preconditioned by two matrices, its factors: K on the side of the inputs, and C on that of the
    outputs. A refresh makes them anew from statistics (second moments) of both sides.

    The loss function is traced with abstract values, on a copy of the model; nothing is computed,
    and the model is not changed. Print the result: it names every parameter, those that are no
    Kronecker layer with the reason.

    Args:
      loss_fn: ``loss_fn(model, *args, **kwargs)``. What it returns does not matter here.
      model: The model, an NNX module; abstract (``nnx.eval_shape``) or not.
      *args: What ``loss_fn`` is called with after its first argument, for example a batch; shapes
        matter only where the model depends on them.
      structures: The structures in which the factors K and C of every layer are kept, one for both
        or a pair, see ``parse_structure``; ``"auto"`` is dense up to a dim of 1024, and
        block-diagonal above (see ``structures.Auto``).
      kfac_approx: How shared positions (tokens, pixels) are collapsed (arXiv 2311.00636):
        ``"expand"`` treats them as more data; ``"reduce"`` averages inputs and sums output
        gradients over them first, which costs less, and suits models that pool before the loss.
      loss_average: Over what the loss is a mean: ``"batch"``, ``"batch+sequence"`` (over tokens
        too), or None for a sum.
      factor_dtype: The dtype in which K and C are kept: ``float32``, ``bfloat16``, ``float64`` or
        None (float32, or float64 for float64 kernels); or a pair for (K, C).
      curvature_fraction: The share of positions that statistics are formed of, in (0, 1], others
        in each refresh: every k-th, k the largest divisor of their number up to the inverse of the
        share. For convolutions and ``"reduce"`` it is a share of examples. Statistics are unbiased,
        and a refresh costs that much less. ``"auto"`` takes all of few positions and some of many,
        for each layer when it is called: at least max(2048, 8 d) rows, d the larger of the layer's
        dims, of at least 128 examples.
      strict: Whether to raise if there is a parameter of two axes or more that is in no layer.
      wrt: Which variables are parameters, as ``nnx.Optimizer`` takes it; ``nnx.Param`` by default.
      **kwargs: What ``loss_fn`` is called with by name.

    Returns:
      The layers; their paths are those of ``nnx.state(model, wrt)``.

    Raises:
      TypeError: ``model`` is no NNX module, ``loss_fn`` is no function, or an option is of another
        type.
      ValueError: The model has no Kronecker layer, or an option is not legal; or ``strict`` is
        True, and a parameter of two axes or more is in no layer.

    Warns:
      UserWarning: A kernel is multiplied in a way that cannot be measured, so that it is in no
        layer; or less than half of the parameters are in layers.

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
            f"`wrt` must select parameters of the model, a {type(model).__name__}, which has none "
            f"for {wrt}. Pass a type of variables that it has, for example wrt=nnx.Param."
        )
    options = LayerOptions(
        structures, kfac_approx, loss_average, factor_dtype, curvature_fraction, strict
    )
    return layers_of_program(program, program.special, options)
