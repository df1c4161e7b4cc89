"""Written by tests/stub.py: what editors and type checkers read."""

from collections.abc import Mapping
from typing import Literal

import optax
from jax.typing import DTypeLike

from singd_optax.layers import Layers, MatrixAxes
from singd_optax.optimizers._ekfac import ScaleSource
from singd_optax.optimizers._kfac import InverseMethod
from singd_optax.optimizers._locoprop import LocalMethod
from singd_optax.optimizers._psgd_kron import Geometry
from singd_optax.optimizers._recipe import Mask
from singd_optax.optimizers._singd import FactorInit
from singd_optax.rules import (
    Damping,
    DampingMode,
    FactorStepNorm,
    Hyperparameter,
    Interval,
    Iteration,
    RootMethod,
    Rule,
)
from singd_optax.rules._eigenbasis import BasisMethod
from singd_optax.rules._second_moment import SecondMoment
from singd_optax.structures import Precision, Structure
from singd_optax.transforms import KLClip
from singd_optax.transforms._direction_options import DirectionName
from singd_optax.transforms._grafting import GraftedStep
from singd_optax.optimizers._caspr import CASPR as CASPR
from singd_optax.optimizers._ekfac import EKFAC as EKFAC
from singd_optax.optimizers._foof import FOOF as FOOF
from singd_optax.optimizers._ikfac import IKFAC as IKFAC
from singd_optax.optimizers._kfac import KFAC as KFAC
from singd_optax.optimizers._kl_soap import KLSOAP as KLSOAP
from singd_optax.optimizers._kpsvd import KPSVD as KPSVD
from singd_optax.optimizers._mkor import MKOR as MKOR
from singd_optax.optimizers._rs_kfac import RSKFAC as RSKFAC
from singd_optax.optimizers._singd import SINGD as SINGD
from singd_optax.optimizers._rs_kfac import SKFAC as SKFAC
from singd_optax.optimizers._sm3 import SM3 as SM3
from singd_optax.optimizers._soap import SOAP as SOAP
from singd_optax.optimizers._tekfac import TEKFAC as TEKFAC
from singd_optax.optimizers._tkfac import TKFAC as TKFAC
from singd_optax.optimizers._tnt import TNT as TNT
from singd_optax.optimizers._adafisher import AdaFisher as AdaFisher
from singd_optax.optimizers._eva import Eva as Eva
from singd_optax.optimizers._eva import EvaF as EvaF
from singd_optax.optimizers._eva_s import EvaS as EvaS
from singd_optax.optimizers._inverse_free_kl_shampoo import InverseFreeKLShampoo as InverseFreeKLShampoo
from singd_optax.optimizers._inverse_free_shampoo import InverseFreeShampoo as InverseFreeShampoo
from singd_optax.optimizers._jorge import Jorge as Jorge
from singd_optax.optimizers._kl_shampoo import KLShampoo as KLShampoo
from singd_optax.optimizers._locoprop import LocoProp as LocoProp
from singd_optax.optimizers._mini_block_fisher import MiniBlockFisher as MiniBlockFisher
from singd_optax.optimizers._normuon import NorMuon as NorMuon
from singd_optax.optimizers._psgd_kron import PSGDKron as PSGDKron
from singd_optax.optimizers._splus import SPlus as SPlus
from singd_optax.optimizers._shampoo import Shampoo as Shampoo
from singd_optax.optimizers._sketchy import Sketchy as Sketchy

