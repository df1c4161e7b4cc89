"""Steps, momentum and damping by the quadratic model of the loss, without a learning rate."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_fallback, check_flag, check_interval, check_number
from singd_optax.layers import Layers
from singd_optax.layers._check import whole_layers
from singd_optax.layers._tree import Leaves
from singd_optax.rules import Rule
from singd_optax.structures._numerics import accumulation_dtype
from singd_optax.transforms._curvature_product import curvature_product
from singd_optax.transforms._scale_by_rule import scale_by_rule
from singd_optax.transforms._states_of_rule import check_rule_and_layers

#: The ratios between which the damping stays (arXiv 1503.05671, section 6.5).
_POOR, _GOOD = 0.25, 0.75


class LevenbergMarquardtState(NamedTuple):
    """The state of ``levenberg_marquardt``, for the parameters of layers.

    Attributes:
      of_rule: The state of ``scale_by_rule``.
      of_others: That of the fallback, for the parameters of no layer.
      last_step: s, a tree like the parameters; zeros before the first step.
      adapted_damping: λ, float32.
      step_size: α of the last step.
      step_momentum: μ of the last step.
      reduction_ratio: ρ of the last steps that λ was judged by; NaN before.
      loss_before: The loss at the first step that it will be judged by next.
      predicted_change: Of the loss, by all of them so far.
      judged_steps: How many these are, int32.
    """

    of_rule: PyTree
    of_others: PyTree
    last_step: PyTree
    adapted_damping: jax.Array
    step_size: jax.Array
    step_momentum: jax.Array
    reduction_ratio: jax.Array
    loss_before: jax.Array
    predicted_change: jax.Array
    judged_steps: jax.Array


def levenberg_marquardt(
    rule: Rule,
    layers: Layers,
    *,
    damping: float = 1.0,
    momentum: bool = True,
    adapt_every: int = 5,
    decay: float = 0.95,
    least_damping: float = 1e-8,
    largest_damping: float = 1e8,
    fallback: optax.GradientTransformation | None = None,
    **options: object,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer with step size, momentum and damping of KFAC's first paper: no learning rate.

    With P ∇ the natural gradient by the rule at damping λ, s the last step, and B = F + λ I, the
    step is the best of all α P ∇ + μ s for the quadratic model of the loss::

        M(s) = -∇ᵀ s + sᵀ B s / 2
        [ (P∇)ᵀ B P∇   (P∇)ᵀ B s ] [ α ]   [ ∇ᵀ P∇ ]
        [ (P∇)ᵀ B s       sᵀ B s ] [ μ ] = [ ∇ᵀ s  ],    s <- α P∇ + μ s,    W <- W - s

    The damping is adapted after ``adapt_every`` = T steps by the ratio of what the loss changed to
    what M promised, as Levenberg and Marquardt have it::

        ρ = (L_T - L_0) / Σ M(s),    λ <- decay^T λ if ρ > 3/4,    λ <- λ / decay^T if ρ < 1/4

    L_T is the ``value`` that comes with the gradient *after* these steps: so nothing is computed
    twice, and all of it is under one ``jax.jit``. On whole data sets ρ is exact; with other
    examples in each batch it has their noise, which weighs less the more steps are judged together.

    F is the product with the rule's own factors (``curvature_product``), averages of the past; for
    the exact one of this batch, pass ``product``, a function from v to F v for trees like the
    parameters, to ``update``: the paper's choice, for two more forward and backward passes.

    Args:
      rule: KFAC, TKFAC, KPSVD, EKFAC or TEKFAC, with ``damping_mode="absolute"``; λ takes the place
        of its damping.
      layers: From ``find_layers``.
      damping: The first λ, a number > 0.
      momentum: Whether there is a momentum; if not, μ = 0.
      adapt_every: T, an int >= 1.
      decay: In (0, 1]; with 1 the damping stays, and ``value`` is not needed.
      least_damping: λ at least, > 0.
      largest_damping: λ at most.
      fallback: For parameters of no layer, for example ``optax.adamw(1e-3)``; needed if there are.
      **options: Of ``scale_by_rule``: ``refresh_every`` and ``seed``.

    Returns:
      A complete optimizer. Its ``update`` takes ``curvature`` from ``value_and_grad``, the loss as
      ``value``, and ``product`` if you have one.

    Raises:
      TypeError: An argument is of another type, or unknown.
      ValueError: A number is out of range, or the rule's damping is relative. From ``init``: some
        parameters are in no layer, and there is no ``fallback``. From ``update``: no ``value``.
      NotImplementedError: From ``update``: the rule keeps no curvature.

    References:
      Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature,
      ICML 2015, arXiv 1503.05671, sections 6.4 to 7.

    Example:
      >>> import flax.linen as nn, singd_optax
      >>> from singd_optax.optimizers import KFAC
      >>> model = nn.Dense(2)
      >>> x = jax.random.normal(jax.random.key(0), (64, 5))
      >>> params = model.init(jax.random.key(1), x)
      >>> loss_fn = lambda params, x: jnp.mean((model.apply(params, x) - x[:, :2]) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="dense")
      >>> tx = levenberg_marquardt(KFAC(damping_mode="absolute"), layers)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> @jax.jit
      ... def train_step(params, opt_state, x):
      ...   value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      ...   updates, opt_state = tx.update(
      ...     grads, opt_state, params, curvature=curvature, value=value)
      ...   return optax.apply_updates(params, updates), opt_state, value
      >>> opt_state = tx.init(params)
      >>> for _ in range(20):
      ...   params, opt_state, value = train_step(params, opt_state, x)
      >>> float(value) < 1e-3
      True
    """
    check_rule_and_layers(rule, layers)
    if getattr(rule, "damping_mode", None) != "absolute":
        raise ValueError(
            "The damping that is adapted is that of the quadratic model, and of the whole network: "
            f"the rule must have damping_mode='absolute', got {rule!r}. Write for example "
            "KFAC(damping_mode='absolute')."
        )
    check_number("damping", damping, strict=True, schedule=False)
    check_flag("momentum", momentum)
    check_interval("adapt_every", adapt_every, schedule=False)
    check_number("decay", decay, strict=True, maximum=1, schedule=False)
    check_number("least_damping", least_damping, strict=True, schedule=False)
    check_number("largest_damping", largest_damping, minimum=least_damping, schedule=False)
    check_fallback("fallback", fallback)
    for name in options:
        if name not in ("refresh_every", "seed"):
            raise TypeError(
                f"levenberg_marquardt() has no option `{name}`: of those of scale_by_rule it takes "
                "`refresh_every` and `seed`. What sets sizes and momentum is the quadratic model."
            )

    def of_rule(value: ArrayLike) -> tuple[Rule, optax.GradientTransformationExtraArgs]:
        own = dataclasses.replace(rule, damping=value)  # type: ignore[call-arg]
        return own, scale_by_rule(own, layers, **options)  # type: ignore[arg-type]

    def is_other(params: PyTree) -> PyTree:
        leaves = Leaves(params)
        inside = [path for spec in whole_layers(layers, leaves) for path in spec.shapes]
        return leaves.labelled(dict.fromkeys(inside, False), True)

    others = optax.masked(fallback or optax.set_to_zero(), is_other)
    others = optax.with_extra_args_support(others)

    def init(params: PyTree) -> LevenbergMarquardtState:
        mask = Leaves(is_other(params))
        rest = [path for path in mask if mask[path]]
        if rest and fallback is None:
            raise ValueError(
                f"The parameters {rest} are of no layer, and there is no optimizer for them: pass "
                "fallback=optax.adamw(learning_rate), or what you like."
            )
        number = lambda value: jnp.asarray(value, jnp.float32)
        return LevenbergMarquardtState(
            of_rule=of_rule(damping)[1].init(params),
            of_others=others.init(params),
            last_step=jax.tree.map(jnp.zeros_like, params),
            adapted_damping=number(damping),
            step_size=number(0),
            step_momentum=number(0),
            reduction_ratio=number(jnp.nan),
            loss_before=number(0),
            predicted_change=number(0),
            judged_steps=jnp.zeros([], jnp.int32),
        )

    def update(
        updates: PyTree,
        state: LevenbergMarquardtState,
        params: PyTree = None,
        *,
        value: ArrayLike | None = None,
        product: Callable[[PyTree], PyTree] | None = None,
        **extra_args: PyTree,
    ) -> tuple[PyTree, LevenbergMarquardtState]:
        if not (isinstance(decay, int | float) and decay == 1):
            if value is None:
                raise ValueError(
                    "levenberg_marquardt() adapts the damping by the loss: update() got no "
                    "`value`. Write tx.update(grads, opt_state, params, value=value, "
                    "curvature=curvature), or decay=1 for one damping."
                )
            loss = jnp.asarray(value, jnp.float32)
            state = _judged(state, loss, adapt_every, decay, (least_damping, largest_damping))
        own, scale = of_rule(state.adapted_damping)
        natural, inner = scale.update(updates, state.of_rule, params, **extra_args)
        moved, of_others = others.update(updates, state.of_others, params, value=value)
        mask = is_other(updates)
        inside = lambda tree: jax.tree.map(lambda m, x: jnp.where(m, 0, x), mask, tree)
        multiply = product or (lambda v: curvature_product(own, layers, inner, v))
        directions = (inside(natural), state.last_step)[: 2 if momentum else 1]
        shares, change = _best_of(inside(updates), directions, multiply, state.adapted_damping)
        step = _combined(shares, directions)
        finite = jnp.isfinite(change)
        kept = lambda new, old: jax.lax.select(
            jnp.broadcast_to(finite, old.shape), new.astype(old.dtype), old
        )
        found = jax.tree.map(lambda m, x, s: x if m else -s.astype(x.dtype), mask, moved, step)
        return found, state._replace(
            of_rule=inner,
            of_others=of_others,
            last_step=jax.tree.map(kept, step, state.last_step),
            step_size=kept(shares[0], state.step_size),
            step_momentum=kept(shares[1], state.step_momentum) if momentum else state.step_momentum,
            predicted_change=state.predicted_change + kept(change, jnp.float32(0)),
            judged_steps=state.judged_steps + 1,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _judged(
    state: LevenbergMarquardtState,
    loss: jax.Array,
    every: int,
    decay: float,
    bounds: tuple[float, float],
) -> LevenbergMarquardtState:
    """With the damping that the steps since the last judgement ask for, if they are enough."""
    due = state.judged_steps >= every
    promised = state.predicted_change < 0
    ratio = (loss - state.loss_before) / jnp.where(promised, state.predicted_change, -1)
    factor = jnp.asarray(decay, jnp.float32) ** every
    # A loss that is not finite is poor; where nothing was promised, nothing is judged.
    turned = jnp.where(ratio > _GOOD, factor, jnp.where(ratio >= _POOR, 1, 1 / factor))
    new = jnp.clip(state.adapted_damping * turned, *bounds)
    begins = due | (state.judged_steps == 0)
    return state._replace(
        adapted_damping=jnp.where(due & promised, new, state.adapted_damping),
        reduction_ratio=jnp.where(due & promised, ratio, state.reduction_ratio),
        loss_before=jnp.where(begins & jnp.isfinite(loss), loss, state.loss_before),
        predicted_change=jnp.where(due, 0, state.predicted_change),
        judged_steps=jnp.where(due, 0, state.judged_steps),
    )


def _best_of(
    gradients: PyTree,
    directions: tuple[PyTree, ...],
    multiply: Callable[[PyTree], PyTree],
    damping: jax.Array,
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """The shares of directions that minimize the model, and what it is there."""
    unit = [_scale_of(one) for one in directions]  # squares of entries may be out of range
    scaled = [_times(1 / size, one) for size, one in zip(unit, directions, strict=True)]
    of_gradient = _scale_of(gradients)
    plain = _times(1 / of_gradient, gradients)
    images = [
        jax.tree.map(lambda f, v: f + damping.astype(f.dtype) * v, multiply(one), one)
        for one in scaled
    ]
    # In units in which both directions have the curvature 1, as products of two may overflow.
    roots = [jnp.sqrt(_dot(one, image)) for one, image in zip(scaled, images, strict=True)]
    unit = [size * root for size, root in zip(unit, roots, strict=True)]
    inverse = [jnp.where(root > 0, 1 / jnp.where(root > 0, root, 1), 0) for root in roots]
    gain = [_dot(plain, one) * one_over for one, one_over in zip(scaled, inverse, strict=True)]
    shares = [gain[0]]
    if len(scaled) == 2:
        mixed = (_dot(scaled[0], images[1]) + _dot(scaled[1], images[0])) / 2
        cosine = mixed * inverse[0] * inverse[1]
        apart = (roots[0] > 0) & (roots[1] > 0) & (cosine**2 < 1 - 1e-6)  # or one direction alone
        safe = 1 - jnp.where(apart, cosine, 0) ** 2
        both = gain[0] - gain[1] * cosine, gain[1] - gain[0] * cosine
        shares = [jnp.where(apart, both[0] / safe, gain[0]), jnp.where(apart, both[1] / safe, 0)]
    change = -sum(share * own for share, own in zip(shares, gain, strict=True)) / 2
    real = [
        jnp.where(size > 0, share * of_gradient / jnp.where(size > 0, size, 1), 0)
        for share, size in zip(shares, unit, strict=True)
    ]
    return tuple(real), change * of_gradient**2


def _combined(shares: tuple[jax.Array, ...], directions: tuple[PyTree, ...]) -> PyTree:
    add = lambda *leaves: sum(
        share.astype(leaf.dtype) * leaf for share, leaf in zip(shares, leaves, strict=True)
    )
    return jax.tree.map(add, *directions)


def _times(share: jax.Array, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: share.astype(leaf.dtype) * leaf, tree)


def _scale_of(tree: PyTree) -> jax.Array:
    """The largest absolute value, 1 where all are 0."""
    leaves = jax.tree.leaves(tree)
    sizes = [jnp.abs(x).max(initial=0).astype(accumulation_dtype(x)) for x in leaves]
    largest = jnp.stack(sizes).max()
    return jnp.where(largest == 0, 1, largest)


def _dot(a: PyTree, b: PyTree) -> jax.Array:
    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        dtype = accumulation_dtype(x, y)
        return jnp.sum(x.astype(dtype) * y.astype(dtype))

    return sum(jax.tree.leaves(jax.tree.map(product, a, b)), start=jnp.float32(0))
