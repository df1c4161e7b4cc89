"""The prior of a network that is trained, as weight decay that the evidence chooses."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_choice, check_number
from singd_optax.curvature._curvature import Curvature, Damping
from singd_optax.curvature._estimate import OTHERS, Others
from singd_optax.curvature._laplace import laplace, with_numbers
from singd_optax.curvature._tune import tune
from singd_optax.layers import Layers
from singd_optax.layers._check import check_layers, check_params
from singd_optax.layers._tree import Leaves, is_variable


class PriorState(NamedTuple):
    """The state of ``add_prior``.

    Attributes:
      prior_precision: Δ: one number, or one for each block by its path.
      noise: σ of a Gaussian likelihood, relative to what the loss says; 1 for all others.
    """

    prior_precision: Damping
    noise: ArrayLike


def add_prior(
    layers: Layers,
    *,
    terms: ArrayLike,
    prior_precision: Damping = 1.0,
    noise: ArrayLike = 1.0,
    others: Others = "none",
) -> optax.GradientTransformation:
    """Add the gradient of a Gaussian prior, whose precision is a part of the state.

    With Δ of θ's block, and N the terms of which the loss is the mean::

        g + (σ² Δ / N) θ

    so that the optimizer, which comes behind it in an ``optax.chain``, minimizes σ² / N times the
    negative log posterior: weight decay in the gradient (L2), of the size that ``tune_prior``
    chooses while training. Leave weight decay out of the optimizer itself. Curvature that
    ``value_and_grad`` measures is that of the likelihood alone.

    Args:
      layers: From ``find_layers``.
      terms: N, over how many terms the loss is a mean; see ``from_opt_state``.
      prior_precision: Δ > 0 at the start: one number for all; or a mapping from the paths of blocks
        for one for each, as ``dict.fromkeys(layers, 1.0)``.
      noise: σ > 0 at the start.
      others: Whether parameters outside of layers have a prior as well, as ``others`` of ``fit``.

    Returns:
      A gradient transformation. Its update needs the parameters.

    Raises:
      TypeError: ``layers`` are something else.
      ValueError: A number is not positive, or a mapping has other paths; ``params`` do not match
        ``layers``, or are missing.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> from singd_optax.curvature import add_prior, from_opt_state, tune_prior
      >>> model, x, N = nn.Dense(1), jax.random.normal(jax.random.key(0), (64, 3)), 64
      >>> y = x.sum(1, keepdims=True)
      >>> params = model.init(jax.random.key(1), x)
      >>> def loss_fn(params, x, y):
      ...   mean = singd_optax.tag_distribution(model.apply(params, x), "gaussian")
      ...   return 0.5 * jnp.mean((mean - y) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, y)
      >>> tx = optax.chain(
      ...   add_prior(layers, terms=N), singd_optax.kfac(0.1, layers, weight_decay=0.0))
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers, fisher="mc")
      >>> @jax.jit
      ... def train_step(params, opt_state, x, y):
      ...   value, grads, statistics = grad_fn(params, x, y, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=statistics)
      ...   return optax.apply_updates(params, updates), opt_state
      >>> @jax.jit
      ... def choose_prior(opt_state, params):  # at the end of an epoch
      ...   H = from_opt_state(opt_state, layers, params, terms=N)  # or fit, outside of jax.jit
      ...   return tune_prior(opt_state, H, params)
      >>> for epoch in range(20):
      ...   params, opt_state = train_step(params, opt_state, x, y)
      ...   opt_state = choose_prior(opt_state, params)
      >>> bool(opt_state[0].prior_precision < 2)  # weights are 1, 1, 1 and 0
      True
    """
    check_layers(layers)
    check_choice("others", others, OTHERS)
    check_number("terms", terms, strict=True, schedule=False)
    check_number("noise", noise, strict=True, schedule=False)
    each = dict(prior_precision) if isinstance(prior_precision, Mapping) else None
    for number in [prior_precision] if each is None else each.values():
        check_number("prior_precision", number, strict=True, schedule=False)

    def paths_of(leaves: Leaves) -> dict[str, tuple[str, ...]]:
        """Block -> its parameters."""
        blocks = {path: tuple(spec.shapes) for path, spec in layers.items()}
        if others == "diagonal":
            inside = {path for own in blocks.values() for path in own}
            blocks |= {path: (path,) for path in leaves if path not in inside}
        return blocks

    def init(params: PyTree) -> PriorState:
        leaves = Leaves(params)
        if not leaves.is_placeholder:
            check_params(layers.values(), leaves, "params")
            blocks = paths_of(leaves)
            if each is not None and set(each) != set(blocks):
                odd = sorted(set(each) ^ set(blocks))
                raise ValueError(
                    "`prior_precision` must be a number, or a mapping that has one for each block, "
                    f"got one that differs in {odd[:10]}. The blocks are {list(blocks)}."
                )
        as_array = lambda number: jnp.asarray(number, float)
        precision = prior_precision if each is None else each
        return PriorState(jax.tree.map(as_array, precision), as_array(noise))

    def update(
        updates: PyTree, state: PriorState, params: PyTree = None
    ) -> tuple[PyTree, PriorState]:
        if params is None:
            raise ValueError(
                "add_prior needs the parameters, got None. Call tx.update(grads, opt_state, "
                "params, ...)."
            )
        gradients, leaves = Leaves(updates), Leaves(params)
        changed = {}
        for block, paths in paths_of(leaves).items():
            precision = state.prior_precision
            own = precision[block] if isinstance(precision, Mapping) else precision
            size = own * state.noise**2 / terms
            for path in paths:
                if path in gradients:  # and is not masked out
                    gradient = gradients[path]
                    decay = (size * leaves[path]).astype(gradient.dtype)
                    changed[path] = gradient + decay
        return gradients.replaced(changed), state

    return optax.GradientTransformation(init, update)


def tune_prior(
    opt_state: PyTree,
    curvature: Curvature,
    params: PyTree,
    *,
    nll: ArrayLike | None = None,
    what: Sequence[str] = ("prior_precision",),
    real_targets: ArrayLike = 0,
    steps: int = 20,
) -> PyTree:
    """The optimizer's state with the prior that maximizes the evidence, for the next epochs.

    Call it every so many epochs; some of training before the first time, as the evidence is that
    of parameters which fit. A curvature from ``fit`` costs one pass over the data; that
    ``from_opt_state`` of kfac or ekfac costs nothing (that of singd and ikfac has their damping in
    it, which counts as curvature). It can be jitted; then ``laplace(curvature,
    params, **prior_state(opt_state)._asdict())`` is the posterior.

    Args:
      opt_state: The state of an optimizer with ``add_prior`` in it, also inside of what optax or
        ``nnx.Optimizer`` wraps around.
      curvature: Of the likelihood at these parameters, with a block for each parameter that has a
        prior.
      params: The parameters as they are.
      nll: L, see ``Laplace.log_evidence``: for "noise".
      what: See ``tune``.
      real_targets: See ``tune``.
      steps: See ``tune``.

    Returns:
      The state, with other numbers in its ``PriorState``.

    Raises:
      ValueError: The state has no ``PriorState``, or several; the curvature is of other layers; or
        as ``tune``.

    References:
      Immer et al., Scalable Marginal Likelihood Estimation for Model Selection in Deep Learning,
      ICML 2021, arXiv 2104.04975. It takes steps of Adam for the maximum.
    """
    state = prior_state(opt_state)
    posterior = tune(
        with_numbers(laplace(curvature, params), **state._asdict()),
        nll,
        what=what,
        real_targets=real_targets,
        steps=steps,
    )
    new = PriorState(posterior.prior_precision, posterior.noise)

    def exchanged(node: PyTree) -> PyTree:
        if not _is_prior(node):
            return node
        return jax.tree.map(_like, node, new, is_leaf=is_variable)

    return jax.tree.map(exchanged, opt_state, is_leaf=_is_prior)


def prior_state(opt_state: PyTree) -> PriorState:
    """The hyper-parameters that ``add_prior`` keeps in an optimizer's state.

    Args:
      opt_state: Of an optimizer with ``add_prior`` in it.

    Raises:
      ValueError: There is none, or there are several.
    """
    found = [one for one in jax.tree.leaves(opt_state, is_leaf=_is_prior) if _is_prior(one)]
    if len(found) != 1:
        raise ValueError(
            f"`opt_state` must have one PriorState, got {len(found)}. Make the optimizer as "
            "optax.chain(singd_optax.curvature.add_prior(layers, terms=...), ...)."
        )
    raw = lambda leaf: leaf.get_raw_value() if is_variable(leaf) else leaf
    return jax.tree.map(raw, found[0], is_leaf=is_variable)


def _is_prior(node: PyTree) -> bool:
    return isinstance(node, PriorState)


def _like(old: PyTree, new: jax.Array) -> PyTree:
    """The number, in the box of the old one."""
    dtype = jnp.result_type(old.get_raw_value() if is_variable(old) else old)
    return old.replace(new.astype(dtype)) if is_variable(old) else new.astype(dtype)