def adafisher(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = 0.01,
    damping_mode: DampingMode = 'absolute',
    factor_learning_rate: Hyperparameter = 0.05,
    normalized: bool = True,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """AdaFisher in the place of AdamW: the diagonals of both second moments of a layer.

    It needs next to no memory beside the momentum. Gomes et al., ICLR 2025, arXiv 2405.16397.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.AdaFisher``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The paper's is 1e-3.
      damping_mode: "absolute" (the paper's, where the entries of h are between 0 and 1), or
        "relative", where λ is multiplied by the mean of h_K h_Cᵀ.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      normalized: Whether N brings each side's diagonal to [0, 1]. If not, the method is KFAC with
        diagonal factors, and "relative" damping suits it better.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.adafisher(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def caspr(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    b2: Hyperparameter | None = 0.95,
    eps: Hyperparameter = 1e-06,
    root: int = 4,
    root_method: RootMethod = 'eigh',
    trace_scaled: bool = False,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = 'rmsprop',
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """CASPR in the place of AdamW: Shampoo's inverse roots in a sharper combination.

    It works for any model, from gradients alone: the state of ``shampoo``, and twice its products.
    A matrix moves by an average of CASPR's directions, each at the length of RMSProp's step, with
    decoupled weight decay. Duvvuri et al., ICLR 2024.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.CASPR``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of L and R, a number in [0, 1) or a schedule; None for the plain sums of the
        first paper.
      eps: ε, a number >= 0 or a schedule: ε λ_max I is added before a root is taken.
      root: p, the order of the inverse roots, an int >= 1: 4 for Shampoo, and 2 for its square,
        which approximates full-matrix Adagrad.
      root_method: How roots are taken: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether L and R are divided by √(Tr L / w) before their roots are taken, so that
        L ⊗ R / Tr L fits the second moment of gradients; the two are equal if that moment is a
        Kronecker product. Then ``root=2`` whitens gradients, which need no grafting, and ``root=1``
        is ``TNT``. With one side only, L is divided by the number of columns.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.caspr(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def ekfac(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    scale_source: ScaleSource = 'rows',
    exponent: float = 1.0,
    exact_squares: bool = False,
    basis_every: int = 1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """EKFAC in the place of AdamW: KFAC's eigenvectors, with the Fisher's own diagonal in them.

    It is never further from the Fisher matrix than ``kfac``, for twice the products and n numbers
    more for a kernel of n entries; ``scale_source="gradients"`` follows each step's gradient.
    George et al., NeurIPS 2018, arXiv 1806.03884.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.EKFAC``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by the mean of s,
        so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      scale_source: What s is the average of: "rows", the squares of each example's gradient, on
        refresh steps; or "gradients", the squares (Kᵀ ∇ C)² of each step's gradient, which are
        smaller by about the size of the batch, follow more closely, and need no statistics beside
        KFAC's.
      exponent: The power of s + λ, a number from 0 to 1: 1 for the natural gradient, 0.5 for the
        root that Adam takes, 0 for the gradient.
      exact_squares: Whether "rows" squares the gradient of a whole example where an example has
        several positions (tokens, pixels), and not that of each position. This costs as much as the
        gradient.
      basis_every: The least number of steps from one decomposition to the next, an int >= 1. Only
        refreshes decompose, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.ekfac(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def eva(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = 1.0,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Eva in the place of AdamW: KFAC of rank one, from the means of inputs and output gradients.

    It needs two vectors for each layer beside the momentum, and products with vectors only. Zhang
    et al., ICLR 2023, arXiv 2308.02123.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.Eva``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by the size of
        the term of rank one (|ā|², and |ā|² |ḡ|² in ``Eva``), so that the scales of the loss and of
        activations drop out.
      factor_learning_rate: b1, the weight of a new mean in the averages, a number in (0, 1] or a
        schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.eva(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def eva_f(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = 1.0,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Eva-f in the place of AdamW: FOOF of rank one, from the mean of inputs.

    It needs one vector for each layer beside the momentum, and products with vectors only. Zhang et
    al., ICLR 2023, arXiv 2308.02123.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.EvaF``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by the size of
        the term of rank one (|ā|², and |ā|² |ḡ|² in ``Eva``), so that the scales of the loss and of
        activations drop out.
      factor_learning_rate: b1, the weight of a new mean in the averages, a number in (0, 1] or a
        schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.eva_f(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def eva_s(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    damping: Hyperparameter = 1.0,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Eva-s in the place of AdamW: rank-one preconditioning from gradients, in next to no memory.

    It works for any model. It keeps two vectors for each matrix beside the momentum. A matrix moves
    by its preconditioned momentum, brought to one root mean square, with decoupled weight decay.
    Zhang et al., ICLR 2023, arXiv 2308.02123.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.EvaS``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the term of rank one, in the units of ``damping_mode``: a number
        > 0 or a schedule.
      damping_mode: "absolute" (the authors'), or "relative", where λ is multiplied by m n s², with
        s the average of the mean of G_ij²; for a gradient of equal entries this is |r|² |c|².
      factor_learning_rate: b1, the weight of a new gradient in the averages, a number in (0, 1] or
        a schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.eva_s(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def foof(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = 0.03,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    cross_moments: bool = False,
    inverse_every: int = 1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """FOOF in the place of AdamW: gradients times the inverse second moment of inputs.

    It is ``kfac`` on the side of inputs alone, for about half of its price. Benzing, ICML 2022,
    arXiv 2201.12250.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.FOOF``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by Tr S_K / d_i,
        so that the scale of activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the average, a number in (0, 1] or
        a schedule.
      cross_moments: Whether E[|g|² a aᵀ] / d_o takes the place of U for inputs a and output
        gradients g, so that each input counts by the size of its own gradient. S_K is then the mean
        of the blocks that the Fisher matrix has for each output, which for a dense layer is the
        method of mini-block Fisher (arXiv 2202.04124).
      inverse_every: The least number of steps from one inversion to the next, an int >= 1. Only
        refreshes invert, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.foof(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def ikfac(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    factor_learning_rate: Hyperparameter = 0.5,
    factor_step_norm: FactorStepNorm = 'spectral',
    cache_products: bool = True,
    direction_precision: Precision = 'default',
    damping: Hyperparameter = ...,
    damping_mode: DampingMode | None = None,
    factor_init: FactorInit | None = None,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """IKFAC in the place of AdamW: KFAC without inverses, each side of a layer by itself.

    It lies between ``kfac``, which it follows for small steps of its factors, and ``singd``, whose
    two factors depend on each other: take it to compare them. Lin et al., ICML 2024, arXiv
    2312.05705.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.IKFAC``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: The norm ‖m‖ of a factor's step m, which is divided by max(1, ‖m‖): None for
        no bound (the papers'), "max_abs" (an option of SINGD's package) or "spectral", with which
        momenta are bounded too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice the
        memory, for half of the work of each step. Nothing is kept with polar directions, which
        have no use for them.
      direction_precision: The precision of the products with a gradient in each step, as
        ``jax.numpy.einsum`` takes it; None for ``precision``. On three tasks, operands rounded to
        bfloat16, which is "default" on TPUs, came to the same results as without rounding
        (``benchmarks/precision.py``).
      damping: λ, what is added to the curvature of each side, in the units of ``damping_mode``: a
        number >= 0 or a schedule. The default ``damping_schedule(0.3)`` falls from 1 to 0.3. With
        0.03 in the end the loss of a deep autoencoder in bfloat16 was 20.2, and with 0.3 it was
        13.9 (in float32 13.97 and 13.84).
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by Tr U / d_i for
        K, and by Tr G / d_o for C. None is "relative" if ``factor_step_norm`` is "spectral", else
        "absolute".
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics. None is "statistics" if ``factor_step_norm`` is
        "spectral", else "identity".
      precision: The precision of all other products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.ikfac(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def ingd(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    factor_learning_rate: Hyperparameter = 0.5,
    factor_step_norm: FactorStepNorm = 'spectral',
    cache_products: bool = True,
    direction_precision: Precision = 'default',
    damping: Damping = ...,
    damping_mode: DampingMode | None = None,
    factor_momentum: Hyperparameter = 0.0,
    factor_init: FactorInit | None = None,
    cross_moments: bool = False,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """INGD in the place of AdamW: SINGD with dense factors, and an error for all other structures.

    Lin et al., ICML 2023, arXiv 2302.09738. Find layers with ``structures="dense"``.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.SINGD``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: The norm ‖m‖ of a factor's step m, which is divided by max(1, ‖m‖): None for
        no bound (the papers'), "max_abs" (an option of SINGD's package) or "spectral", with which
        momenta are bounded too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice the
        memory, for half of the work of each step. Nothing is kept with polar directions, which
        have no use for them.
      direction_precision: The precision of the products with a gradient in each step, as
        ``jax.numpy.einsum`` takes it; None for ``precision``. On three tasks, operands rounded to
        bfloat16, which is "default" on TPUs, came to the same results as without rounding
        (``benchmarks/precision.py``).
      damping: λ, the curvature that is added in all directions, in the units of ``damping_mode``: a
        number >= 0, a schedule, or ``sampling_damping()`` (the default), which is 0.03, and more
        where the moments are of few rows.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by
        (Tr U / d_i)(Tr G / d_o) of this layer's statistics, so that the scales of the loss and of
        activations drop out. None is "relative" if ``factor_step_norm`` is "spectral", and else
        "absolute", which is what the paper and its package do.
      factor_momentum: a1, the momentum of the factors' steps, a number in [0, 1) or a schedule; at
        0 no momentum is kept.
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics, K = (Tr U / d_i)^-1/2 I, so that only their shape
        has to be learnt. None is "statistics" if ``factor_step_norm`` is "spectral", else
        "identity".
      cross_moments: Whether E[|Cᵀ g|² Kᵀ a aᵀ K] / d_o takes the place of (Tr H_C / d_o) H_K for
        inputs a and output gradients g, and likewise for C, so that each input counts by the size
        of its own gradient. K and C then approach the matrix normal distribution under which the
        examples' gradients are likeliest: an inverse-free ``TKFAC``, in every structure. Where
        inputs and gradients are independent the two are the same.
      precision: The precision of all other products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.ingd(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def inverse_free_kl_shampoo(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    factor_learning_rate: Hyperparameter = 0.05,
    damping: Hyperparameter = 1e-05,
    polar_steps: int | None = None,
    clip_rms: float | None = 1.1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.95,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 10,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """KL-Shampoo in the place of AdamW, from gradients and matrix products alone.

    It works for any model. A matrix moves by the average of its gradients, multiplied from both
    sides by the inverse roots of their covariance, with decoupled weight decay. Learning rates are
    those of AdamW. Lin et al., arXiv 2509.03378, by the steps of arXiv 2312.05705.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.InverseFreeKLShampoo``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: b, the weight of one gradient, a number >= 0 or a schedule.
      damping: λ, what is added to the second moment, relative to mean(G²): a number >= 0 or a
        schedule.
      polar_steps: The number of steps that the iteration "polar_express" takes in a refresh, an int
        >= 1; None for 10, which are enough where the largest singular value is 20,000 times the
        least.
      clip_rms: The largest root mean square that a direction may have, a number > 0; None for no
        bound. While the factors are learnt, directions may be far larger than 1.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.inverse_free_kl_shampoo(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def inverse_free_shampoo(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    factor_learning_rate: Hyperparameter = 0.5,
    factor_step_norm: FactorStepNorm = 'spectral',
    cache_products: bool = False,
    direction_precision: Precision = 'default',
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_momentum: Hyperparameter = 0.5,
    batch_size: Hyperparameter = 1.0,
    factor_init: Literal['identity', 'gradient'] = 'gradient',
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.8,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    stagger: bool = False,
    update_rms: float | None = 0.2,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Inverse-free Shampoo in the place of AdamW: from gradients and matrix products alone.

    It works for any model; factors may have any structure, and be kept in bfloat16. A matrix moves
    by an average of preconditioned gradients, brought to the root mean square that AdamW's updates
    have, with decoupled weight decay. Lin et al., ICML 2024, arXiv 2402.03496.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.InverseFreeShampoo``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: The norm ‖m‖ of a factor's step m, which is divided by max(1, ‖m‖): None for
        no bound (the papers'), "max_abs" (an option of SINGD's package) or "spectral", with which
        momenta are bounded too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice the
        memory, for half of the work of each step. Nothing is kept with polar directions, which
        have no use for them.
      direction_precision: The precision of the products with a gradient in each step, as
        ``jax.numpy.einsum`` takes it; None for ``precision``. On three tasks, operands rounded to
        bfloat16, which is "default" on TPUs, came to the same results as without rounding
        (``benchmarks/precision.py``).
      damping: λ, what is added to the second moment, in the units of ``damping_mode``: a number
        >= 0 or a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "relative", where λ is multiplied by B mean(G²), or "absolute" (the paper's).
      factor_momentum: a1, the momentum of the factors' steps, a number in [0, 1) or a schedule.
      batch_size: B, a number > 0 or a schedule: 1 for a loss that is a sum, and the number of
        examples for one that is a mean, where squared gradients are that much smaller than the
        curvature that they stand for. With relative damping it changes the size of directions and
        nothing else.
      factor_init: Where K and C start: "identity" (the paper's), or "gradient", multiples of the
        identity that fit the size of the first gradient, so that only their shape has to be learnt.
      precision: The precision of all other products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.inverse_free_shampoo(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def jorge(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    initial_moment: float = 1e-06,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 10,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = 'rmsprop',
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Jorge in the place of AdamW: Shampoo from matrix products alone, without moments.

    It works for any model. A matrix moves by an average of Jorge's directions, each at the length
    of RMSProp's step (the paper's is that of SGD, ``grafting="sgd"``), with decoupled weight decay.
    Singh et al., 2023, arXiv 2310.12298.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.Jorge``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      initial_moment: The multiple of I that L and R are at first, a number > 0.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.jorge(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def kfac(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    bias_correction: bool = True,
    use_pi: bool = True,
    inverse_method: InverseMethod = 'cholesky',
    inverse_every: int = 1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """KFAC in the place of AdamW: gradients times the inverses of a layer's two moments.

    This is the reference among the curvature methods: take it for damping as in the literature, or
    for the moments themselves. Factors may be dense, block-diagonal or diagonal. Martens and
    Grosse, ICML 2015, arXiv 1503.05671.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.KFAC``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t after t
        refreshes, as Adam's are; if not, they start at I.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_method: How gradients are multiplied by the inverses. "cholesky" keeps the inverses.
        "root" keeps K and C, where K Kᵀ and C Cᵀ are the inverses: these stay positive definite in
        bfloat16, for twice the products; polar directions need it, and put it in the place of
        "cholesky". "eigh" keeps eigenvectors. "cg" inverts nothing: each step solves for what
        "eigh" gives, by products with S_K and S_C, with half of the state. It stands for
        ``singd_optax.rules.ConjugateGradients()``, which may also be given with options.
      inverse_every: The least number of steps from one inversion to the next, an int >= 1. Only
        refreshes invert, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.kfac(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def kl_shampoo(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-06,
    basis_method: BasisMethod = 'qr',
    clip_rms: float | None = 1.1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.95,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 10,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """KL-Shampoo in the place of AdamW: the two factors that fit gradients' moment best.

    It works for any model, from gradients alone. A matrix moves by the average of its gradients,
    multiplied from both sides by the inverse roots of the factors, with decoupled weight decay. No
    second moment of entries is kept. Learning rates are those of AdamW. Lin et al., arXiv
    2509.03378.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.KLShampoo``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of factors and values, a number in [0, 1) or a schedule.
      eps: ε, what is added to the values, relative to the largest of them, a number >= 0 or a
        schedule.
      basis_method: What a refresh makes the bases of: "qr", one step of orthogonal iteration, or
        "eigh", the eigenvectors.
      clip_rms: The largest root mean square that a direction may have, a number > 0; None for no
        bound. The direction of a gradient like the last ones has about 1, that of an average less.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.kl_shampoo(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def kl_soap(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-06,
    basis_method: BasisMethod = 'qr',
    clip_rms: float | None = 1.1,
    adam_eps: Hyperparameter = 1e-08,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.95,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 10,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """KL-SOAP in the place of AdamW: Adam in the bases of KL-Shampoo's factors.

    It works for any model, from gradients alone. It is ``soap`` in the bases of ``kl_shampoo``: a
    matrix moves by Adam's step in them, with decoupled weight decay. Lin et al., arXiv 2509.03378.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.KLSOAP``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of factors, values and V, a number in [0, 1) or a schedule.
      eps: What is added to the values, relative to the largest of them, a number >= 0 or a
        schedule.
      basis_method: What a refresh makes the bases of: "qr", one step of orthogonal iteration, or
        "eigh", the eigenvectors.
      clip_rms: The largest root mean square that a direction may have, a number > 0; None for no
        bound. The direction of a gradient like the last ones has about 1, that of an average less.
      adam_eps: ε, a number >= 0 or a schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.kl_soap(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def kpsvd(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    bias_correction: bool = True,
    use_pi: bool = True,
    inverse_method: InverseMethod = 'cholesky',
    inverse_every: int = 1,
    second_term: bool = False,
    floor: float = 0.1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """KPSVD in the place of AdamW: the Kronecker product that is nearest to the Fisher matrix.

    Take it for the least error of two factors, at the price of ``kfac``, or with
    ``second_term=True`` for the least error of a sum of two such products. Koroko et al., 2022,
    arXiv 2201.10285.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.KPSVD``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t after t
        refreshes, as Adam's are; if not, they start at I.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_method: How gradients are multiplied by the inverses. "cholesky" keeps the inverses.
        "root" keeps K and C, where K Kᵀ and C Cᵀ are the inverses: these stay positive definite in
        bfloat16, for twice the products; polar directions need it, and put it in the place of
        "cholesky". "eigh" keeps eigenvectors. "cg" inverts nothing: each step solves for what
        "eigh" gives, by products with S_K and S_C, with half of the state. It stands for
        ``singd_optax.rules.ConjugateGradients()``, which may also be given with options.
      inverse_every: The least number of steps from one inversion to the next, an int >= 1. Only
        refreshes invert, so that at 1 each refresh does.
      second_term: Whether the sum of two Kronecker products takes the place of one. State and
        averages are then twice as large, three times as much is measured, and each refresh finds
        eigenvectors beside inverses.
      floor: The least that 1 + s_K s_Cᵀ is taken for, a number in (0, 1]. The second term is not
        definite, and may take away as much as the first has; with the floor the preconditioner is
        never larger than 1 / ``floor`` times that of the first term alone.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.kpsvd(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def locoprop(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    local_steps: int = 10,
    local_method: LocalMethod = 'gradient',
    local_learning_rate: float = 1.0,
    damping: Hyperparameter = 0.0,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """LocoProp-S in the place of AdamW: some steps of each layer on a loss of its own.

    It comes near ``foof`` by matrix products, without inverses. Amid et al., AISTATS 2022, arXiv
    2106.06199, whose own local steps are ``local_method="rmsprop"``.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.LocoProp``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      local_steps: The number of local steps, an int >= 1. Each is one product with S_K.
      local_method: "gradient", or "rmsprop" (the paper's), whose v starts at 0 in each step.
      local_learning_rate: η, the size of local steps relative to 1 / ρ, a number in (0, 2). With
        "gradient" and 1, a direction whose eigenvalue is ρ arrives in one local step.
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number >= 0 or
        a schedule.
      damping_mode: "absolute", or "relative", where λ is multiplied by Tr S_K / d_i, so that the
        scale of activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the average, a number in (0, 1] or
        a schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.locoprop(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def mini_block_fisher(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.95,
    damping: Hyperparameter = 0.1,
    damping_mode: DampingMode = 'relative',
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    stagger: bool = False,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Mini-block Fisher in the place of AdamW: inverses of small blocks, from gradients alone.

    It works for any model, and is meant for convolutional nets, whose kernels have one small block
    for each pair of channels. A matrix moves by its preconditioned momentum, brought to one root
    mean square, with decoupled weight decay. Bahamou et al., AISTATS 2023, arXiv 2202.04124.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.MiniBlockFisher``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of S, a number in [0, 1) or a schedule.
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute", or "relative", where λ is multiplied by the mean of the diagonal of
        all of a layer's blocks, which is the mean square of its gradients' entries.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.mini_block_fisher(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def mkor(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    factor_learning_rate: Hyperparameter = 0.05,
    damping_mode: DampingMode = 'relative',
    largest: float = 10.0,
    stabilizer: float = 0.1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """MKOR in the place of AdamW: inverses that each step updates by a product of two vectors.

    Take it for inverses that are never old, from means of inputs and output gradients. Mozaffari et
    al., NeurIPS 2023, arXiv 2306.01685.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.MKOR``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: b1, the weight of a new v vᵀ, a number in (0, 1) or a schedule.
      damping_mode: The length of v beside the I at which the averages start and to which they are
        drawn back: "absolute" keeps its own (the paper's); "relative" makes it √d, with d its
        number of entries, so that the scales of the loss and of activations drop out.
      largest: The absolute value of an entry above which an inverse is drawn back to I, a number
        > 1.
      stabilizer: 1 - ζ, a number in (0, 1]: how far an inverse that is too large is drawn back to
        I. It must be larger than b1, or inverses grow faster than they are drawn back.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.mkor(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def normuon(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-08,
    iteration: Iteration = 'muon',
    steps: int | None = None,
    iteration_dtype: DTypeLike | None = None,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.95,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = 0.2,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """NorMuon in the place of AdamW: orthogonalized momentum, with one size for each output.

    It works for any model, from gradients alone, with next to no memory beside the momentum. A
    matrix moves by Muon's direction with its columns evened out, at the root mean square that
    AdamW's updates have, and with decoupled weight decay. Li et al., arXiv 2510.05491.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.NorMuon``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of v, a number in [0, 1) or a schedule.
      eps: ε, a number >= 0 or a schedule.
      iteration: How the polar factor is found: "muon", "polar_express", "quintic", or triples of
        numbers, see ``singd_optax.rules.coefficients_of``.
      steps: The number of steps of the iteration, an int >= 1; None for its own number.
      iteration_dtype: The dtype in which the iteration runs, "float32" or "bfloat16"; None for that
        of statistics (float32, or float64 for float64 parameters).
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.normuon(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def optimizer(
    learning_rate: Hyperparameter,
    rule: Rule,
    layers: Layers | None = None,
    *,
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = ...,
    nesterov: bool = ...,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    stagger: bool = False,
    update_rms: float | None = ...,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = ...,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Make a complete optimizer of any rule, for use in the place of ``optax.adamw``.

    A rule is what one method does for one matrix. For each matrix (a Kronecker layer, or any array
    of two axes or more) the momentum is preconditioned by the rule, its update is brought to one
    size, and weight decay is added, decoupled from the gradient as AdamW's is. All other parameters
    go to ``fallback``. ``singd``, ``kfac``, ``shampoo`` and the like are this with rules of the
    library; use it for a rule of your own, or for one that is wrapped in another.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      rule: What to do for each matrix, for example ``SINGD()``. It brings its own defaults for the
        options below (``Rule.recipe``).
      layers: The layers that ``find_layers`` found, which rules that measure layers need, or the
        matrices that ``find_matrices`` did. None: every array of two axes or more is a matrix, but
        for embeddings, see ``matrix_axes``.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      **options: The options of ``scale_by_rule``, by name:
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation. If the rule has measures, its ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> from singd_optax.optimizers import Shampoo
      >>> tx = singd_optax.optimizer(1e-2, Shampoo(b2=0.9), momentum=0.8)
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
    """
    ...

def psgd_kron(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    factor_learning_rate: Hyperparameter = 0.1,
    geometry: Geometry = 'Q0.5EQ1.5',
    curvature_decay: Hyperparameter = 0.9,
    damping: Hyperparameter = 0.001,
    clip_rms: float | None = 1.1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """PSGD-Kron in the place of AdamW: gradients whitened by factors that move in small steps.

    It works for any model, from gradients and matrix products alone. A matrix moves by the average
    of its gradients, made uncorrelated and of one size by both factors, with decoupled weight
    decay. Learning rates are those of AdamW, or a little smaller. Li, 2015, arXiv 1512.04202;
    Pooladzandi and Li, 2024, arXiv 2402.04553.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.PSGDKron``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: μ, the step on K and C, a number >= 0 or a schedule.
      geometry: How K and C move: "Q0.5EQ1.5", "QUAD" or "QEQ", as above.
      curvature_decay: β, the decay of the bound on steps, a number in [0, 1) or a schedule.
      damping: The standard deviation of the noise, relative to the root mean square of G, a number
        >= 0 or a schedule.
      clip_rms: The largest root mean square that a direction may have, a number > 0; None for no
        bound. While P is learnt, directions may be far larger than 1.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.psgd_kron(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def rs_kfac(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    rank: int = 220,
    power_iterations: int = 3,
    sketched: bool = False,
    continued: bool = True,
    use_pi: bool = True,
    inverse_every: int = 1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """RS-KFAC in the place of AdamW: KFAC from the leading eigenvectors of both moments.

    It is for layers with thousands of inputs or outputs, where the inverses of ``kfac`` are costly.
    Puiu, 2022, arXiv 2206.15397.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.RSKFAC``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute", or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      rank: The number of eigenvectors of a side, an int >= 1; a side has no more than its dim.
      power_iterations: How often random columns are multiplied by S before the last product, an
        int >= 1. More find eigenvectors more exactly.
      sketched: Whether S Ω is averaged in the place of S, for ``rank`` fixed random columns Ω. Then
        S is never formed, and nothing is as large as dim x dim. The eigenvectors are those of
        Nyström's approximation, which is exact where the rank of S is not larger.
      continued: Whether all other eigenvalues are taken for the least of those that are kept; if
        not, they are taken for 0.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_every: The least number of steps from one decomposition to the next, an int >= 1. Only
        refreshes decompose, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.rs_kfac(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def scale_by_adafisher(
    layers: Layers,
    *,
    damping: Hyperparameter = 0.01,
    damping_mode: DampingMode = 'absolute',
    factor_learning_rate: Hyperparameter = 0.05,
    normalized: bool = True,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by AdaFisher's preconditioner: diagonals of both Kronecker factors.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    G / (h_K h_Cᵀ + λ), where h_K and h_C are averages of the diagonals of the second moments of
    inputs and output gradients. The structures of layers are not used.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.AdaFisher``;
    ``singd_optax.adafisher`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The paper's is 1e-3.
      damping_mode: "absolute" (the paper's, where the entries of h are between 0 and 1), or
        "relative", where λ is multiplied by the mean of h_K h_Cᵀ.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      normalized: Whether N brings each side's diagonal to [0, 1]. If not, the method is KFAC with
        diagonal factors, and "relative" damping suits it better.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Gomes et al., AdaFisher: Adaptive Second Order Optimization via Fisher Information, ICLR 2025,
      arXiv 2405.16397.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_adafisher(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_caspr(
    layers: Layers | None = None,
    *,
    b2: Hyperparameter | None = 0.95,
    eps: Hyperparameter = 1e-06,
    root: int = 4,
    root_method: RootMethod = 'eigh',
    trace_scaled: bool = False,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by CASPR's preconditioner, from gradients alone.

    A gradient G becomes (A² G + 2 A G B + G B²) / 4, where A = L^(-1/4) and B = R^(-1/4) are
    Shampoo's roots. With the same state as Shampoo, and twice the products, this is closer to
    full-matrix Adagrad.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.CASPR``; ``singd_optax.caspr`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of L and R, a number in [0, 1) or a schedule; None for the plain sums of the
        first paper.
      eps: ε, a number >= 0 or a schedule: ε λ_max I is added before a root is taken.
      root: p, the order of the inverse roots, an int >= 1: 4 for Shampoo, and 2 for its square,
        which approximates full-matrix Adagrad.
      root_method: How roots are taken: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether L and R are divided by √(Tr L / w) before their roots are taken, so that
        L ⊗ R / Tr L fits the second moment of gradients; the two are equal if that moment is a
        Kronecker product. Then ``root=2`` whitens gradients, which need no grafting, and ``root=1``
        is ``TNT``. With one side only, L is divided by the number of columns.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Duvvuri, Devvrit, Anil, Hsieh and Dhillon, Combining Axes Preconditioners through Kronecker
      Approximation for Deep Learning, ICLR 2024.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_caspr(b2=None, eps=0.0)
      >>> grads = {"kernel": jnp.diag(jnp.array([4.0, 9.0]))}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(4)
      Array([[1., 0.],
             [0., 1.]], dtype=float32)
    """
    ...

def scale_by_ekfac(
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    scale_source: ScaleSource = 'rows',
    exponent: float = 1.0,
    exact_squares: bool = False,
    basis_every: int = 1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by EKFAC's preconditioner: KFAC's eigenbases, the Fisher's own diagonal.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    K [ (Kᵀ G C) / (s + λ) ] Cᵀ, where K and C are the eigenvectors of KFAC's second moments, and s
    is the diagonal of the Fisher matrix in their basis.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.EKFAC``;
    ``singd_optax.ekfac`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by the mean of s,
        so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      scale_source: What s is the average of: "rows", the squares of each example's gradient, on
        refresh steps; or "gradients", the squares (Kᵀ ∇ C)² of each step's gradient, which are
        smaller by about the size of the batch, follow more closely, and need no statistics beside
        KFAC's.
      exponent: The power of s + λ, a number from 0 to 1: 1 for the natural gradient, 0.5 for the
        root that Adam takes, 0 for the gradient.
      exact_squares: Whether "rows" squares the gradient of a whole example where an example has
        several positions (tokens, pixels), and not that of each position. This costs as much as the
        gradient.
      basis_every: The least number of steps from one decomposition to the next, an int >= 1. Only
        refreshes decompose, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      George et al., Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis,
      NeurIPS 2018, arXiv 1806.03884.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_ekfac(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_eva(
    layers: Layers,
    *,
    damping: Hyperparameter = 1.0,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Eva's preconditioner: KFAC of rank one, from vectors.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    [ G - (āᵀ G ḡ) / (λ + |ā|² |ḡ|²) ā ḡᵀ ] / λ, where ā and ḡ are averages of the means of inputs
    and output gradients. The structures of layers are not used.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.Eva``;
    ``singd_optax.eva`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by the size of
        the term of rank one (|ā|², and |ā|² |ḡ|² in ``Eva``), so that the scales of the loss and of
        activations drop out.
      factor_learning_rate: b1, the weight of a new mean in the averages, a number in (0, 1] or a
        schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Zhang et al., Eva: A General Vectorized Approximation Framework for Second-order
      Optimization, ICLR 2023, arXiv 2308.02123.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_eva(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_eva_f(
    layers: Layers,
    *,
    damping: Hyperparameter = 1.0,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Eva-f's preconditioner: FOOF of rank one, from a vector.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    [ G - ā (āᵀ G) / (λ + |ā|²) ] / λ, where ā is an average of the mean of inputs. The structures
    of layers are not used.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.EvaF``;
    ``singd_optax.eva_f`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by the size of
        the term of rank one (|ā|², and |ā|² |ḡ|² in ``Eva``), so that the scales of the loss and of
        activations drop out.
      factor_learning_rate: b1, the weight of a new mean in the averages, a number in (0, 1] or a
        schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Zhang et al., Eva: A General Vectorized Approximation Framework for Second-order
      Optimization, ICLR 2023, arXiv 2308.02123.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_eva_f(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_eva_s(
    layers: Layers | None = None,
    *,
    damping: Hyperparameter = 1.0,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Eva-s's preconditioner of rank one, from gradients alone.

    A gradient G becomes [ G - (rᵀ G c) / (λ + |r|² |c|²) r cᵀ ] / λ, where r and c are averages of
    the means of the rows and columns of gradients. Structures are not used.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.EvaS``; ``singd_optax.eva_s`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the term of rank one, in the units of ``damping_mode``: a number
        > 0 or a schedule.
      damping_mode: "absolute" (the authors'), or "relative", where λ is multiplied by m n s², with
        s the average of the mean of G_ij²; for a gradient of equal entries this is |r|² |c|².
      factor_learning_rate: b1, the weight of a new gradient in the averages, a number in (0, 1] or
        a schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Zhang et al., Eva: A General Vectorized Approximation Framework for Second-order
      Optimization, ICLR 2023, arXiv 2308.02123.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_eva_s(damping=1.0, damping_mode="absolute")
      >>> grads = {"kernel": jnp.ones((3, 2))}
      >>> (1 / tx.update(grads, tx.init(grads))[0]["kernel"]).round(2)[0]  # 1 + 3 · 2
      Array([7., 7.], dtype=float32)
    """
    ...

def scale_by_foof(
    layers: Layers,
    *,
    damping: Hyperparameter = 0.03,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    cross_moments: bool = False,
    inverse_every: int = 1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by FOOF's preconditioner: gradient descent on neurons.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K + λ I)^-1 G, where S_K is a moving average of the second moment of inputs, and λ is the
    damping. The structure of a layer's C is not used.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.FOOF``;
    ``singd_optax.foof`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by Tr S_K / d_i,
        so that the scale of activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the average, a number in (0, 1] or
        a schedule.
      cross_moments: Whether E[|g|² a aᵀ] / d_o takes the place of U for inputs a and output
        gradients g, so that each input counts by the size of its own gradient. S_K is then the mean
        of the blocks that the Fisher matrix has for each output, which for a dense layer is the
        method of mini-block Fisher (arXiv 2202.04124).
      inverse_every: The least number of steps from one inversion to the next, an int >= 1. Only
        refreshes invert, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Benzing, Gradient Descent on Neurons and its Link to Approximate Second-Order Optimization,
      ICML 2022, arXiv 2201.12250.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_foof(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_ikfac(
    layers: Layers,
    *,
    factor_learning_rate: Hyperparameter = 0.5,
    factor_step_norm: FactorStepNorm = 'spectral',
    cache_products: bool = True,
    direction_precision: Precision = 'default',
    damping: Hyperparameter = ...,
    damping_mode: DampingMode | None = None,
    factor_init: FactorInit | None = None,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by IKFAC's preconditioner: KFAC without inverses.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    K Kᵀ G C Cᵀ. K Kᵀ follows KFAC's inverse (S_K + λ I)^-1, where S_K is the moving average of the
    inputs' second moment, by matrix products alone; C Cᵀ is alike for output gradients.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.IKFAC``;
    ``singd_optax.ikfac`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: The norm ‖m‖ of a factor's step m, which is divided by max(1, ‖m‖): None for
        no bound (the papers'), "max_abs" (an option of SINGD's package) or "spectral", with which
        momenta are bounded too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice the
        memory, for half of the work of each step. Nothing is kept with polar directions, which
        have no use for them.
      direction_precision: The precision of the products with a gradient in each step, as
        ``jax.numpy.einsum`` takes it; None for ``precision``. On three tasks, operands rounded to
        bfloat16, which is "default" on TPUs, came to the same results as without rounding
        (``benchmarks/precision.py``).
      damping: λ, what is added to the curvature of each side, in the units of ``damping_mode``: a
        number >= 0 or a schedule. The default ``damping_schedule(0.3)`` falls from 1 to 0.3. With
        0.03 in the end the loss of a deep autoencoder in bfloat16 was 20.2, and with 0.3 it was
        13.9 (in float32 13.97 and 13.84).
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by Tr U / d_i for
        K, and by Tr G / d_o for C. None is "relative" if ``factor_step_norm`` is "spectral", else
        "absolute".
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics. None is "statistics" if ``factor_step_norm`` is
        "spectral", else "identity".
      precision: The precision of all other products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Lin et al., Structured Inverse-Free Natural Gradient, ICML 2024, arXiv 2312.05705, theorem 1.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_ikfac(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_inverse_free_kl_shampoo(
    layers: Layers | None = None,
    *,
    factor_learning_rate: Hyperparameter = 0.05,
    damping: Hyperparameter = 1e-05,
    polar_steps: int | None = None,
    clip_rms: float | None = 1.1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by KL-Shampoo's preconditioner, from gradients and matrix products alone.

    A gradient G becomes K G Cᵀ, where K and C follow the inverse roots S_K^-1/2 and S_C^-1/2 of
    KL-Shampoo's factors. They may be kept in bfloat16.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.InverseFreeKLShampoo``; ``singd_optax.inverse_free_kl_shampoo`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: b, the weight of one gradient, a number >= 0 or a schedule.
      damping: λ, what is added to the second moment, relative to mean(G²): a number >= 0 or a
        schedule.
      polar_steps: The number of steps that the iteration "polar_express" takes in a refresh, an int
        >= 1; None for 10, which are enough where the largest singular value is 20,000 times the
        least.
      clip_rms: The largest root mean square that a direction may have, a number > 0; None for no
        bound. While the factors are learnt, directions may be far larger than 1.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Lin et al., arXiv 2509.03378 (KL-Shampoo); Lin et al., arXiv 2312.05705 (steps on factors).

    Example:
      >>> import jax, jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_inverse_free_kl_shampoo()
      >>> grads = {"kernel": 5 * jnp.eye(2)}
      >>> state, update = tx.init(grads), jax.jit(tx.update)
      >>> for _ in range(200):
      ...   updates, state = update(grads, state)
      >>> updates["kernel"].round(1)
      Array([[1.4, 0. ],
             [0. , 1.4]], dtype=float32)
    """
    ...

def scale_by_inverse_free_shampoo(
    layers: Layers | None = None,
    *,
    factor_learning_rate: Hyperparameter = 0.5,
    factor_step_norm: FactorStepNorm = 'spectral',
    cache_products: bool = False,
    direction_precision: Precision = 'default',
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_momentum: Hyperparameter = 0.5,
    batch_size: Hyperparameter = 1.0,
    factor_init: Literal['identity', 'gradient'] = 'gradient',
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by structured inverse- and root-free Shampoo, from gradients alone.

    It is the relative of SINGD for any tree of parameters, without a model or layers. A gradient G
    becomes K Kᵀ G C Cᵀ. By matrix products alone, K and C approach roots of the inverse second
    moment of the gradient. They may have any structure, and may be kept in bfloat16.

    As no root is taken of the moment, the update is smaller where gradients are larger. So set its
    size, by ``grafting``, or by ``update_rms`` as the complete optimizer does.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.InverseFreeShampoo``; ``singd_optax.inverse_free_shampoo`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: The norm ‖m‖ of a factor's step m, which is divided by max(1, ‖m‖): None for
        no bound (the papers'), "max_abs" (an option of SINGD's package) or "spectral", with which
        momenta are bounded too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice the
        memory, for half of the work of each step. Nothing is kept with polar directions, which
        have no use for them.
      direction_precision: The precision of the products with a gradient in each step, as
        ``jax.numpy.einsum`` takes it; None for ``precision``. On three tasks, operands rounded to
        bfloat16, which is "default" on TPUs, came to the same results as without rounding
        (``benchmarks/precision.py``).
      damping: λ, what is added to the second moment, in the units of ``damping_mode``: a number
        >= 0 or a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "relative", where λ is multiplied by B mean(G²), or "absolute" (the paper's).
      factor_momentum: a1, the momentum of the factors' steps, a number in [0, 1) or a schedule.
      batch_size: B, a number > 0 or a schedule: 1 for a loss that is a sum, and the number of
        examples for one that is a mean, where squared gradients are that much smaller than the
        curvature that they stand for. With relative damping it changes the size of directions and
        nothing else.
      factor_init: Where K and C start: "identity" (the paper's), or "gradient", multiples of the
        identity that fit the size of the first gradient, so that only their shape has to be learnt.
      precision: The precision of all other products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Lin et al., Can We Remove the Square-Root in Adaptive Gradient Methods? A Second-Order
      Perspective, ICML 2024, arXiv 2402.03496.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> tx = optax.chain(
      ...   singd_optax.scale_by_inverse_free_shampoo(structures="diagonal", grafting="sgd"),
      ...   optax.scale_by_learning_rate(0.1))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> opt_state = tx.init(params)
      >>> updates, opt_state = tx.update(params, opt_state, params)
      >>> round(float(optax.tree.norm(updates["kernel"])), 4)
      0.2449
    """
    ...

def scale_by_jorge(
    layers: Layers | None = None,
    *,
    initial_moment: float = 1e-06,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Shampoo's preconditioner, whose roots are moved by a series.

    A gradient G becomes A G B, where A and B follow the inverse fourth roots of the averages of
    G Gᵀ and Gᵀ G, by matrix products alone.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.Jorge``; ``singd_optax.jorge`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      initial_moment: The multiple of I that L and R are at first, a number > 0.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Singh, Sating and Bhatele, Jorge: Approximate Preconditioning for GPU-efficient Second-order
      Optimization, 2023, arXiv 2310.12298.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_jorge(grafting="sgd")
      >>> grads = {"kernel": jnp.diag(jnp.array([3.0, 4.0]))}
      >>> bool(jnp.linalg.norm(tx.update(grads, tx.init(grads))[0]["kernel"]).round(4) == 5)
      True
    """
    ...

def scale_by_kfac(
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    bias_correction: bool = True,
    use_pi: bool = True,
    inverse_method: InverseMethod = 'cholesky',
    inverse_every: int = 1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by KFAC's preconditioner: the method that SINGD makes inverse-free.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K + π √λ I)^-1 G (S_C + √λ / π I)^-1, where S_K and S_C are moving averages of the second
    moments of inputs and output gradients, λ is the damping, and π divides it between them.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.KFAC``;
    ``singd_optax.kfac`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t after t
        refreshes, as Adam's are; if not, they start at I.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_method: How gradients are multiplied by the inverses. "cholesky" keeps the inverses.
        "root" keeps K and C, where K Kᵀ and C Cᵀ are the inverses: these stay positive definite in
        bfloat16, for twice the products; polar directions need it, and put it in the place of
        "cholesky". "eigh" keeps eigenvectors. "cg" inverts nothing: each step solves for what
        "eigh" gives, by products with S_K and S_C, with half of the state. It stands for
        ``singd_optax.rules.ConjugateGradients()``, which may also be given with options.
      inverse_every: The least number of steps from one inversion to the next, an int >= 1. Only
        refreshes invert, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature,
      ICML 2015, arXiv 1503.05671. Eschenhagen et al., Kronecker-Factored Approximate Curvature for
      Modern Neural Network Architectures, NeurIPS 2023, arXiv 2311.00636 (expand and reduce).

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_kfac(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_kl_shampoo(
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-06,
    basis_method: BasisMethod = 'qr',
    clip_rms: float | None = 1.1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by KL-Shampoo's preconditioner, from gradients alone.

    A gradient G becomes S_K^-1/2 G S_C^-1/2, where S_K ⊗ S_C is the Kronecker product that is
    nearest to the second moment of gradients in Kullback-Leibler divergence.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.KLShampoo``; ``singd_optax.kl_shampoo`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of factors and values, a number in [0, 1) or a schedule.
      eps: ε, what is added to the values, relative to the largest of them, a number >= 0 or a
        schedule.
      basis_method: What a refresh makes the bases of: "qr", one step of orthogonal iteration, or
        "eigh", the eigenvectors.
      clip_rms: The largest root mean square that a direction may have, a number > 0; None for no
        bound. The direction of a gradient like the last ones has about 1, that of an average less.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Lin, Lowe, Dangel, Eschenhagen, Xu and Grosse, Understanding and Improving Shampoo and SOAP
      via Kullback-Leibler Minimization, arXiv 2509.03378.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_kl_shampoo()
      >>> grads = {"kernel": jnp.full((3, 2), 5.0)}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(2)[0]
      Array([1., 1.], dtype=float32)
    """
    ...

def scale_by_kl_soap(
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-06,
    basis_method: BasisMethod = 'qr',
    clip_rms: float | None = 1.1,
    adam_eps: Hyperparameter = 1e-08,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Adam's second moment in the bases of KL-Shampoo's factors.

    A gradient G becomes Q [ Qᵀ G P / (√(V / w) + ε) ] Pᵀ, where Q and P are near the eigenvectors
    of KL-Shampoo's factors, and V averages the squares of Qᵀ G P.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.KLSOAP``; ``singd_optax.kl_soap`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of factors, values and V, a number in [0, 1) or a schedule.
      eps: What is added to the values, relative to the largest of them, a number >= 0 or a
        schedule.
      basis_method: What a refresh makes the bases of: "qr", one step of orthogonal iteration, or
        "eigh", the eigenvectors.
      clip_rms: The largest root mean square that a direction may have, a number > 0; None for no
        bound. The direction of a gradient like the last ones has about 1, that of an average less.
      adam_eps: ε, a number >= 0 or a schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Lin, Lowe, Dangel, Eschenhagen, Xu and Grosse, Understanding and Improving Shampoo and SOAP
      via Kullback-Leibler Minimization, arXiv 2509.03378.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_kl_soap()
      >>> grads = {"kernel": jnp.ones((3, 2))}
      >>> updates, opt_state = tx.update(grads, tx.init(grads))
    """
    ...

def scale_by_kpsvd(
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    bias_correction: bool = True,
    use_pi: bool = True,
    inverse_method: InverseMethod = 'cholesky',
    inverse_every: int = 1,
    second_term: bool = False,
    floor: float = 0.1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by KPSVD's preconditioner: the Kronecker product nearest to the Fisher.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K / √σ + π √λ I)^-1 G (S_C / √σ + √λ / π I)^-1, where S_K ⊗ S_C / σ is the product that is
    nearest to the Fisher matrix, λ is the damping, and π divides it between both sides. With
    ``second_term`` G is multiplied by the inverse of a sum of two products.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.KPSVD``;
    ``singd_optax.kpsvd`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t after t
        refreshes, as Adam's are; if not, they start at I.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_method: How gradients are multiplied by the inverses. "cholesky" keeps the inverses.
        "root" keeps K and C, where K Kᵀ and C Cᵀ are the inverses: these stay positive definite in
        bfloat16, for twice the products; polar directions need it, and put it in the place of
        "cholesky". "eigh" keeps eigenvectors. "cg" inverts nothing: each step solves for what
        "eigh" gives, by products with S_K and S_C, with half of the state. It stands for
        ``singd_optax.rules.ConjugateGradients()``, which may also be given with options.
      inverse_every: The least number of steps from one inversion to the next, an int >= 1. Only
        refreshes invert, so that at 1 each refresh does.
      second_term: Whether the sum of two Kronecker products takes the place of one. State and
        averages are then twice as large, three times as much is measured, and each refresh finds
        eigenvectors beside inverses.
      floor: The least that 1 + s_K s_Cᵀ is taken for, a number in (0, 1]. The second term is not
        definite, and may take away as much as the first has; with the floor the preconditioner is
        never larger than 1 / ``floor`` times that of the first term alone.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Koroko et al., Efficient Approximations of the Fisher Matrix in Neural Networks using
      Kronecker Product Singular Value Decomposition, 2022, arXiv 2201.10285.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_kpsvd(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_locoprop(
    layers: Layers,
    *,
    local_steps: int = 10,
    local_method: LocalMethod = 'gradient',
    local_learning_rate: float = 1.0,
    damping: Hyperparameter = 0.0,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by LocoProp-S: a few steps on a local loss of each layer.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) is taken by
    ``local_steps`` steps towards (S_K + λ I)^-1 G, where S_K is a moving average of the second
    moment of inputs. The structure of a layer's C is not used.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.LocoProp``;
    ``singd_optax.locoprop`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      local_steps: The number of local steps, an int >= 1. Each is one product with S_K.
      local_method: "gradient", or "rmsprop" (the paper's), whose v starts at 0 in each step.
      local_learning_rate: η, the size of local steps relative to 1 / ρ, a number in (0, 2). With
        "gradient" and 1, a direction whose eigenvalue is ρ arrives in one local step.
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number >= 0 or
        a schedule.
      damping_mode: "absolute", or "relative", where λ is multiplied by Tr S_K / d_i, so that the
        scale of activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the average, a number in (0, 1] or
        a schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Amid et al., LocoProp: Enhancing BackProp via Local Loss Optimization, AISTATS 2022,
      arXiv 2106.06199.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_locoprop(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_mini_block_fisher(
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.95,
    damping: Hyperparameter = 0.1,
    damping_mode: DampingMode = 'relative',
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by the inverse of small blocks of the Fisher matrix, from gradients alone.

    The equations, and which arrays are convolutions, are in
    ``singd_optax.optimizers.MiniBlockFisher``. The structure of rows is that of a dense layer's
    block: dense, block-diagonal or diagonal; that of columns, and those of convolutions, are not
    used. Scalars and vectors pass through. ``singd_optax.mini_block_fisher`` is a complete
    optimizer.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.MiniBlockFisher``; ``singd_optax.mini_block_fisher`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of S, a number in [0, 1) or a schedule.
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute", or "relative", where λ is multiplied by the mean of the diagonal of
        all of a layer's blocks, which is the mean square of its gradients' entries.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Bahamou, Goldfarb and Ren, A Mini-Block Fisher Method for Deep Neural Networks, AISTATS 2023,
      arXiv 2202.04124.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_mini_block_fisher(damping=1.0, damping_mode="absolute")
      >>> grads = {"conv": jnp.ones((3, 3, 4, 8)), "dense": jnp.ones((4, 8))}
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> (1 / updates["conv"]).round(2)[0, 0, 0, :2]  # 1 + 9, a block has the 9 positions
      Array([10., 10.], dtype=float32)
      >>> (1 / updates["dense"]).round(2)[0, :2]  # 1 + 4, the block has the 4 inputs
      Array([5., 5.], dtype=float32)
    """
    ...

def scale_by_mkor(
    layers: Layers,
    *,
    factor_learning_rate: Hyperparameter = 0.05,
    damping_mode: DampingMode = 'relative',
    largest: float = 10.0,
    stabilizer: float = 0.1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by MKOR's preconditioner: inverses by updates of rank one.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes K G C,
    where K and C are the inverses of moving averages of ā āᵀ and ḡ ḡᵀ, with ā and ḡ the means of
    inputs and output gradients. They are updated, and nothing is inverted.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.MKOR``;
    ``singd_optax.mkor`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: b1, the weight of a new v vᵀ, a number in (0, 1) or a schedule.
      damping_mode: The length of v beside the I at which the averages start and to which they are
        drawn back: "absolute" keeps its own (the paper's); "relative" makes it √d, with d its
        number of entries, so that the scales of the loss and of activations drop out.
      largest: The absolute value of an entry above which an inverse is drawn back to I, a number
        > 1.
      stabilizer: 1 - ζ, a number in (0, 1]: how far an inverse that is too large is drawn back to
        I. It must be larger than b1, or inverses grow faster than they are drawn back.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Mozaffari et al., MKOR: Momentum-Enabled Kronecker-Factor-Based Optimizer Using Rank-1
      Updates, NeurIPS 2023, arXiv 2306.01685.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_mkor(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_normuon(
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-08,
    iteration: Iteration = 'muon',
    steps: int | None = None,
    iteration_dtype: DTypeLike | None = None,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Orthogonalize momenta, and give all outputs one size, from gradients alone.

    All singular values of a momentum are made equal, and then its columns are divided by the root
    of the average of their squares. A direction is as large as the mean singular value of the
    momentum: set its size by ``update_rms``.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.NorMuon``; ``singd_optax.normuon`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of v, a number in [0, 1) or a schedule.
      eps: ε, a number >= 0 or a schedule.
      iteration: How the polar factor is found: "muon", "polar_express", "quintic", or triples of
        numbers, see ``singd_optax.rules.coefficients_of``.
      steps: The number of steps of the iteration, an int >= 1; None for its own number.
      iteration_dtype: The dtype in which the iteration runs, "float32" or "bfloat16"; None for that
        of statistics (float32, or float64 for float64 parameters).
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Li, Liu, Liang, Chen and Zhao, NorMuon: Making Muon more efficient and scalable, arXiv
      2510.05491.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_normuon(iteration="quintic", update_rms=0.2)
      >>> grads = {"kernel": jnp.diag(jnp.array([4.0, 9.0]))}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(2)
      Array([[0.28, 0.  ],
             [0.  , 0.28]], dtype=float32)
    """
    ...

def scale_by_psgd_kron(
    layers: Layers | None = None,
    *,
    factor_learning_rate: Hyperparameter = 0.1,
    geometry: Geometry = 'Q0.5EQ1.5',
    curvature_decay: Hyperparameter = 0.9,
    damping: Hyperparameter = 0.001,
    clip_rms: float | None = 1.1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Whiten gradients by PSGD's Kronecker factors, from gradients and matrix products alone.

    A gradient G becomes K Kᵀ G C Cᵀ, whose rows and columns are uncorrelated and of one size on
    average; K and C move by gradient steps towards this.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.PSGDKron``; ``singd_optax.psgd_kron`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: μ, the step on K and C, a number >= 0 or a schedule.
      geometry: How K and C move: "Q0.5EQ1.5", "QUAD" or "QEQ", as above.
      curvature_decay: β, the decay of the bound on steps, a number in [0, 1) or a schedule.
      damping: The standard deviation of the noise, relative to the root mean square of G, a number
        >= 0 or a schedule.
      clip_rms: The largest root mean square that a direction may have, a number > 0; None for no
        bound. While P is learnt, directions may be far larger than 1.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Li, Preconditioned Stochastic Gradient Descent, 2015, arXiv 1512.04202; Pooladzandi and Li,
      Curvature-Informed SGD via General Purpose Lie-Group Preconditioners, 2024, arXiv 2402.04553.

    Example:
      >>> import jax, jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_psgd_kron(damping=0.0)
      >>> grads = {"kernel": 5 * jnp.eye(2)}
      >>> state, update = tx.init(grads), jax.jit(tx.update)
      >>> for _ in range(200):
      ...   updates, state = update(grads, state)
      >>> updates["kernel"].round(2)
      Array([[1.41, 0.  ],
             [0.  , 1.41]], dtype=float32)
    """
    ...

def scale_by_rs_kfac(
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    rank: int = 220,
    power_iterations: int = 3,
    sketched: bool = False,
    continued: bool = True,
    use_pi: bool = True,
    inverse_every: int = 1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by RS-KFAC's preconditioner: KFAC from leading eigenvectors.

    It is for layers with thousands of inputs or outputs, where whole inverses are costly. The
    gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K + μ I)^-1 G (S_C + ν I)^-1, where both inverses are approximated from the leading
    eigenvectors of S_K and S_C, the averaged second moments of inputs and output gradients.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.RSKFAC``;
    ``singd_optax.rs_kfac`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute", or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      rank: The number of eigenvectors of a side, an int >= 1; a side has no more than its dim.
      power_iterations: How often random columns are multiplied by S before the last product, an
        int >= 1. More find eigenvectors more exactly.
      sketched: Whether S Ω is averaged in the place of S, for ``rank`` fixed random columns Ω. Then
        S is never formed, and nothing is as large as dim x dim. The eigenvectors are those of
        Nyström's approximation, which is exact where the rank of S is not larger.
      continued: Whether all other eigenvalues are taken for the least of those that are kept; if
        not, they are taken for 0.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_every: The least number of steps from one decomposition to the next, an int >= 1. Only
        refreshes decompose, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Puiu, Randomized K-FACs: Speeding up K-FAC with Randomized Numerical Linear Algebra, 2022,
      arXiv 2206.15397.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_rs_kfac(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_shampoo(
    layers: Layers | None = None,
    *,
    b2: Hyperparameter | None = 0.95,
    eps: Hyperparameter = 1e-06,
    root: int = 4,
    root_method: RootMethod = 'eigh',
    trace_scaled: bool = False,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Shampoo's preconditioner, from gradients alone.

    A gradient G becomes L^(-1/4) G R^(-1/4), where L and R are the averages of G Gᵀ and Gᵀ G. Roots
    are taken in float32 (float64 for float64 parameters).

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.Shampoo``; ``singd_optax.shampoo`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of L and R, a number in [0, 1) or a schedule; None for the plain sums of the
        first paper.
      eps: ε, a number >= 0 or a schedule: ε λ_max I is added before a root is taken.
      root: p, the order of the inverse roots, an int >= 1: 4 for Shampoo, and 2 for its square,
        which approximates full-matrix Adagrad.
      root_method: How roots are taken: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether L and R are divided by √(Tr L / w) before their roots are taken, so that
        L ⊗ R / Tr L fits the second moment of gradients; the two are equal if that moment is a
        Kronecker product. Then ``root=2`` whitens gradients, which need no grafting, and ``root=1``
        is ``TNT``. With one side only, L is divided by the number of columns.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Gupta, Koren and Singer, Shampoo: Preconditioned Stochastic Tensor Optimization, ICML 2018,
      arXiv 1802.09568. Anil et al., Scalable Second Order Optimization for Deep Learning, arXiv
      2002.09018 (blocks, grafting, the coupled Newton iteration).

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> tx = optax.chain(
      ...   singd_optax.scale_by_shampoo(grafting="adam"), optax.scale_by_learning_rate(0.1))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> opt_state = tx.init(params)
      >>> grads = jax.tree.map(jnp.ones_like, params)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> updates["kernel"].round(3)
      Array([[-0.1, -0.1],
             [-0.1, -0.1],
             [-0.1, -0.1]], dtype=float32)
    """
    ...

def scale_by_singd(
    layers: Layers,
    *,
    factor_learning_rate: Hyperparameter = 0.5,
    factor_step_norm: FactorStepNorm = 'spectral',
    cache_products: bool = True,
    direction_precision: Precision = 'default',
    damping: Damping = ...,
    damping_mode: DampingMode | None = None,
    factor_momentum: Hyperparameter = 0.0,
    factor_init: FactorInit | None = None,
    cross_moments: bool = False,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by SINGD's preconditioner: structured, inverse-free natural gradient.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    K Kᵀ G C Cᵀ. The factors K and C approach roots of the inverse curvature by matrix products
    alone. With dense structures this is INGD.

    The algorithm of the paper is ``optax.chain(scale_by_singd(layers, damping=1e-3,
    factor_learning_rate=1e-2, factor_momentum=0.9, factor_step_norm=None),
    optax.add_decayed_weights(weight_decay), optax.trace(momentum),
    optax.scale_by_learning_rate(learning_rate))``, see ``SINGD.paper``.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.SINGD``;
    ``singd_optax.singd`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: The norm ‖m‖ of a factor's step m, which is divided by max(1, ‖m‖): None for
        no bound (the papers'), "max_abs" (an option of SINGD's package) or "spectral", with which
        momenta are bounded too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice the
        memory, for half of the work of each step. Nothing is kept with polar directions, which
        have no use for them.
      direction_precision: The precision of the products with a gradient in each step, as
        ``jax.numpy.einsum`` takes it; None for ``precision``. On three tasks, operands rounded to
        bfloat16, which is "default" on TPUs, came to the same results as without rounding
        (``benchmarks/precision.py``).
      damping: λ, the curvature that is added in all directions, in the units of ``damping_mode``: a
        number >= 0, a schedule, or ``sampling_damping()`` (the default), which is 0.03, and more
        where the moments are of few rows.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by
        (Tr U / d_i)(Tr G / d_o) of this layer's statistics, so that the scales of the loss and of
        activations drop out. None is "relative" if ``factor_step_norm`` is "spectral", and else
        "absolute", which is what the paper and its package do.
      factor_momentum: a1, the momentum of the factors' steps, a number in [0, 1) or a schedule; at
        0 no momentum is kept.
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics, K = (Tr U / d_i)^-1/2 I, so that only their shape
        has to be learnt. None is "statistics" if ``factor_step_norm`` is "spectral", else
        "identity".
      cross_moments: Whether E[|Cᵀ g|² Kᵀ a aᵀ K] / d_o takes the place of (Tr H_C / d_o) H_K for
        inputs a and output gradients g, and likewise for C, so that each input counts by the size
        of its own gradient. K and C then approach the matrix normal distribution under which the
        examples' gradients are likeliest: an inverse-free ``TKFAC``, in every structure. Where
        inputs and gradients are independent the two are the same.
      precision: The precision of all other products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Lin et al., Structured Inverse-Free Natural Gradient, ICML 2024, arXiv 2312.05705.
      Lin et al., Simplifying Momentum-based Positive-definite Submanifold Optimization (INGD),
      ICML 2023, arXiv 2302.09738.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="diagonal")
      >>> tx = optax.chain(singd_optax.scale_by_singd(layers), optax.scale_by_learning_rate(0.1))
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      >>> updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      >>> params = optax.apply_updates(params, updates)
    """
    ...

def scale_by_sketchy(
    layers: Layers | None = None,
    *,
    rank: int = 128,
    b2: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-06,
    root: int = 4,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Shampoo's preconditioner, from leading eigenvectors of its moments.

    A gradient G becomes L^(-1/4) G R^(-1/4), where L = U diag(s) Uᵀ + ρ I with ``rank`` columns in
    U, and R alike.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.Sketchy``; ``singd_optax.sketchy`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      rank: k, the number of eigenvectors of a side, an int >= 1.
      b2: The decay of the moments in a refresh, a number in [0, 1) or a schedule.
      eps: ε, a number >= 0 or a schedule: ε λ_max I is added before a root is taken.
      root: p, the order of the inverse roots, an int >= 1.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Feinberg, Chen, Sun, Anil and Hazan, Sketchy: Memory-efficient Adaptive Regularization with
      Frequent Directions, NeurIPS 2023, arXiv 2302.03764.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_sketchy(rank=2, eps=0.0)
      >>> grads = {"kernel": jnp.diag(jnp.array([4.0, 9.0]))}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(4)
      Array([[1., 0.],
             [0., 1.]], dtype=float32)
    """
    ...

def scale_by_skfac(
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 1.0,
    rank: int = 220,
    power_iterations: int = 3,
    sketched: bool = True,
    continued: bool = False,
    use_pi: bool = True,
    inverse_every: int = 1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by SKFAC's preconditioner: KFAC of one batch, from products with its rows.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (U + μ I)^-1 G (V + ν I)^-1, where U and V are the second moments of inputs and output gradients
    in one batch, with at most ``rank`` eigenvectors.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.SKFAC``;
    ``singd_optax.skfac`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute", or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      rank: The number of eigenvectors of a side, an int >= 1; a side has no more than its dim.
      power_iterations: How often random columns are multiplied by S before the last product, an
        int >= 1. More find eigenvectors more exactly.
      sketched: Whether S Ω is averaged in the place of S, for ``rank`` fixed random columns Ω. Then
        S is never formed, and nothing is as large as dim x dim. The eigenvectors are those of
        Nyström's approximation, which is exact where the rank of S is not larger.
      continued: Whether all other eigenvalues are taken for the least of those that are kept; if
        not, they are taken for 0.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_every: The least number of steps from one decomposition to the next, an int >= 1. Only
        refreshes decompose, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Tang et al., SKFAC: Training Neural Networks with Faster Kronecker-Factored Approximate
      Curvature, CVPR 2021.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_skfac(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_sm3(
    layers: Layers | None = None,
    *,
    b2: Hyperparameter | None = None,
    eps: Hyperparameter = 1e-30,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Adagrad's root, kept as one number for each row and each column.

    A gradient G becomes G / √(ν + ε), where ν_ij is G_ij² plus the lesser of a number for row i and
    one for column j. ``optax.scale_by_sm3`` keeps one number for each index of each axis of an
    array, and has no decay; here rows and columns are those of a matrix.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.SM3``; ``singd_optax.sm3`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of ν, a number in [0, 1) or a schedule; None for the plain sums of the paper,
        with which steps get smaller and smaller.
      eps: ε, a number >= 0 or a schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Anil, Gupta, Koren and Singer, Memory-Efficient Adaptive Optimization, NeurIPS 2019, arXiv
      1901.11150.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_sm3()
      >>> grads = {"kernel": jnp.array([[4.0, -9.0], [0.1, 2.0]])}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(2)
      Array([[ 1., -1.],
             [ 1.,  1.]], dtype=float32)
    """
    ...

def scale_by_soap(
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.95,
    basis_decay: Hyperparameter | None = None,
    eps: Hyperparameter = 1e-08,
    basis_method: BasisMethod = 'qr',
    second_moment: SecondMoment = 'full',
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Adam's second moment in the basis of Shampoo's eigenvectors.

    A gradient G becomes Q [ Qᵀ G P / (√(V / w) + ε) ] Pᵀ, where Q and P are near the eigenvectors
    of the averages of G Gᵀ and Gᵀ G, and V averages the squares of Qᵀ G P. With
    ``momentum``, an average of gradients with corrected bias, as Adam's, takes the place of G.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.SOAP``; ``singd_optax.soap`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of V, a number in [0, 1) or a schedule.
      basis_decay: s, the decay of L and R, a number in [0, 1) or a schedule; None for ``b2``.
      eps: ε, a number >= 0 or a schedule.
      basis_method: What a refresh makes the bases of: "qr", one step of orthogonal iteration, or
        "eigh", the eigenvectors.
      second_moment: How V is kept: "full", or "factored" as the product of the means of its rows
        and of its columns, which takes the memory of two vectors.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, ICLR 2025, arXiv 2409.11321.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_soap(structures="identity")
      >>> grads = {"kernel": jnp.diag(jnp.array([4.0, 9.0]))}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(4)
      Array([[1., 0.],
             [0., 1.]], dtype=float32)
    """
    ...

def scale_by_splus(
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.999,
    basis_method: BasisMethod = 'eigh',
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Take signs of momenta in the basis of Shampoo's eigenvectors, from gradients alone.

    A momentum M becomes c Q sign(Qᵀ M P) Pᵀ, where Q and P are the eigenvectors of the averages of
    G Gᵀ and Gᵀ G for gradients G, and c is the mean of |Qᵀ M P|: set its size by ``update_rms``.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.SPlus``; ``singd_optax.splus`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of L and R, a number in [0, 1) or a schedule.
      basis_method: What a refresh makes the bases of: "eigh", the eigenvectors, or "qr", one step
        of orthogonal iteration.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Frans, Levine and Abbeel, A Stable Whitening Optimizer for Efficient Neural Network Training,
      2025, arXiv 2506.07254.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_splus(update_rms=1.0)
      >>> grads = {"kernel": jnp.array([[4.0, -9.0], [0.1, 2.0]])}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(2)
      Array([[ 1., -1.],
             [ 1.,  1.]], dtype=float32)
    """
    ...

def scale_by_tekfac(
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    scale_source: ScaleSource = 'rows',
    exponent: float = 1.0,
    exact_squares: bool = False,
    basis_every: int = 1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by TEKFAC's preconditioner: EKFAC in the eigenbases of TKFAC.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    K [ (Kᵀ G C) / (s + λ) ] Cᵀ, where K and C are the eigenvectors of the Fisher's partial traces,
    and s is the diagonal of the Fisher matrix in their basis.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.TEKFAC``;
    ``singd_optax.tekfac`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by the mean of s,
        so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      scale_source: What s is the average of: "rows", the squares of each example's gradient, on
        refresh steps; or "gradients", the squares (Kᵀ ∇ C)² of each step's gradient, which are
        smaller by about the size of the batch, follow more closely, and need no statistics beside
        KFAC's.
      exponent: The power of s + λ, a number from 0 to 1: 1 for the natural gradient, 0.5 for the
        root that Adam takes, 0 for the gradient.
      exact_squares: Whether "rows" squares the gradient of a whole example where an example has
        several positions (tokens, pixels), and not that of each position. This costs as much as the
        gradient.
      basis_every: The least number of steps from one decomposition to the next, an int >= 1. Only
        refreshes decompose, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Gao et al., Eigenvalue-corrected Natural Gradient Based on a New Approximation, 2020,
      arXiv 2011.13609.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_tekfac(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_tkfac(
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    bias_correction: bool = True,
    use_pi: bool = True,
    inverse_method: InverseMethod = 'cholesky',
    inverse_every: int = 1,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by TKFAC's preconditioner: a Kronecker product with the Fisher's own trace.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    (S_K / √t + π √λ I)^-1 G (S_C / √t + √λ / π I)^-1, where S_K and S_C are averages of the partial
    traces of the Fisher matrix, t is the trace of both, λ is the damping, and π divides it.

    The preconditioner is made anew in a refresh (``refresh_every``), from statistics of inputs and
    output gradients, which ``value_and_grad`` returns as ``curvature``. Parameters outside of
    ``layers`` pass through unchanged. The equations are in ``singd_optax.optimizers.TKFAC``;
    ``singd_optax.tkfac`` is a complete optimizer.

    Args:
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t after t
        refreshes, as Adam's are; if not, they start at I.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_method: How gradients are multiplied by the inverses. "cholesky" keeps the inverses.
        "root" keeps K and C, where K Kᵀ and C Cᵀ are the inverses: these stay positive definite in
        bfloat16, for twice the products; polar directions need it, and put it in the place of
        "cholesky". "eigh" keeps eigenvectors. "cg" inverts nothing: each step solves for what
        "eigh" gives, by products with S_K and S_C, with half of the state. It stands for
        ``singd_optax.rules.ConjugateGradients()``, which may also be given with options.
      inverse_every: The least number of steps from one inversion to the next, an int >= 1. Only
        refreshes invert, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Gao et al., A Trace-restricted Kronecker-Factored Approximation to Natural Gradient,
      AAAI 2021, arXiv 2011.10741.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> scale = singd_optax.scale_by_tkfac(layers)
      >>> tx = optax.chain(scale, optax.scale_by_learning_rate(1e-3))
      >>> opt_state = tx.init(params)
    """
    ...

def scale_by_tnt(
    layers: Layers | None = None,
    *,
    b2: Hyperparameter | None = 0.95,
    eps: Hyperparameter = 0.01,
    root: int = 1,
    root_method: RootMethod = 'eigh',
    trace_scaled: bool = True,
    precision: Precision = 'highest',
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by the inverse covariance of a tensor-normal distribution.

    A gradient G becomes Tr L · L^-1 G R^-1, where L and R are the damped averages of G Gᵀ and
    Gᵀ G.

    Scalars and vectors pass through unchanged; ``scale_by_rule`` says how other arrays make matrices.
    The equations are in ``singd_optax.optimizers.TNT``; ``singd_optax.tnt`` is a complete
    optimizer.

    Args:
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of L and R, a number in [0, 1) or a schedule; None for the plain sums of the
        first paper.
      eps: ε, a number >= 0 or a schedule: ε λ_max I is added before an inverse is taken.
      root: p, the order of the inverse roots, an int >= 1: 4 for Shampoo, and 2 for its square,
        which approximates full-matrix Adagrad.
      root_method: How roots are taken: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether L and R are divided by √(Tr L / w) before their roots are taken, so that
        L ⊗ R / Tr L fits the second moment of gradients; the two are equal if that moment is a
        Kronecker product. Then ``root=2`` whitens gradients, which need no grafting, and ``root=1``
        is ``TNT``. With one side only, L is divided by the number of columns.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    References:
      Ren and Goldfarb, Tensor Normal Training for Deep Learning Models, NeurIPS 2021, arXiv
      2106.02925.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_tnt(eps=0.0)
      >>> grads = {"kernel": jnp.diag(jnp.array([1.0, 2.0]))}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(3)
      Array([[5.   , 0.   ],
             [0.   , 0.625]], dtype=float32)
    """
    ...

def shampoo(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    b2: Hyperparameter | None = 0.95,
    eps: Hyperparameter = 1e-06,
    root: int = 4,
    root_method: RootMethod = 'eigh',
    trace_scaled: bool = False,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = 'rmsprop',
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Shampoo in the place of AdamW: inverse roots of gradients' moments, from gradients alone.

    It works for any model. A matrix moves by an average of Shampoo's directions, each at the length
    of RMSProp's step, so that learning rates of AdamW suit it, with decoupled weight decay. Gupta,
    Koren and Singer, ICML 2018, arXiv 1802.09568.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.Shampoo``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of L and R, a number in [0, 1) or a schedule; None for the plain sums of the
        first paper.
      eps: ε, a number >= 0 or a schedule: ε λ_max I is added before a root is taken.
      root: p, the order of the inverse roots, an int >= 1: 4 for Shampoo, and 2 for its square,
        which approximates full-matrix Adagrad.
      root_method: How roots are taken: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether L and R are divided by √(Tr L / w) before their roots are taken, so that
        L ⊗ R / Tr L fits the second moment of gradients; the two are equal if that moment is a
        Kronecker product. Then ``root=2`` whitens gradients, which need no grafting, and ``root=1``
        is ``TNT``. With one side only, L is divided by the number of columns.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> x = jax.random.normal(jax.random.key(0), (64, 8))
      >>> y = x @ jax.random.normal(jax.random.key(1), (8, 3))
      >>> loss_fn = lambda params: jnp.mean((x @ params["kernel"] + params["bias"] - y) ** 2)
      >>> params = {"kernel": jnp.zeros((8, 3)), "bias": jnp.zeros(3)}
      >>> tx = singd_optax.shampoo(optax.linear_schedule(0.1, 0.0, 100))
      >>> opt_state = tx.init(params)
      >>> @jax.jit
      ... def step(params, opt_state):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> for _ in range(100):
      ...   params, opt_state = step(params, opt_state)
      >>> bool(loss_fn(params) < 1e-3)
      True
    """
    ...

def singd(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    factor_learning_rate: Hyperparameter = 0.5,
    factor_step_norm: FactorStepNorm = 'spectral',
    cache_products: bool = True,
    direction_precision: Precision = 'default',
    damping: Damping = ...,
    damping_mode: DampingMode | None = None,
    factor_momentum: Hyperparameter = 0.0,
    factor_init: FactorInit | None = None,
    cross_moments: bool = False,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """SINGD in the place of AdamW: natural gradients without inverses, in any structure.

    It works for models whose kernels multiply inputs, Flax models among them. The factors K and C
    of each layer follow roots of the inverse curvature by matrix products alone, in bfloat16 too,
    and may be dense, block-diagonal, diagonal and more (``find_layers(structures=...)``). Lin et
    al., ICML 2024, arXiv 2312.05705; here the steps on factors are bounded, and damping is
    relative.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.SINGD``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: The norm ‖m‖ of a factor's step m, which is divided by max(1, ‖m‖): None for
        no bound (the papers'), "max_abs" (an option of SINGD's package) or "spectral", with which
        momenta are bounded too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice the
        memory, for half of the work of each step. Nothing is kept with polar directions, which
        have no use for them.
      direction_precision: The precision of the products with a gradient in each step, as
        ``jax.numpy.einsum`` takes it; None for ``precision``. On three tasks, operands rounded to
        bfloat16, which is "default" on TPUs, came to the same results as without rounding
        (``benchmarks/precision.py``).
      damping: λ, the curvature that is added in all directions, in the units of ``damping_mode``: a
        number >= 0, a schedule, or ``sampling_damping()`` (the default), which is 0.03, and more
        where the moments are of few rows.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by
        (Tr U / d_i)(Tr G / d_o) of this layer's statistics, so that the scales of the loss and of
        activations drop out. None is "relative" if ``factor_step_norm`` is "spectral", and else
        "absolute", which is what the paper and its package do.
      factor_momentum: a1, the momentum of the factors' steps, a number in [0, 1) or a schedule; at
        0 no momentum is kept.
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics, K = (Tr U / d_i)^-1/2 I, so that only their shape
        has to be learnt. None is "statistics" if ``factor_step_norm`` is "spectral", else
        "identity".
      cross_moments: Whether E[|Cᵀ g|² Kᵀ a aᵀ K] / d_o takes the place of (Tr H_C / d_o) H_K for
        inputs a and output gradients g, and likewise for C, so that each input counts by the size
        of its own gradient. K and C then approach the matrix normal distribution under which the
        examples' gradients are likeliest: an inverse-free ``TKFAC``, in every structure. Where
        inputs and gradients are independent the two are the same.
      precision: The precision of all other products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model = nn.Sequential([nn.Dense(16), nn.tanh, nn.Dense(1)])
      >>> x = jnp.linspace(-1, 1, 32)[:, None]
      >>> params = model.init(jax.random.key(0), x)
      >>> def loss_fn(params, x):
      ...   return jnp.mean((model.apply(params, x) - jnp.sin(3 * x)) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> tx = singd_optax.singd(0.02, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> @jax.jit
      ... def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> for _ in range(100):
      ...   params, opt_state, value = step(params, opt_state, x)
      >>> bool(value < 0.02)
      True
    """
    ...

def sketchy(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    rank: int = 128,
    b2: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-06,
    root: int = 4,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 10,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = 'rmsprop',
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Sketchy in the place of AdamW: Shampoo in the memory of ``rank`` vectors for each side.

    It works for any model, from gradients alone, where sides have thousands of rows. A matrix moves
    by an average of Sketchy's directions, each at the length of RMSProp's step, with decoupled
    weight decay. Feinberg et al., NeurIPS 2023, arXiv 2302.03764.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.Sketchy``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      rank: k, the number of eigenvectors of a side, an int >= 1.
      b2: The decay of the moments in a refresh, a number in [0, 1) or a schedule.
      eps: ε, a number >= 0 or a schedule: ε λ_max I is added before a root is taken.
      root: p, the order of the inverse roots, an int >= 1.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.sketchy(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def skfac(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 1.0,
    rank: int = 220,
    power_iterations: int = 3,
    sketched: bool = True,
    continued: bool = False,
    use_pi: bool = True,
    inverse_every: int = 1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """SKFAC in the place of AdamW: KFAC of one batch, without a matrix of dim x dim.

    It is for layers with thousands of inputs or outputs, and batches of few rows. With a
    ``factor_learning_rate`` below 1 it averages over batches. Tang et al., CVPR 2021.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.SKFAC``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute", or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      rank: The number of eigenvectors of a side, an int >= 1; a side has no more than its dim.
      power_iterations: How often random columns are multiplied by S before the last product, an
        int >= 1. More find eigenvectors more exactly.
      sketched: Whether S Ω is averaged in the place of S, for ``rank`` fixed random columns Ω. Then
        S is never formed, and nothing is as large as dim x dim. The eigenvectors are those of
        Nyström's approximation, which is exact where the rank of S is not larger.
      continued: Whether all other eigenvalues are taken for the least of those that are kept; if
        not, they are taken for 0.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_every: The least number of steps from one decomposition to the next, an int >= 1. Only
        refreshes decompose, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.skfac(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def sm3(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    b2: Hyperparameter | None = None,
    eps: Hyperparameter = 1e-30,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 1,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """SM3 in the place of AdamW: Adagrad in next to no memory beside the momentum.

    It works for any model, from gradients alone. A matrix moves by an average of SM3's updates,
    with decoupled weight decay. Anil et al., NeurIPS 2019, arXiv 1901.11150.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.SM3``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of ν, a number in [0, 1) or a schedule; None for the plain sums of the paper,
        with which steps get smaller and smaller.
      eps: ε, a number >= 0 or a schedule.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.sm3(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def soap(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.95,
    basis_decay: Hyperparameter | None = None,
    eps: Hyperparameter = 1e-08,
    basis_method: BasisMethod = 'qr',
    second_moment: SecondMoment = 'full',
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.95,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 10,
    stagger: bool = False,
    update_rms: float | None = None,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """SOAP in the place of AdamW: Adam in the basis of Shampoo's eigenvectors.

    It works for any model, from gradients alone. A matrix moves by Adam's step in a basis that
    turns slowly, with decoupled weight decay. Learning rates are those of AdamW, or a little
    larger. Vyas et al., ICLR 2025, arXiv 2409.11321.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.SOAP``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of V, a number in [0, 1) or a schedule.
      basis_decay: s, the decay of L and R, a number in [0, 1) or a schedule; None for ``b2``.
      eps: ε, a number >= 0 or a schedule.
      basis_method: What a refresh makes the bases of: "qr", one step of orthogonal iteration, or
        "eigh", the eigenvectors.
      second_moment: How V is kept: "full", or "factored" as the product of the means of its rows
        and of its columns, which takes the memory of two vectors.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> x = jax.random.normal(jax.random.key(0), (64, 8))
      >>> y = x @ jax.random.normal(jax.random.key(1), (8, 3))
      >>> loss_fn = lambda params: jnp.mean((x @ params["kernel"] + params["bias"] - y) ** 2)
      >>> params = {"kernel": jnp.zeros((8, 3)), "bias": jnp.zeros(3)}
      >>> tx = singd_optax.soap(optax.linear_schedule(0.3, 0.0, 100))
      >>> opt_state = tx.init(params)
      >>> @jax.jit
      ... def step(params, opt_state):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> for _ in range(100):
      ...   params, opt_state = step(params, opt_state)
      >>> bool(loss_fn(params) < 0.02)
      True
    """
    ...

def splus(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    b2: Hyperparameter = 0.999,
    basis_method: BasisMethod = 'eigh',
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 100,
    stagger: bool = False,
    update_rms: float | None = 0.2,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """SPlus in the place of AdamW: signs in a basis that is renewed every hundred steps.

    It works for any model, from gradients alone. A matrix moves by the signs of its average
    gradient in the basis of Shampoo's eigenvectors, at the root mean square that AdamW's updates
    have, and with decoupled weight decay. Frans, Levine and Abbeel, 2025, arXiv 2506.07254.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.SPlus``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of L and R, a number in [0, 1) or a schedule.
      basis_method: What a refresh makes the bases of: "eigh", the eigenvectors, or "qr", one step
        of orthogonal iteration.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.splus(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...

def tekfac(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    scale_source: ScaleSource = 'rows',
    exponent: float = 1.0,
    exact_squares: bool = False,
    basis_every: int = 1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """TEKFAC in the place of AdamW: EKFAC in the eigenbases of TKFAC.

    Take it where ``tkfac`` is better than ``kfac``, as it is to ``tkfac`` what ``ekfac`` is to
    ``kfac``. Gao et al., 2020, arXiv 2011.13609.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.TEKFAC``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by the mean of s,
        so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      scale_source: What s is the average of: "rows", the squares of each example's gradient, on
        refresh steps; or "gradients", the squares (Kᵀ ∇ C)² of each step's gradient, which are
        smaller by about the size of the batch, follow more closely, and need no statistics beside
        KFAC's.
      exponent: The power of s + λ, a number from 0 to 1: 1 for the natural gradient, 0.5 for the
        root that Adam takes, 0 for the gradient.
      exact_squares: Whether "rows" squares the gradient of a whole example where an example has
        several positions (tokens, pixels), and not that of each position. This costs as much as the
        gradient.
      basis_every: The least number of steps from one decomposition to the next, an int >= 1. Only
        refreshes decompose, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.tekfac(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def tkfac(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
    damping_mode: DampingMode = 'relative',
    factor_learning_rate: Hyperparameter = 0.05,
    bias_correction: bool = True,
    use_pi: bool = True,
    inverse_method: InverseMethod = 'cholesky',
    inverse_every: int = 1,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.85,
    nesterov: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = ...,
    update_rms: float | None = 0.8,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """TKFAC in the place of AdamW: KFAC whose Kronecker product has the Fisher's own trace.

    Take it where the sizes of inputs and of output gradients depend on each other; where they do
    not, it is ``kfac``, for a little more work. Gao et al., AAAI 2021, arXiv 2011.10741.

    Each layer moves by its preconditioned momentum, at one root mean square (``update_rms``), with
    decoupled weight decay; all other parameters go to ``fallback``. The preconditioner is made anew in
    a refresh (``refresh_every``), from statistics of inputs and output gradients, which
    ``value_and_grad`` returns as ``curvature``. The equations are in
    ``singd_optax.optimizers.TKFAC``.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found.
      **options: The options of the rule, and those that all optimizers have, by name:
      damping: λ, what is added to the curvature, in the units of ``damping_mode``: a number > 0 or
        a schedule. The default ``damping_schedule()`` falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative", where λ is multiplied by
        (Tr S_K / d_i)(Tr S_C / d_o), so that the scales of the loss and of activations drop out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, a number in (0, 1] or
        a schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t after t
        refreshes, as Adam's are; if not, they start at I.
      use_pi: Whether the damping is divided between the two sides by π, that is, by their traces;
        if not, π = 1.
      inverse_method: How gradients are multiplied by the inverses. "cholesky" keeps the inverses.
        "root" keeps K and C, where K Kᵀ and C Cᵀ are the inverses: these stay positive definite in
        bfloat16, for twice the products; polar directions need it, and put it in the place of
        "cholesky". "eigh" keeps eigenvectors. "cg" inverts nothing: each step solves for what
        "eigh" gives, by products with S_K and S_C, with half of the state. It stands for
        ``singd_optax.rules.ConjugateGradients()``, which may also be given with options.
      inverse_every: The least number of steps from one inversion to the next, an int >= 1. Only
        refreshes invert, so that at 1 each refresh does.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, whose ``update`` takes the ``curvature`` that
      ``value_and_grad`` returns.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model, x = nn.Dense(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = singd_optax.tkfac(1e-3, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> def step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> result = jax.eval_shape(step, params, opt_state, x)  # jax.jit(step) trains
    """
    ...

def tnt(
    learning_rate: Hyperparameter,
    layers: Layers | None = None,
    *,
    b2: Hyperparameter | None = 0.95,
    eps: Hyperparameter = 0.01,
    root: int = 1,
    root_method: RootMethod = 'eigh',
    trace_scaled: bool = True,
    precision: Precision = 'highest',
    weight_decay: Hyperparameter = 0.0001,
    mask: Mask = None,
    fallback: optax.GradientTransformation | None = None,
    direction: DirectionName = 'natural',
    softness: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    refresh_every: Interval = 10,
    stagger: bool = False,
    update_rms: float | None = 0.2,
    kl_clip: Hyperparameter | KLClip | None = None,
    grafting: GraftedStep | None = None,
    structures: str | Structure | tuple[str | Structure, str | Structure] | None = None,
    factor_dtype: DTypeLike | tuple[DTypeLike, DTypeLike] | None = None,
    matrix_axes: Mapping[str, MatrixAxes] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """TNT in the place of AdamW: the natural gradient of a tensor-normal distribution.

    It works for any model, from gradients alone. A matrix moves by an average of gradients that
    were multiplied by the inverses of both moments, brought to the root mean square that AdamW's
    updates have, with decoupled weight decay. Ren and Goldfarb, NeurIPS 2021, arXiv 2106.02925.

    All other parameters, such as biases and scales, go to ``fallback``. The equations are in
    ``singd_optax.optimizers.TNT``; ``scale_by_rule`` says which arrays are matrices, and how.

    Args:
      learning_rate: The step on the parameters, a number >= 0 or an optax schedule.
      layers: The layers that ``find_layers`` found, to have kernel and bias of each in one matrix, or
        the matrices that ``find_matrices`` did. None: every array of two axes or more is a
        matrix, but
        for embeddings, see ``matrix_axes``.
      **options: The options of the rule, and those that all optimizers have, by name:
      b2: The decay of L and R, a number in [0, 1) or a schedule; None for the plain sums of the
        first paper.
      eps: ε, a number >= 0 or a schedule: ε λ_max I is added before an inverse is taken.
      root: p, the order of the inverse roots, an int >= 1: 4 for Shampoo, and 2 for its square,
        which approximates full-matrix Adagrad.
      root_method: How roots are taken: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether L and R are divided by √(Tr L / w) before their roots are taken, so that
        L ⊗ R / Tr L fits the second moment of gradients; the two are equal if that moment is a
        Kronecker product. Then ``root=2`` whitens gradients, which need no grafting, and ``root=1``
        is ``TNT``. With one side only, L is divided by the number of columns.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: The decoupled weight decay, as in ``optax.adamw``: each step subtracts from a
        parameter the learning rate times this times the parameter. A number >= 0 or a schedule.
      mask: The parameters that decay, as in ``optax.adamw``: a tree of bools like the parameters,
        or a prefix of one, or a function from parameters to one. None for all.
      fallback: The optax optimizer of all parameters that are in no matrix, such as biases and
        scales; None for ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What the factors make of a momentum M: "natural" is what the rule itself makes of
        it, for many rules K Kᵀ M C Cᵀ; "polar" is K polar(Kᵀ M C) Cᵀ, where polar makes all
        singular values equal (with K = C = I this is Muon). "polar" is for rules that whiten:
        SINGD, IKFAC, KFAC, EKFAC, TKFAC, ... For more options, wrap the rule in
        ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is no momentum. The buffer has
        the shapes of the parameters. For most rules it is the heavy ball of gradients, and is
        preconditioned. For others (``Rule.momentum_of``) it is the average of gradients, and is
        preconditioned, too, or it is the average of preconditioned gradients. Factors are made of
        raw gradients.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed.
        Later, number j of all matrices is refreshed on steps with
        ``(count - j) % refresh_every == 0``. This is for rules that need gradients only. A stack
        that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; at 0.8
        the learning rates that suit AdamW suit this, too. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      structures: The structures in which the factors of (rows, columns) are kept, or one for both,
        as ``parse_structure`` takes. None for what suits the rule, mostly "auto". This is for
        optimizers without ``layers``, which have their own.
      factor_dtype: The dtype of the factors, or a pair for (rows, columns); None is float32, or
        float64 for float64 parameters. This is for optimizers without ``layers``.
      matrix_axes: A dict from regular expressions, each of which must match the whole path of a
        parameter, to (axes of rows, axes of columns), as
        ``{"blocks/.*kernel": ((1,), (2,))}``, axes in neither running over separate matrices;
        ``Tiles(rows, columns, {axis: parts})`` for heads, experts or fused kernels, whose parts are
        separate; ``Merged(size)`` to merge neighbouring axes up to a size; "cut" for the cut that
        is made by default; "each" for every axis by itself, one after the other; or None for a
        parameter that passes through; ``{".*": UpTo(size)}`` leaves what has a longer side. The
        first pattern that matches counts. In complete optimizers and ``find_matrices`` the last is
        ``{layers.EMBEDDINGS: None}``: tables whose name ends in embedding or position go to the
        fallback, and ``{".*": "cut"}`` takes them. This is for optimizers without ``layers``.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation, which is used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two of them set the size of updates. From ``init``: the
        rule cannot keep its matrices in the structures that were asked for.
      TypeError: An option is unknown, or of another type.

    Example:
      >>> import jax, jax.numpy as jnp, optax, singd_optax
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> loss_fn = lambda params, x: jnp.mean((x @ params["kernel"] + params["bias"]) ** 2)
      >>> tx = singd_optax.tnt(1e-3)
      >>> opt_state = tx.init(params)
      >>> def step(params, opt_state, x):
      ...   updates, opt_state = tx.update(jax.grad(loss_fn)(params, x), opt_state, params)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> result = jax.eval_shape(step, params, opt_state, jnp.ones((8, 3)))  # jax.jit(step) trains
    """
    ...
