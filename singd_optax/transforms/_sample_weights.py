"""Weights drawn around the mean, with the preconditioner as their covariance."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_number
from singd_optax.layers import Layers
from singd_optax.layers._check import check_params
from singd_optax.layers._tree import Leaves
from singd_optax.rules import Rule
from singd_optax.transforms._states_of_rule import check_rule_and_layers, states_of_rule


def sample_weights(
    rule: Rule,
    layers: Layers,
    opt_state: PyTree,
    params: PyTree,
    key: jax.Array,
    scale: ArrayLike = 1.0,
) -> PyTree:
    """Parameters whose layers are drawn from a Gaussian around them, for variational training.

    The covariance is ``scale`` times the preconditioner P of the rule, the inverse of its damped
    curvature: with c = ``scale``, W + √c K E Cᵀ, where K Kᵀ ⊗ C Cᵀ = P and E is standard normal.
    Nothing is decomposed. Gradients (and statistics) that are taken at such weights, in the place
    of those at the mean, make noisy natural gradient descent (arXiv 1712.02390): noisy KFAC with
    ``KFAC(inverse_method="root")`` or "eigh", noisy EKFAC with ``EKFAC``, VOGN (arXiv 1906.02506)
    with ``EKFAC`` on layers of diagonal structures, and inverse-free with ``SINGD``. There
    ``scale`` is the temperature over the number N of training examples, and the damping λ is the
    precision of the prior over N, in "absolute" units.

    Args:
      rule: The rule of the optimizer, with its options: one whose state has a root of the
        preconditioner.
      layers: The layers that the optimizer was made with.
      opt_state: The optimizer's state, which has the rule's factors.
      params: The parameters, which are the mean.
      key: A random key, as ``jax.random.key`` makes it.
      scale: The factor c of the covariance, a number >= 0; it may be traced.

    Returns:
      Parameters like ``params``; those of no layer are as they were.

    Raises:
      TypeError: ``rule`` or ``layers`` is something else.
      ValueError: The rule keeps no roots, or the state is of another rule or other layers.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> from singd_optax.optimizers import SINGD
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> rule = SINGD()
      >>> tx = singd_optax.optimizer(0.1, rule, layers)
      >>> opt_state = tx.init(params)
      >>> drawn = sample_weights(rule, layers, opt_state, params, jax.random.key(1), scale=1e-3)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(drawn, x, opt_state=opt_state)
      >>> updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
    """
    check_rule_and_layers(rule, layers)
    check_number("scale", scale, schedule=False)
    if rule.whitening() != rule:
        raise ValueError(
            f"{rule.state_name} keeps the product and not a root of its preconditioner, and "
            "weights are drawn with a root. Use a rule that keeps one: "
            "KFAC(inverse_method='root'), EKFAC, SINGD or IKFAC."
        )
    found = states_of_rule(rule, layers, opt_state)
    leaves = Leaves(params)
    check_params([layers[path] for path in found], leaves, "params")
    drawn: dict[str, jax.Array] = {}
    for index, (path, own) in enumerate(found.items()):
        view = layers[path]
        dtype = view.statistics_dtype
        shape = (*view.stack_shape, *view.dims)
        normal = jax.random.normal(jax.random.fold_in(key, index), shape, dtype)
        noise = rule.unwhiten(view, own, normal) * jnp.sqrt(scale).astype(dtype)
        for name, part in zip(view.shapes, view.from_matrix(noise), strict=True):
            mean = leaves[name]
            drawn[name] = (mean + part).astype(mean.dtype)
    return leaves.replaced(drawn)
