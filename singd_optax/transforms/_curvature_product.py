"""Products of the curvature with vectors, by the factors of a rule."""

from singd_optax._types import PyTree
from singd_optax.layers import Layers
from singd_optax.layers._check import check_params
from singd_optax.layers._states import known_rule_states
from singd_optax.layers._tree import Leaves
from singd_optax.rules import Rule
from singd_optax.transforms._directions import as_matrix
from singd_optax.transforms._states_of_rule import check_rule_and_layers, states_of_rule


def curvature_product(rule: Rule, layers: Layers, opt_state: PyTree, vector: PyTree) -> PyTree:
    """F v, with the Fisher F as a rule approximates it, block by block, without damping.

    For each layer that is S_K V S_C for ``KFAC``, and what ``TKFAC``, ``KPSVD``, ``EKFAC`` and
    ``TEKFAC`` have in its place; F is 0 between layers, and for parameters of no layer. It is made
    of moving averages, not of one batch. (For the product with the exact Gauss-Newton matrix of a
    batch, write ``jax.jvp`` and ``jax.vjp`` of the model around the Hessian of the loss.)

    Args:
      rule: The rule of the optimizer.
      layers: Those of the optimizer.
      opt_state: Its state.
      vector: v, a tree like the parameters.

    Returns:
      A tree like ``vector``; zeros for parameters of no layer.

    Raises:
      TypeError: ``rule`` or ``layers`` is something else.
      ValueError: The state is of another rule or other layers.
      NotImplementedError: The rule keeps no curvature.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> from singd_optax.optimizers import KFAC
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> tx = singd_optax.optimizer(0.1, KFAC(), layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      >>> updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      >>> product = curvature_product(KFAC(), layers, opt_state, updates)
    """
    check_rule_and_layers(rule, layers)
    found = states_of_rule(rule, layers, opt_state)
    leaves = Leaves(vector)
    check_params([layers[path] for path in found], leaves, "vector")
    count = known_rule_states(opt_state)[0].rule_count
    products = {name: leaves[name] * 0 for name in leaves}
    for path, own in found.items():
        view = layers[path]
        matrix = as_matrix(view, {name: leaves[name] for name in view.shapes})
        image = rule.curvature(view, own, matrix, count)
        for name, part in zip(view.shapes, view.from_matrix(image), strict=True):
            products[name] = part.astype(leaves[name].dtype)
    return leaves.replaced(products)
