"""Find the Kronecker layers of a model from abstract evaluations of its loss."""

from singd_optax._types import LossFunction, PyTree
from singd_optax._validate import check_flag
from singd_optax.capture._layers_of_program import (
    FactorDtypes,
    LayerOptions,
    StructurePair,
    layers_of_program,
)
from singd_optax.capture._mistakes import check_loss_first, check_not_variables
from singd_optax.capture._program import ParamsProgram
from singd_optax.layers import KFACApprox, Layers, LossAverage
from singd_optax.layers._spec import CurvatureFraction


def find_layers(
    loss_fn: LossFunction,
    params: PyTree,
    *args: PyTree,
    structures: StructurePair = "auto",
    kfac_approx: KFACApprox = "expand",
    loss_average: LossAverage = "batch",
    factor_dtype: FactorDtypes = None,
    curvature_fraction: CurvatureFraction = "auto",
    strict: bool = False,
    **kwargs: PyTree,
) -> Layers:
    """Find the Kronecker layers of a model: which kernels they are, and how each is treated.

    A Kronecker layer is a kernel that multiplies its inputs, with its bias. Its gradient is
    preconditioned by two matrices, its factors: K on the side of the inputs, and C on that of the
    outputs. A refresh makes them anew from statistics (second moments) of both sides.

    The loss function is traced once with abstract values; nothing is computed, and ``params`` and
    ``args`` may be ``jax.ShapeDtypeStruct``s. Print the result: it names every parameter, those
    that are no Kronecker layer with the reason.

    Args:
      loss_fn: ``loss_fn(params, *args, **kwargs)``, which applies Flax Linen modules, or marks
        products with ``tag``. What it returns does not matter here.
      params: The parameters: dicts, FrozenDicts or other containers of arrays, boxed
        (``nn.Partitioned``) or not.
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
      **kwargs: What ``loss_fn`` is called with by name.

    Returns:
      The layers, static and hashable. Change some by ``layers.replace(pattern, ...)``.

    Raises:
      TypeError: ``params`` are a state or a module of Flax NNX, ``loss_fn`` is no function, or an
        option is of another type.
      ValueError: The model has no Kronecker layer, an option is not legal, or ``params`` are all
        variables of the model; or ``strict`` is True, and a parameter of two axes or more is in no
        layer.

    Warns:
      UserWarning: A kernel is multiplied in a way that cannot be measured, so that it is in no
        layer; or less than half of the parameters are in layers.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> find_layers(loss_fn, params, x, structures=("dense", "diagonal"))
      1 Kronecker layer with 100.0% of the parameters, 156 B of factors (AdamW's moments of ...
        layer   kind          kernel  K                  C                     sharing ...
        params  dense + bias  (5, 3)  6 Dense() float32  3 Diagonal() float32  expand, ...
    """
    check_loss_first(loss_fn, params)
    check_flag("strict", strict)
    check_not_variables(params)
    program = ParamsProgram(loss_fn, params, args, kwargs)
    if not program.leaves:
        raise ValueError(
            "`params` hold no Kronecker layer: there are no arrays in them, got a "
            f"{type(params).__name__}. Pass the params of a model, for example "
            "model.init(key, x)['params']."
        )
    options = LayerOptions(
        structures, kfac_approx, loss_average, factor_dtype, curvature_fraction, strict
    )
    return layers_of_program(program, {}, options)
