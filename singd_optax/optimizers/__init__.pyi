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
    """AdaFisher, diagonals of both Kronecker factors, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; the paper's is 1e-3.
      damping_mode: "absolute" (the paper's: entries of h are between 0 and 1), or "relative" to
        the mean of h_K h_Cᵀ.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      normalized: Whether each side's diagonal is brought to [0, 1]; if not, the method is KFAC
        with diagonal factors, and the damping better relative.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """CASPR as a drop-in for AdamW: Shampoo's state, twice the products.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      b2: Decay of L and R, in [0, 1), or a schedule; None for the plain sums of the first paper.
      eps: ε >= 0: ε λ_max I is added before a root is taken; or a schedule.
      root: p >= 1, the order of the inverse roots; 4 is Shampoo, 2 is the square of it that
        approximates full-matrix Adagrad.
      root_method: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether roots are of L and R over √(Tr L / w), so that L ⊗ R / Tr L fits the
        second moment of gradients, which it is where that is a Kronecker product. With ``root=2``
        gradients are then whitened, and need no grafting; with ``root=1`` it is ``TNT``. With one
        side only, L is divided by the number of columns.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """EKFAC, KFAC with the Fisher's own diagonal in its eigenbasis, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to the mean of s, so that the scale of
        loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      scale_source: "rows", squares of each example's gradient, when statistics are formed; or
        "gradients", (Kᵀ ∇ C)² of each step's gradient, which are smaller by about the size of the
        batch, follow more closely, and need no statistic beside KFAC's.
      exponent: Of s + λ: 1 for the natural gradient, 0.5 for the root that Adam takes, 0 for the
        gradient; a number from 0 to 1.
      exact_squares: Whether squares by "rows" are those of an example's gradient where it has
        several positions (tokens, pixels), and not of each position's: as dear as the gradient.
      basis_every: At least this many steps from one decomposition to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """Eva, KFAC of rank one, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute" (the paper's), or "relative" to the size of the term of rank one, so
        that the scale of loss and activations drops out.
      factor_learning_rate: b1, the weight of a new mean in the averages, in (0, 1], or a schedule.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """Eva-f, FOOF of rank one, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute" (the paper's), or "relative" to the size of the term of rank one, so
        that the scale of loss and activations drops out.
      factor_learning_rate: b1, the weight of a new mean in the averages, in (0, 1], or a schedule.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """Eva-s as a drop-in for AdamW, in the memory of two vectors beside the momentum.

    Matrix-shaped parameters: ``scale_by_eva_s`` of the momentum, scaled to a root mean square as
    AdamW's updates have it, decoupled weight decay. All others go to ``fallback``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute" (the authors'), or "relative" to m n s², with s the average of the
        mean of G_ij²; a gradient of equal entries has |r|² |c|² = m n s².
      factor_learning_rate: b1, the weight of a new gradient in the averages, in (0, 1], or a
        schedule.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
    """
    ...

def foof(
    learning_rate: Hyperparameter,
    layers: Layers,
    *,
    damping: Hyperparameter = ...,
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
    """FOOF, gradient descent on neurons, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to Tr S_K / d_i, so that the scale of
        activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the average, in (0, 1], or a
        schedule.
      cross_moments: Whether E[|g|² a aᵀ] / d_o takes the place of U: each input counts by the size
        of its gradient, and S_K is the mean over outputs of the Fisher's own blocks, that is the
        method of mini-block Fisher for a dense layer (arXiv 2202.04124).
      inverse_every: At least this many steps from one inversion to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """IKFAC, KFAC without inverses, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: What bounds the factors' steps m to max(1, ‖m‖): None (the papers'),
        "max_abs" (an option of SINGD's package) or "spectral"; with this one, momenta are bounded
        too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice
        the memory for half the work of each step.
      direction_precision: Of the products with a gradient in each step, likewise; None for
        ``precision``. With operands rounded to bfloat16, as "default" is on TPUs, three tasks
        ended where they did without (``benchmarks/precision.py``).
      damping: λ of each side, a number >= 0 or a schedule; by default ``damping_schedule(0.3)``,
        which falls from 1 to 0.3. With 0.03 a deep autoencoder in bfloat16 ended at 20.2, with 0.3
        at 13.9 (13.97 and 13.84 in float32).
      damping_mode: "absolute" (the paper's), or "relative" to Tr U / d_i for K and Tr G / d_o for
        C. None is "relative" with a spectral step norm, else "absolute".
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics. None is "statistics" with a spectral step norm,
        else "identity".
      precision: Of all other products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """INGD as a drop-in for AdamW: SINGD with dense factors (arXiv 2302.09738).

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: What bounds the factors' steps m to max(1, ‖m‖): None (the papers'),
        "max_abs" (an option of SINGD's package) or "spectral"; with this one, momenta are bounded
        too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice
        the memory for half the work of each step.
      direction_precision: Of the products with a gradient in each step, likewise; None for
        ``precision``. With operands rounded to bfloat16, as "default" is on TPUs, three tasks
        ended where they did without (``benchmarks/precision.py``).
      damping: λ, a number >= 0, a schedule, or ``sampling_damping()``, in the units of
        ``damping_mode``; the default is 0.03, and more where moments are of few rows.
      damping_mode: "absolute" (the paper's), or "relative" to (Tr U / d_i)(Tr G / d_o) of this
        layer's statistics, so that the scale of loss and activations drops out. None is "relative"
        with a spectral step norm, and "absolute" with the steps of the paper and its package.
      factor_momentum: a1, momentum of the factors' steps, in [0, 1), or a schedule; at 0, none is
        kept.
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics, K = (Tr U / d_i)^-1/2 I, so that only shape has to
        be learnt. None is "statistics" with a spectral step norm, else "identity".
      cross_moments: Whether E[|Cᵀ g|² Kᵀ a aᵀ K] / d_o takes the place of (Tr H_C / d_o) H_K, and
        likewise for C: each input counts by the size of its own gradient. K and C then approach
        the matrix normal distribution of highest likelihood of the examples' gradients, that is
        an inverse-free ``TKFAC``, in every structure; where inputs and gradients are independent
        the two are the same.
      precision: Of all other products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """KL-Shampoo by matrix products alone, as a drop-in for AdamW, without layers.

    Matrix-shaped parameters: the average of gradients, whitened from both sides, and decoupled
    weight decay. All other parameters go to ``fallback``. Learning rates are AdamW's.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: b, a number >= 0 or a schedule: the weight of one gradient.
      damping: λ, a number >= 0 or a schedule, relative to mean(G²).
      polar_steps: How many steps the iteration "polar_express" takes at a refresh; None for 10,
        which are enough for singular values 1 to 20,000 apart.
      clip_rms: The largest root mean square of directions, > 0, or None: while factors are learnt,
        they may be far larger than 1.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.inverse_free_kl_shampoo(1e-3, structures=("dense", "diagonal"))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
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
    """Structured inverse- and root-free Shampoo as a drop-in for AdamW, without layers.

    Matrix-shaped parameters: ``scale_by_inverse_free_shampoo``, an average of its updates, scaled
    to a root mean square as AdamW's are, decoupled weight decay. All other parameters go to
    ``fallback``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: What bounds the factors' steps m to max(1, ‖m‖): None (the papers'),
        "max_abs" (an option of SINGD's package) or "spectral"; with this one, momenta are bounded
        too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice
        the memory for half the work of each step.
      direction_precision: Of the products with a gradient in each step, likewise; None for
        ``precision``. With operands rounded to bfloat16, as "default" is on TPUs, three tasks
        ended where they did without (``benchmarks/precision.py``).
      damping: λ, a number >= 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "relative" to B mean(G²), or "absolute" (the paper's).
      factor_momentum: a1, momentum of the factors' steps, in [0, 1), or a schedule.
      batch_size: B; 1 for a loss that is a sum, the number of examples for one that is a mean:
        squares of a mean gradient are that much smaller than the curvature that they stand for. It
        is of no effect on the direction where damping is relative, and only scales it.
      factor_init: "identity" (the paper's), or "gradient": multiples of the identity that fit
        the size of the first gradient, so that nothing has to be learnt but shape.
      precision: Of all other products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.inverse_free_shampoo(1e-2, structures=("dense", "diagonal"))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
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
    """Jorge as a drop-in for AdamW: Shampoo by matrix products alone, with no moments kept.

    Matrix-shaped parameters: ``scale_by_jorge`` at the length of RMSProp's step (the paper: of
    SGD's, ``grafting="sgd"``), an average of it, decoupled weight decay. All others go to
    ``fallback``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      initial_moment: L and R to begin with, times I: a number > 0.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """KFAC, with inverses, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to (Tr S_K / d_i)(Tr S_C / d_o), so that
        the scale of loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t, as Adam's; if
        not, they start at I.
      use_pi: Whether the damping is shared out by π, that is by the traces.
      inverse_method: "cholesky"; "root", which keeps K and C with K Kᵀ and C Cᵀ the inverses: as
        good in bfloat16, at twice the products, and what polar directions need, which make it of
        "cholesky"; "eigh", which damps the product and not the factors; or "cg" for
        ``ConjugateGradients()``, which comes to the same by products with S_K and S_C in each step,
        without decompositions and inverses: half the state, kept in the factor dtype.
      inverse_every: At least this many steps from one inversion to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """KL-Shampoo as a drop-in for AdamW: any model, gradients only, no second moment of entries.

    Matrix-shaped parameters: the average of gradients, whitened from both sides, and decoupled
    weight decay. All other parameters go to ``fallback``. Learning rates are AdamW's.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      b2: Decay of factors and values, in [0, 1), or a schedule.
      eps: ε >= 0, or a schedule.
      basis_method: "qr", one step of orthogonal iteration a refresh, or "eigh", eigenvectors.
      clip_rms: The largest root mean square of directions, > 0, or None. Directions of gradients
        that are like the last ones have about 1, those of their averages less.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.kl_shampoo(1e-3, structures=("dense", "diagonal"))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
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
    """KL-SOAP as a drop-in for AdamW: SOAP, in the bases of KL-Shampoo's factors.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      b2: Decay of factors, values and V, in [0, 1), or a schedule.
      eps: Of the values, >= 0 and relative to the largest, or a schedule.
      basis_method: "qr", one step of orthogonal iteration a refresh, or "eigh", eigenvectors.
      clip_rms: The largest root mean square of directions, > 0, or None. Directions of gradients
        that are like the last ones have about 1, those of their averages less.
      adam_eps: ε >= 0, or a schedule.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """KPSVD, the Kronecker product nearest to the Fisher, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to (Tr S_K / d_i)(Tr S_C / d_o), so that
        the scale of loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t, as Adam's; if
        not, they start at I.
      use_pi: Whether the damping is shared out by π, that is by the traces.
      inverse_method: "cholesky"; "root", which keeps K and C with K Kᵀ and C Cᵀ the inverses: as
        good in bfloat16, at twice the products, and what polar directions need, which make it of
        "cholesky"; "eigh", which damps the product and not the factors; or "cg" for
        ``ConjugateGradients()``, which comes to the same by products with S_K and S_C in each step,
        without decompositions and inverses: half the state, kept in the factor dtype.
      inverse_every: At least this many steps from one inversion to the next; they happen on
        steps that refresh the statistics.
      second_term: Whether the sum of two Kronecker products takes the place of one. State and
        averages are twice as large, what is measured is three times as much, and each refresh has
        eigenvectors beside inverses.
      floor: The least that 1 + s_K s_Cᵀ is taken for, in (0, 1]: the second term is not definite,
        and may take away as much as the first one has; with it the preconditioner is never larger
        than 1 / ``floor`` times that of the first term alone.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """LocoProp-S, local steps of each layer, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      local_steps: k, an int >= 1: as many products with S_K in each step.
      local_method: "gradient", or "rmsprop" (the paper's), which starts anew in each step.
      local_learning_rate: η, relative to what the largest eigenvalue allows: in (0, 2) for
        "gradient", where from 1 on the leading direction is there at once.
      damping: λ, a number >= 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute", or "relative" to Tr S_K / d_i, so that the scale of activations
        drops out.
      factor_learning_rate: b1, the weight of a new statistic in the average, in (0, 1], or a
        schedule.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """MKOR, inverses by updates of rank one, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: b1, the weight of a new v vᵀ, in (0, 1), or a schedule.
      damping_mode: How long the v are beside the I that the averages start at and are drawn back
        to: "absolute", as they are (the paper's), or "relative", of length √d, so that the scale of
        loss and activations drops out.
      largest: Of the entries of an inverse, > 1.
      stabilizer: 1 - ζ, in (0, 1]: how far an inverse that is too large is drawn back to I; more
        than b1, or it grows faster than it is drawn back.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """NorMuon as a drop-in for AdamW: any model, gradients only, next to no memory.

    Matrix-shaped parameters: ``scale_by_normuon`` of a momentum, scaled to a root mean square as
    AdamW's updates have it, decoupled weight decay. All other parameters go to ``fallback``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      b2: Decay of v, in [0, 1), or a schedule.
      eps: ε >= 0, or a schedule.
      iteration: Of the polar factor: "muon", "polar_express", "quintic", or triples of numbers,
        see ``singd_optax.rules.coefficients_of``.
      steps: How many steps of it; None for what it has.
      iteration_dtype: In which it runs: None for that of statistics, "float32" or "bfloat16".
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.normuon(1e-3)
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
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
    """A complete optimizer with any rule, as a drop-in for AdamW.

    Matrices (of Kronecker layers, or of all arrays of two axes or more) get momentum, the rule's
    direction, one size, and decoupled weight decay; all other parameters go to ``fallback``.
    ``singd``, ``kfac``, ``shampoo`` and the like are this with their rules, and a rule of your own
    comes in by the same door.

    Args:
      learning_rate: A number >= 0 or a schedule.
      rule: What to do for each matrix, for example ``SINGD()``. It brings defaults for the common
        options (``Rule.recipe``).
      layers: From ``find_layers``; needed by rules that measure layers. None for all arrays of two
        axes or more but embeddings, see ``matrix_axes``.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      **options: Those of ``scale_by_rule``, by name:
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad`` if the rule
      has measures.

    Raises:
      ValueError: An option is out of range, or two set the size of updates.
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
    """PSGD-Kron as a drop-in for AdamW: any model, gradients only, products only.

    Matrix-shaped parameters: the average of gradients, whitened, and decoupled weight decay. All
    other parameters go to ``fallback``. Learning rates are AdamW's or a little smaller.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: μ, the step on K and C, a number >= 0 or a schedule.
      geometry: "Q0.5EQ1.5", "QUAD" or "QEQ".
      curvature_decay: β in [0, 1), or a schedule.
      damping: The noise's standard deviation, relative to the root mean square of G, >= 0, or a
        schedule.
      clip_rms: The largest root mean square of directions, > 0, or None: while P is learnt, they
        may be far larger than 1.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.psgd_kron(1e-3, structures=("dense", "diagonal"))
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
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
    """RS-KFAC, KFAC by leading eigenvectors, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute", or "relative" to (Tr S_K / d_i)(Tr S_C / d_o), so that the scale of
        loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      rank: How many eigenvectors, at most the dim of a side.
      power_iterations: How often random columns are multiplied with S before the last time.
      sketched: Whether S is never formed, and S Ω averaged in its place, for ``rank`` fixed random
        columns Ω: nothing is as large as dim x dim then, and eigenvectors are those of Nyström's
        approximation; exact where S has no more than this rank.
      continued: Whether other eigenvalues are taken for the least of those that are kept; if not,
        for 0.
      use_pi: Whether the damping is shared out by π, that is by the traces.
      inverse_every: At least this many steps from one decomposition to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    G / (h_K h_Cᵀ + λ). Structures of layers are not used. The equations are in
    ``singd_optax.optimizers.AdaFisher``; parameters outside ``layers`` pass through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; the paper's is 1e-3.
      damping_mode: "absolute" (the paper's: entries of h are between 0 and 1), or "relative" to
        the mean of h_K h_Cᵀ.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      normalized: Whether each side's diagonal is brought to [0, 1]; if not, the method is KFAC
        with diagonal factors, and the damping better relative.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Gomes et al., AdaFisher: Adaptive Second Order Optimization via Fisher Information, ICLR 2025,
      arXiv 2405.16397.
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

    With Shampoo's roots A = L^(-1/4) and B = R^(-1/4), a gradient G becomes
    (A² G + 2 A G B + G B²) / 4: the same state, twice the products, and a preconditioner closer
    to full-matrix Adagrad's. The equations are in ``singd_optax.optimizers.CASPR``.
    ``singd_optax.caspr`` is a complete optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      b2: Decay of L and R, in [0, 1), or a schedule; None for the plain sums of the first paper.
      eps: ε >= 0: ε λ_max I is added before a root is taken; or a schedule.
      root: p >= 1, the order of the inverse roots; 4 is Shampoo, 2 is the square of it that
        approximates full-matrix Adagrad.
      root_method: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether roots are of L and R over √(Tr L / w), so that L ⊗ R / Tr L fits the
        second moment of gradients, which it is where that is a Kronecker product. With ``root=2``
        gradients are then whitened, and need no grafting; with ``root=1`` it is ``TNT``. With one
        side only, L is divided by the number of columns.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    K [ (Kᵀ G C) / (s + λ) ] Cᵀ, with K and C the eigenvectors of KFAC's second moments. The
    equations are in ``singd_optax.optimizers.EKFAC``; parameters outside ``layers`` pass through
    unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to the mean of s, so that the scale of
        loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      scale_source: "rows", squares of each example's gradient, when statistics are formed; or
        "gradients", (Kᵀ ∇ C)² of each step's gradient, which are smaller by about the size of the
        batch, follow more closely, and need no statistic beside KFAC's.
      exponent: Of s + λ: 1 for the natural gradient, 0.5 for the root that Adam takes, 0 for the
        gradient; a number from 0 to 1.
      exact_squares: Whether squares by "rows" are those of an example's gradient where it has
        several positions (tokens, pixels), and not of each position's: as dear as the gradient.
      basis_every: At least this many steps from one decomposition to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      George et al., Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis,
      NeurIPS 2018, arXiv 1806.03884.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = optax.chain(singd_optax.scale_by_ekfac(layers), optax.scale_by_learning_rate(0.1))
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      >>> updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      >>> params = optax.apply_updates(params, updates)
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
    """Scale gradients by Eva's preconditioner: KFAC of rank one, by vectors.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    [ G - (āᵀ G ḡ) / (λ + |ā|² |ḡ|²) ā ḡᵀ ] / λ. Structures of layers are not used. The equations
    are in ``singd_optax.optimizers.Eva``; parameters outside ``layers`` pass through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute" (the paper's), or "relative" to the size of the term of rank one, so
        that the scale of loss and activations drops out.
      factor_learning_rate: b1, the weight of a new mean in the averages, in (0, 1], or a schedule.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Zhang et al., Eva: A General Vectorized Approximation Framework for Second-order
      Optimization, ICLR 2023, arXiv 2308.02123.
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
    """Scale gradients by Eva-f's preconditioner: FOOF of rank one, by a vector.

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes
    [ G - ā (āᵀ G) / (λ + |ā|²) ] / λ. Structures of layers are not used. The equations are in
    ``singd_optax.optimizers.EvaF``; parameters outside ``layers`` pass through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute" (the paper's), or "relative" to the size of the term of rank one, so
        that the scale of loss and activations drops out.
      factor_learning_rate: b1, the weight of a new mean in the averages, in (0, 1], or a schedule.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Zhang et al., Eva: A General Vectorized Approximation Framework for Second-order
      Optimization, ICLR 2023, arXiv 2308.02123.
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
    """Scale gradients by Eva-s's preconditioner, of rank one, from gradients alone.

    The equations are in ``singd_optax.optimizers.EvaS``. How arrays make matrices is said at
    ``scale_by_rule``, structures are not used; scalars and vectors pass through.
    ``singd_optax.eva_s`` is a complete optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute" (the authors'), or "relative" to m n s², with s the average of the
        mean of G_ij²; a gradient of equal entries has |r|² |c|² = m n s².
      factor_learning_rate: b1, the weight of a new gradient in the averages, in (0, 1], or a
        schedule.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    damping: Hyperparameter = ...,
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
    (S_K + λ I)^-1 G, with S_K a moving average of the second moment of inputs. The structure of a
    layer's C is not used. The equations are in ``singd_optax.optimizers.FOOF``; parameters outside
    ``layers`` pass through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to Tr S_K / d_i, so that the scale of
        activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the average, in (0, 1], or a
        schedule.
      cross_moments: Whether E[|g|² a aᵀ] / d_o takes the place of U: each input counts by the size
        of its gradient, and S_K is the mean over outputs of the Fisher's own blocks, that is the
        method of mini-block Fisher for a dense layer (arXiv 2202.04124).
      inverse_every: At least this many steps from one inversion to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Benzing, Gradient Descent on Neurons and its Link to Approximate Second-Order Optimization,
      ICML 2022, arXiv 2201.12250.
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

    K Kᵀ follows KFAC's (S_K + λ I)^-1 up to O(b1²), S_K the moving average of the inputs' second
    moments with weight b1, and C Cᵀ likewise. The equations are in
    ``singd_optax.optimizers.IKFAC``; parameters outside ``layers`` pass through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: What bounds the factors' steps m to max(1, ‖m‖): None (the papers'),
        "max_abs" (an option of SINGD's package) or "spectral"; with this one, momenta are bounded
        too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice
        the memory for half the work of each step.
      direction_precision: Of the products with a gradient in each step, likewise; None for
        ``precision``. With operands rounded to bfloat16, as "default" is on TPUs, three tasks
        ended where they did without (``benchmarks/precision.py``).
      damping: λ of each side, a number >= 0 or a schedule; by default ``damping_schedule(0.3)``,
        which falls from 1 to 0.3. With 0.03 a deep autoencoder in bfloat16 ended at 20.2, with 0.3
        at 13.9 (13.97 and 13.84 in float32).
      damping_mode: "absolute" (the paper's), or "relative" to Tr U / d_i for K and Tr G / d_o for
        C. None is "relative" with a spectral step norm, else "absolute".
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics. None is "statistics" with a spectral step norm,
        else "identity".
      precision: Of all other products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Lin et al., Structured Inverse-Free Natural Gradient, ICML 2024, arXiv 2312.05705, theorem 1.
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
    """Scale gradients by KL-Shampoo's preconditioner, by matrix products alone.

    The equations are in ``singd_optax.optimizers.InverseFreeKLShampoo``. Factors may be kept in
    bfloat16. How arrays make matrices is said at ``scale_by_rule``; scalars and vectors pass
    through. ``singd_optax.inverse_free_kl_shampoo`` is a complete optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: b, a number >= 0 or a schedule: the weight of one gradient.
      damping: λ, a number >= 0 or a schedule, relative to mean(G²).
      polar_steps: How many steps the iteration "polar_express" takes at a refresh; None for 10,
        which are enough for singular values 1 to 20,000 apart.
      clip_rms: The largest root mean square of directions, > 0, or None: while factors are learnt,
        they may be far larger than 1.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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

    The relative of SINGD for any tree of parameters: no model, no layers, no inverse and no root.
    A gradient G becomes K Kᵀ G C Cᵀ; K and C approach roots of the inverse second moment of the
    gradient by matrix products alone, may have any structure, and may be kept in bfloat16. The
    equations are in ``singd_optax.optimizers.InverseFreeShampoo``. How arrays make matrices is said
    at ``scale_by_rule``; scalars and vectors pass through. ``singd_optax.inverse_free_shampoo`` is
    a complete optimizer.

    As nothing takes a root, the update is smaller where gradients are larger: scale it, by
    ``grafting`` or as the complete optimizer does.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: What bounds the factors' steps m to max(1, ‖m‖): None (the papers'),
        "max_abs" (an option of SINGD's package) or "spectral"; with this one, momenta are bounded
        too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice
        the memory for half the work of each step.
      direction_precision: Of the products with a gradient in each step, likewise; None for
        ``precision``. With operands rounded to bfloat16, as "default" is on TPUs, three tasks
        ended where they did without (``benchmarks/precision.py``).
      damping: λ, a number >= 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "relative" to B mean(G²), or "absolute" (the paper's).
      factor_momentum: a1, momentum of the factors' steps, in [0, 1), or a schedule.
      batch_size: B; 1 for a loss that is a sum, the number of examples for one that is a mean:
        squares of a mean gradient are that much smaller than the curvature that they stand for. It
        is of no effect on the direction where damping is relative, and only scales it.
      factor_init: "identity" (the paper's), or "gradient": multiples of the identity that fit
        the size of the first gradient, so that nothing has to be learnt but shape.
      precision: Of all other products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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

    The equations are in ``singd_optax.optimizers.Jorge``. How arrays make matrices is said at
    ``scale_by_rule``; scalars and vectors pass through. ``singd_optax.jorge`` is a complete
    optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      initial_moment: L and R to begin with, times I: a number > 0.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    (S_K + π √λ I)^-1 G (S_C + √λ / π I)^-1, with S_K and S_C moving averages of the second moments
    of inputs and output gradients. The equations are in ``singd_optax.optimizers.KFAC``; parameters
    outside ``layers`` pass through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to (Tr S_K / d_i)(Tr S_C / d_o), so that
        the scale of loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t, as Adam's; if
        not, they start at I.
      use_pi: Whether the damping is shared out by π, that is by the traces.
      inverse_method: "cholesky"; "root", which keeps K and C with K Kᵀ and C Cᵀ the inverses: as
        good in bfloat16, at twice the products, and what polar directions need, which make it of
        "cholesky"; "eigh", which damps the product and not the factors; or "cg" for
        ``ConjugateGradients()``, which comes to the same by products with S_K and S_C in each step,
        without decompositions and inverses: half the state, kept in the factor dtype.
      inverse_every: At least this many steps from one inversion to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature,
      ICML 2015, arXiv 1503.05671. Eschenhagen et al., Kronecker-Factored Approximate Curvature for
      Modern Neural Network Architectures, NeurIPS 2023, arXiv 2311.00636 (expand and reduce).
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

    A gradient G becomes S_K^-1/2 G S_C^-1/2, with S_K ⊗ S_C the Kronecker product that is nearest
    to the second moment of gradients in KL divergence. The equations are in
    ``singd_optax.optimizers.KLShampoo``. How arrays make matrices is said at ``scale_by_rule``;
    scalars and vectors pass through. ``singd_optax.kl_shampoo`` is a complete optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      b2: Decay of factors and values, in [0, 1), or a schedule.
      eps: ε >= 0, or a schedule.
      basis_method: "qr", one step of orthogonal iteration a refresh, or "eigh", eigenvectors.
      clip_rms: The largest root mean square of directions, > 0, or None. Directions of gradients
        that are like the last ones have about 1, those of their averages less.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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

    The equations are in ``singd_optax.optimizers.KLSOAP``. How arrays make matrices is said at
    ``scale_by_rule``; scalars and vectors pass through. ``singd_optax.kl_soap`` is a complete
    optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      b2: Decay of factors, values and V, in [0, 1), or a schedule.
      eps: Of the values, >= 0 and relative to the largest, or a schedule.
      basis_method: "qr", one step of orthogonal iteration a refresh, or "eigh", eigenvectors.
      clip_rms: The largest root mean square of directions, > 0, or None. Directions of gradients
        that are like the last ones have about 1, those of their averages less.
      adam_eps: ε >= 0, or a schedule.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Lin et al., arXiv 2509.03378, see ``scale_by_kl_shampoo``.

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
    (S_K / √σ + π √λ I)^-1 G (S_C / √σ + √λ / π I)^-1, or with ``second_term`` what the inverse of a
    sum of two Kronecker products makes of it. The equations are in
    ``singd_optax.optimizers.KPSVD``; parameters outside ``layers`` pass through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to (Tr S_K / d_i)(Tr S_C / d_o), so that
        the scale of loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t, as Adam's; if
        not, they start at I.
      use_pi: Whether the damping is shared out by π, that is by the traces.
      inverse_method: "cholesky"; "root", which keeps K and C with K Kᵀ and C Cᵀ the inverses: as
        good in bfloat16, at twice the products, and what polar directions need, which make it of
        "cholesky"; "eigh", which damps the product and not the factors; or "cg" for
        ``ConjugateGradients()``, which comes to the same by products with S_K and S_C in each step,
        without decompositions and inverses: half the state, kept in the factor dtype.
      inverse_every: At least this many steps from one inversion to the next; they happen on
        steps that refresh the statistics.
      second_term: Whether the sum of two Kronecker products takes the place of one. State and
        averages are twice as large, what is measured is three times as much, and each refresh has
        eigenvectors beside inverses.
      floor: The least that 1 + s_K s_Cᵀ is taken for, in (0, 1]: the second term is not definite,
        and may take away as much as the first one has; with it the preconditioner is never larger
        than 1 / ``floor`` times that of the first term alone.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Koroko et al., Efficient Approximations of the Fisher Matrix in Neural Networks using
      Kronecker Product Singular Value Decomposition, 2022, arXiv 2201.10285.
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

    The gradient G of a layer (kernel, with the bias as last row; fan_in x fan_out) becomes what
    ``local_steps`` steps make of it towards (S_K + λ I)^-1 G, with S_K a moving average of the
    second moment of inputs. The structure of a layer's C is not used. The equations are in
    ``singd_optax.optimizers.LocoProp``; parameters outside ``layers`` pass through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      local_steps: k, an int >= 1: as many products with S_K in each step.
      local_method: "gradient", or "rmsprop" (the paper's), which starts anew in each step.
      local_learning_rate: η, relative to what the largest eigenvalue allows: in (0, 2) for
        "gradient", where from 1 on the leading direction is there at once.
      damping: λ, a number >= 0 or a schedule, in the units of ``damping_mode``.
      damping_mode: "absolute", or "relative" to Tr S_K / d_i, so that the scale of activations
        drops out.
      factor_learning_rate: b1, the weight of a new statistic in the average, in (0, 1], or a
        schedule.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Amid et al., LocoProp: Enhancing BackProp via Local Loss Optimization, AISTATS 2022,
      arXiv 2106.06199.
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
    with K and C the inverses of moving averages of ā āᵀ and ḡ ḡᵀ, which nothing is inverted for.
    The equations are in ``singd_optax.optimizers.MKOR``; parameters outside ``layers`` pass through
    unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: b1, the weight of a new v vᵀ, in (0, 1), or a schedule.
      damping_mode: How long the v are beside the I that the averages start at and are drawn back
        to: "absolute", as they are (the paper's), or "relative", of length √d, so that the scale of
        loss and activations drops out.
      largest: Of the entries of an inverse, > 1.
      stabilizer: 1 - ζ, in (0, 1]: how far an inverse that is too large is drawn back to I; more
        than b1, or it grows faster than it is drawn back.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Mozaffari et al., MKOR: Momentum-Enabled Kronecker-Factor-Based Optimizer Using Rank-1
      Updates, NeurIPS 2023, arXiv 2306.01685.
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

    The equations are in ``singd_optax.optimizers.NorMuon``. A direction is as large as the mean
    singular value of the momentum: set its size by ``update_rms``. How arrays make matrices is said
    at ``scale_by_rule``; scalars and vectors pass through. ``singd_optax.normuon`` is a complete
    optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      b2: Decay of v, in [0, 1), or a schedule.
      eps: ε >= 0, or a schedule.
      iteration: Of the polar factor: "muon", "polar_express", "quintic", or triples of numbers,
        see ``singd_optax.rules.coefficients_of``.
      steps: How many steps of it; None for what it has.
      iteration_dtype: In which it runs: None for that of statistics, "float32" or "bfloat16".
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    """Whiten gradients by PSGD's Kronecker factors, from gradients alone.

    The equations are in ``singd_optax.optimizers.PSGDKron``. How arrays make matrices is said at
    ``scale_by_rule``; scalars and vectors pass through. ``singd_optax.psgd_kron`` is a complete
    optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: μ, the step on K and C, a number >= 0 or a schedule.
      geometry: "Q0.5EQ1.5", "QUAD" or "QEQ".
      curvature_decay: β in [0, 1), or a schedule.
      damping: The noise's standard deviation, relative to the root mean square of G, >= 0, or a
        schedule.
      clip_rms: The largest root mean square of directions, > 0, or None: while P is learnt, they
        may be far larger than 1.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    """Scale gradients by RS-KFAC's preconditioner: KFAC by leading eigenvectors.

    For layers with sides of thousands, where whole inverses are dear. The equations are in
    ``singd_optax.optimizers.RSKFAC``; parameters outside ``layers`` pass through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute", or "relative" to (Tr S_K / d_i)(Tr S_C / d_o), so that the scale of
        loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      rank: How many eigenvectors, at most the dim of a side.
      power_iterations: How often random columns are multiplied with S before the last time.
      sketched: Whether S is never formed, and S Ω averaged in its place, for ``rank`` fixed random
        columns Ω: nothing is as large as dim x dim then, and eigenvectors are those of Nyström's
        approximation; exact where S has no more than this rank.
      continued: Whether other eigenvalues are taken for the least of those that are kept; if not,
        for 0.
      use_pi: Whether the damping is shared out by π, that is by the traces.
      inverse_every: At least this many steps from one decomposition to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Puiu, Randomized K-FACs: Speeding up K-FAC with Randomized Numerical Linear Algebra, 2022,
      arXiv 2206.15397.
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

    A gradient G becomes L^(-1/4) G R^(-1/4), with L and R the averages of G Gᵀ and Gᵀ G; the
    equations are in ``singd_optax.optimizers.Shampoo``. Roots are taken in float32 (float64 for
    float64 parameters). How arrays make matrices is said at ``scale_by_rule``; scalars and vectors
    pass through. ``singd_optax.shampoo`` is a complete optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      b2: Decay of L and R, in [0, 1), or a schedule; None for the plain sums of the first paper.
      eps: ε >= 0: ε λ_max I is added before a root is taken; or a schedule.
      root: p >= 1, the order of the inverse roots; 4 is Shampoo, 2 is the square of it that
        approximates full-matrix Adagrad.
      root_method: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether roots are of L and R over √(Tr L / w), so that L ⊗ R / Tr L fits the
        second moment of gradients, which it is where that is a Kronecker product. With ``root=2``
        gradients are then whitened, and need no grafting; with ``root=1`` it is ``TNT``. With one
        side only, L is divided by the number of columns.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    K Kᵀ G C Cᵀ. K and C approach roots of the inverse curvature by matrix products alone; the
    equations are in ``singd_optax.optimizers.SINGD``. With dense structures this is INGD.

    Parameters outside ``layers`` pass through unchanged. The algorithm of the paper is
    ``optax.chain(scale_by_singd(layers, damping=1e-3, factor_learning_rate=1e-2,
    factor_momentum=0.9, factor_step_norm=None), optax.add_decayed_weights(weight_decay),
    optax.trace(momentum), optax.scale_by_learning_rate(learning_rate))``, see ``SINGD.paper``;
    ``singd_optax.singd`` is a complete optimizer.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: What bounds the factors' steps m to max(1, ‖m‖): None (the papers'),
        "max_abs" (an option of SINGD's package) or "spectral"; with this one, momenta are bounded
        too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice
        the memory for half the work of each step.
      direction_precision: Of the products with a gradient in each step, likewise; None for
        ``precision``. With operands rounded to bfloat16, as "default" is on TPUs, three tasks
        ended where they did without (``benchmarks/precision.py``).
      damping: λ, a number >= 0, a schedule, or ``sampling_damping()``, in the units of
        ``damping_mode``; the default is 0.03, and more where moments are of few rows.
      damping_mode: "absolute" (the paper's), or "relative" to (Tr U / d_i)(Tr G / d_o) of this
        layer's statistics, so that the scale of loss and activations drops out. None is "relative"
        with a spectral step norm, and "absolute" with the steps of the paper and its package.
      factor_momentum: a1, momentum of the factors' steps, in [0, 1), or a schedule; at 0, none is
        kept.
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics, K = (Tr U / d_i)^-1/2 I, so that only shape has to
        be learnt. None is "statistics" with a spectral step norm, else "identity".
      cross_moments: Whether E[|Cᵀ g|² Kᵀ a aᵀ K] / d_o takes the place of (Tr H_C / d_o) H_K, and
        likewise for C: each input counts by the size of its own gradient. K and C then approach
        the matrix normal distribution of highest likelihood of the examples' gradients, that is
        an inverse-free ``TKFAC``, in every structure; where inputs and gradients are independent
        the two are the same.
      precision: Of all other products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    """Scale gradients by Shampoo's preconditioner, whose moments are kept by leading eigenvectors.

    A gradient G becomes L^(-1/4) G R^(-1/4) with L = U diag(s) Uᵀ + ρ I and R alike; the equations
    are in ``singd_optax.optimizers.Sketchy``. How arrays make matrices is said at
    ``scale_by_rule``; scalars and vectors pass through. ``singd_optax.sketchy`` is a complete
    optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      rank: k >= 1.
      b2: Decay of the moments, a refresh, in [0, 1), or a schedule.
      eps: ε >= 0: ε λ_max I is added before a root is taken; or a schedule.
      root: p >= 1, the order of the inverse roots.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    """Scale gradients by SKFAC's preconditioner: KFAC of one batch, by products with its rows.

    The equations are in ``singd_optax.optimizers.SKFAC``; parameters outside ``layers`` pass
    through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute", or "relative" to (Tr S_K / d_i)(Tr S_C / d_o), so that the scale of
        loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      rank: How many eigenvectors, at most the dim of a side.
      power_iterations: How often random columns are multiplied with S before the last time.
      sketched: Whether S is never formed, and S Ω averaged in its place, for ``rank`` fixed random
        columns Ω: nothing is as large as dim x dim then, and eigenvectors are those of Nyström's
        approximation; exact where S has no more than this rank.
      continued: Whether other eigenvalues are taken for the least of those that are kept; if not,
        for 0.
      use_pi: Whether the damping is shared out by π, that is by the traces.
      inverse_every: At least this many steps from one decomposition to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Tang et al., SKFAC: Training Neural Networks with Faster Kronecker-Factored Approximate
      Curvature, CVPR 2021.
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

    The equations are in ``singd_optax.optimizers.SM3``. ``optax.scale_by_sm3`` has one number for
    each index of each axis of an array, and no decay; here rows and columns are those of a matrix,
    see ``scale_by_rule``. ``singd_optax.sm3`` is a complete optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      b2: Decay of ν, in [0, 1), or a schedule; None for the plain sums of the paper, with which
        steps get smaller and smaller.
      eps: ε >= 0, or a schedule.
      precision: Of the products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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

    ``momentum`` is an average of gradients with corrected bias, as Adam's. The equations are in
    ``singd_optax.optimizers.SOAP``. How arrays make matrices is said at ``scale_by_rule``; scalars
    and vectors pass through. ``singd_optax.soap`` is a complete optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      b2: Decay of V, in [0, 1), or a schedule.
      basis_decay: s, the decay of L and R, in [0, 1), or a schedule; None for ``b2``.
      eps: ε >= 0, or a schedule.
      basis_method: "qr", one step of orthogonal iteration a refresh, or "eigh", eigenvectors.
      second_moment: "full", or "factored": V as the product of the means of its rows and columns,
        which takes the memory of a vector.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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

    The equations are in ``singd_optax.optimizers.SPlus``; set the size by ``update_rms``. How
    arrays make matrices is said at ``scale_by_rule``; scalars and vectors pass through.
    ``singd_optax.splus`` is a complete optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      b2: Decay of L and R, in [0, 1), or a schedule.
      basis_method: "eigh", eigenvectors, or "qr", one step of orthogonal iteration a refresh.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    K [ (Kᵀ G C) / (s + λ) ] Cᵀ. The equations are in ``singd_optax.optimizers.TEKFAC``; parameters
    outside ``layers`` pass through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to the mean of s, so that the scale of
        loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      scale_source: "rows", squares of each example's gradient, when statistics are formed; or
        "gradients", (Kᵀ ∇ C)² of each step's gradient, which are smaller by about the size of the
        batch, follow more closely, and need no statistic beside KFAC's.
      exponent: Of s + λ: 1 for the natural gradient, 0.5 for the root that Adam takes, 0 for the
        gradient; a number from 0 to 1.
      exact_squares: Whether squares by "rows" are those of an example's gradient where it has
        several positions (tokens, pixels), and not of each position's: as dear as the gradient.
      basis_every: At least this many steps from one decomposition to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Gao et al., Eigenvalue-corrected Natural Gradient Based on a New Approximation, 2020,
      arXiv 2011.13609.
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
    (S_K / √t + π √λ I)^-1 G (S_C / √t + √λ / π I)^-1. The equations are in
    ``singd_optax.optimizers.TKFAC``; parameters outside ``layers`` pass through unchanged.

    Args:
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to (Tr S_K / d_i)(Tr S_C / d_o), so that
        the scale of loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t, as Adam's; if
        not, they start at I.
      use_pi: Whether the damping is shared out by π, that is by the traces.
      inverse_method: "cholesky"; "root", which keeps K and C with K Kᵀ and C Cᵀ the inverses: as
        good in bfloat16, at twice the products, and what polar directions need, which make it of
        "cholesky"; "eigh", which damps the product and not the factors; or "cg" for
        ``ConjugateGradients()``, which comes to the same by products with S_K and S_C in each step,
        without decompositions and inverses: half the state, kept in the factor dtype.
      inverse_every: At least this many steps from one inversion to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

    References:
      Gao et al., A Trace-restricted Kronecker-Factored Approximation to Natural Gradient,
      AAAI 2021, arXiv 2011.10741.
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

    The equations are in ``singd_optax.optimizers.TNT``. How arrays make matrices is said at
    ``scale_by_rule``; scalars and vectors pass through. ``singd_optax.tnt`` is a complete
    optimizer.

    Args:
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      b2: Decay of L and R, in [0, 1), or a schedule; None for the plain sums of the first paper.
      eps: ε >= 0: ε λ_max I is added before an inverse is taken; or a schedule.
      root: p >= 1, the order of the inverse roots; 4 is Shampoo, 2 is the square of it that
        approximates full-matrix Adagrad.
      root_method: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether roots are of L and R over √(Tr L / w), so that L ⊗ R / Tr L fits the
        second moment of gradients, which it is where that is a Kronecker product. With ``root=2``
        gradients are then whitened, and need no grafting; with ``root=1`` it is ``TNT``. With one
        side only, L is divided by the number of columns.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    """Shampoo as a drop-in for AdamW: any model, gradients only.

    Matrix-shaped parameters: Shampoo's direction at the length of RMSProp's step (so that AdamW's
    learning rates carry over), an average of it, decoupled weight decay. All other parameters go
    to ``fallback``. How arrays make matrices, stacked ones too, is said at ``scale_by_rule``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      b2: Decay of L and R, in [0, 1), or a schedule; None for the plain sums of the first paper.
      eps: ε >= 0: ε λ_max I is added before a root is taken; or a schedule.
      root: p >= 1, the order of the inverse roots; 4 is Shampoo, 2 is the square of it that
        approximates full-matrix Adagrad.
      root_method: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether roots are of L and R over √(Tr L / w), so that L ⊗ R / Tr L fits the
        second moment of gradients, which it is where that is a Kronecker product. With ``root=2``
        gradients are then whitened, and need no grafting; with ``root=1`` it is ``TNT``. With one
        side only, L is divided by the number of columns.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    """SINGD as a drop-in for AdamW: one learning rate, decoupled weight decay.

    For Kronecker layers: Nesterov momentum of the gradient, SINGD's preconditioner, the update
    scaled to one root mean square, decoupled weight decay. All other parameters go to
    ``fallback``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      factor_learning_rate: b1, the step on K and C, a number >= 0 or a schedule.
      factor_step_norm: What bounds the factors' steps m to max(1, ‖m‖): None (the papers'),
        "max_abs" (an option of SINGD's package) or "spectral"; with this one, momenta are bounded
        too, and I - b1 m is never singular.
      cache_products: Whether to keep K Kᵀ and C Cᵀ of dense float32 or float64 factors: twice
        the memory for half the work of each step.
      direction_precision: Of the products with a gradient in each step, likewise; None for
        ``precision``. With operands rounded to bfloat16, as "default" is on TPUs, three tasks
        ended where they did without (``benchmarks/precision.py``).
      damping: λ, a number >= 0, a schedule, or ``sampling_damping()``, in the units of
        ``damping_mode``; the default is 0.03, and more where moments are of few rows.
      damping_mode: "absolute" (the paper's), or "relative" to (Tr U / d_i)(Tr G / d_o) of this
        layer's statistics, so that the scale of loss and activations drops out. None is "relative"
        with a spectral step norm, and "absolute" with the steps of the paper and its package.
      factor_momentum: a1, momentum of the factors' steps, in [0, 1), or a schedule; at 0, none is
        kept.
      factor_init: Where K and C start: "identity" (the paper's), or "statistics", multiples of the
        identity that fit the first statistics, K = (Tr U / d_i)^-1/2 I, so that only shape has to
        be learnt. None is "statistics" with a spectral step norm, else "identity".
      cross_moments: Whether E[|Cᵀ g|² Kᵀ a aᵀ K] / d_o takes the place of (Tr H_C / d_o) H_K, and
        likewise for C: each input counts by the size of its own gradient. K and C then approach
        the matrix normal distribution of highest likelihood of the examples' gradients, that is
        an inverse-free ``TKFAC``, in every structure; where inputs and gradients are independent
        the two are the same.
      precision: Of all other products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    """Sketchy as a drop-in for AdamW: Shampoo in the memory of ``rank`` vectors a side.

    Matrix-shaped parameters: ``scale_by_sketchy`` at the length of RMSProp's step, an average of
    it, decoupled weight decay. All others go to ``fallback``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      rank: k >= 1.
      b2: Decay of the moments, a refresh, in [0, 1), or a schedule.
      eps: ε >= 0: ε λ_max I is added before a root is taken; or a schedule.
      root: p >= 1, the order of the inverse roots.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """SKFAC, KFAC of one batch, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute", or "relative" to (Tr S_K / d_i)(Tr S_C / d_o), so that the scale of
        loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      rank: How many eigenvectors, at most the dim of a side.
      power_iterations: How often random columns are multiplied with S before the last time.
      sketched: Whether S is never formed, and S Ω averaged in its place, for ``rank`` fixed random
        columns Ω: nothing is as large as dim x dim then, and eigenvectors are those of Nyström's
        approximation; exact where S has no more than this rank.
      continued: Whether other eigenvalues are taken for the least of those that are kept; if not,
        for 0.
      use_pi: Whether the damping is shared out by π, that is by the traces.
      inverse_every: At least this many steps from one decomposition to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """SM3 as a drop-in for AdamW with next to no memory beside the momentum.

    Matrix-shaped parameters: ``scale_by_sm3``, an average of its updates, decoupled weight decay.
    All other parameters go to ``fallback``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more.
      **options: Of the rule, and common ones, by name:
      b2: Decay of ν, in [0, 1), or a schedule; None for the plain sums of the paper, with which
        steps get smaller and smaller.
      eps: ε >= 0, or a schedule.
      precision: Of the products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """SOAP as a drop-in for AdamW: any model, gradients only.

    Matrix-shaped parameters: Adam's step in the basis of Shampoo's eigenvectors, decoupled weight
    decay. All other parameters go to ``fallback``. Learning rates are AdamW's or a little larger.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      b2: Decay of V, in [0, 1), or a schedule.
      basis_decay: s, the decay of L and R, in [0, 1), or a schedule; None for ``b2``.
      eps: ε >= 0, or a schedule.
      basis_method: "qr", one step of orthogonal iteration a refresh, or "eigh", eigenvectors.
      second_moment: "full", or "factored": V as the product of the means of its rows and columns,
        which takes the memory of a vector.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.

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
    """SPlus as a drop-in for AdamW: any model, gradients only, a basis every hundred steps.

    Matrix-shaped parameters: ``scale_by_splus`` of an average of gradients, scaled to a root mean
    square as AdamW's updates have it, decoupled weight decay. All others go to ``fallback``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      b2: Decay of L and R, in [0, 1), or a schedule.
      basis_method: "eigh", eigenvectors, or "qr", one step of orthogonal iteration a refresh.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """TEKFAC, EKFAC in the eigenbases of TKFAC, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to the mean of s, so that the scale of
        loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      scale_source: "rows", squares of each example's gradient, when statistics are formed; or
        "gradients", (Kᵀ ∇ C)² of each step's gradient, which are smaller by about the size of the
        batch, follow more closely, and need no statistic beside KFAC's.
      exponent: Of s + λ: 1 for the natural gradient, 0.5 for the root that Adam takes, 0 for the
        gradient; a number from 0 to 1.
      exact_squares: Whether squares by "rows" are those of an example's gradient where it has
        several positions (tokens, pixels), and not of each position's: as dear as the gradient.
      basis_every: At least this many steps from one decomposition to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """TKFAC, KFAC with the Fisher's own trace, as a drop-in for AdamW.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``.
      **options: Of the rule, and common ones, by name:
      damping: λ, a number > 0 or a schedule, in the units of ``damping_mode``; by default
        ``damping_schedule()``, which falls from 1 to 0.03.
      damping_mode: "absolute" (the paper's), or "relative" to (Tr S_K / d_i)(Tr S_C / d_o), so that
        the scale of loss and activations drops out.
      factor_learning_rate: b1, the weight of a new statistic in the averages, in (0, 1], or a
        schedule.
      bias_correction: Whether averages start at 0 and are divided by 1 - (1 - b1)^t, as Adam's; if
        not, they start at I.
      use_pi: Whether the damping is shared out by π, that is by the traces.
      inverse_method: "cholesky"; "root", which keeps K and C with K Kᵀ and C Cᵀ the inverses: as
        good in bfloat16, at twice the products, and what polar directions need, which make it of
        "cholesky"; "eigh", which damps the product and not the factors; or "cg" for
        ``ConjugateGradients()``, which comes to the same by products with S_K and S_C in each step,
        without decompositions and inverses: half the state, kept in the factor dtype.
      inverse_every: At least this many steps from one inversion to the next; they happen on
        steps that refresh the statistics.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
      kl_clip: A bound δ on the change of the predictions in a step (arXiv 1708.05144):
        natural gradients are scaled by min(1, √(δ / (η² Σ ∇ᵀ P ∇))), over all matrices, with η the
        learning rate. A number > 0 or a schedule, or ``KLClip(δ, learning_rate)``; None for no
        bound.
      grafting: The optimizer whose step's norm each matrix's update gets: "sgd", "rmsprop" or
        "adam"; None for no grafting.
      seed: The seed of the random bits with which bfloat16 factors are rounded, an int.

    Returns:
      An optax transformation; ``update`` takes ``curvature`` from ``value_and_grad``.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
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
    """TNT as a drop-in for AdamW, from gradients alone.

    Matrix-shaped parameters: ``scale_by_tnt``, an average of it, scaled to a root mean square as
    AdamW's updates have it, decoupled weight decay. All others go to ``fallback``.

    Args:
      learning_rate: A number >= 0 or a schedule.
      layers: From ``find_layers``, to have kernel and bias of each in one matrix, or from
        ``find_matrices``; None for all arrays of two axes or more but
        embeddings, see ``matrix_axes``.
      **options: Of the rule, and common ones, by name:
      b2: Decay of L and R, in [0, 1), or a schedule; None for the plain sums of the first paper.
      eps: ε >= 0: ε λ_max I is added before an inverse is taken; or a schedule.
      root: p >= 1, the order of the inverse roots; 4 is Shampoo, 2 is the square of it that
        approximates full-matrix Adagrad.
      root_method: "eigh", or "newton", which needs matrix products only.
      trace_scaled: Whether roots are of L and R over √(Tr L / w), so that L ⊗ R / Tr L fits the
        second moment of gradients, which it is where that is a Kronecker product. With ``root=2``
        gradients are then whitened, and need no grafting; with ``root=1`` it is ``TNT``. With one
        side only, L is divided by the number of columns.
      precision: Of all products, as ``jax.numpy.einsum`` takes it.
      weight_decay: Times the learning rate, a number >= 0 or a schedule, as in ``optax.adamw``.
      mask: Which parameters decay, as in ``optax.adamw``: a tree of bools, or a function of
        params.
      fallback: For parameters that are no matrices of this optimizer; None for
        ``optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)``.
      direction: What becomes of a momentum M by the factors: "natural", the rule's own, K Kᵀ M C
        Cᵀ; or "polar", K polar(Kᵀ M C) Cᵀ: whitened, with all singular values made equal, and
        unwhitened (Muon, where K and C are I). For rules that whiten: SINGD, IKFAC, KFAC, EKFAC,
        TKFAC, ... For more options make the rule a ``singd_optax.rules.Polar``.
      softness: How far to go from a polar direction (0) towards the natural one (without bound), a
        number >= 0 or a schedule: singular values σ become σ / √(σ² + e²), with e the softness
        times their root mean square.
      momentum: The decay of the momentum buffer, in [0, 1), where 0 is none. The buffer is
        kept like the parameters. For most rules it is the heavy ball of gradients, which is
        preconditioned; for those that say so (``Rule.momentum_of``) it is the average of gradients,
        which is preconditioned too, or that of updates. The rule sees raw gradients beside it.
      nesterov: Whether the momentum looks one step ahead, as in ``optax.sgd``.
      accumulator_dtype: The dtype of the momentum buffer; None for the parameter's dtype.
      refresh_every: The interval in steps from one refresh of the factors to the next, an int >= 1
        or a schedule step -> int, such as ``singd_optax.refresh_schedule``.
      stagger: Whether each step refreshes a share of the matrices, in place of all of them on every
        ``refresh_every``-th: no step then takes longer than others. On step 0 all are refreshed;
        later on matrix number j on steps with ``(count - j) % refresh_every == 0``, which all have
        their shares of each stack of equal matrices. This is for rules that need gradients only. A
        stack that is spread over a mesh is refreshed as one matrix.
      update_rms: The root mean square of each matrix's update before the learning rate, > 0; with
        0.8 AdamW's learning rates carry over. None keeps the rule's own size.
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
      An optax transformation, used as ``optax.adamw`` is.

    Raises:
      ValueError: An option is out of range, or two set the size of updates. From ``init``: the rule
        cannot have a structure.
      TypeError: An option is unknown or of another type.
    """
    ...
