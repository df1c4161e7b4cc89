"""Numbers that say how each layer fares."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from singd_optax._types import PyTree
from singd_optax.diagnostics._condition import condition_number
from singd_optax.layers import Layers, LayerSpec
from singd_optax.layers._check import check_layers, check_params
from singd_optax.layers._roles import role_of_factors, roles_of
from singd_optax.layers._states import known_rule_states
from singd_optax.layers._tree import Leaves
from singd_optax.structures import StructuredMatrix


def layer_diagnostics(
    layers: Layers,
    opt_state: PyTree,
    *,
    grads: PyTree = None,
    updates: PyTree = None,
    exact_dim: int = 256,
) -> dict[str, dict[str, jax.Array]]:
    """Numbers for each layer, computed from arrays alone, so that it may run inside of a jit.

    Factors are the matrices K and C that multiply a layer's gradient; a refresh makes them anew.
    For each layer (layers of a stack apart, kernel and bias together) there are:

    - ``norm_K``, ``norm_C``: Frobenius norms of the factors (for KFAC, of the inverses or the
      eigenvectors); √dim at the start. Rules that keep vectors in their place (Eva, AdaFisher) have
      neither these nor the next.
    - ``condition_K``, ``condition_C``: the factors' condition numbers, see ``condition_number``.
    - ``norm_m_K``, ``norm_S_C``, ...: norms of what the rule keeps beside the factors: momenta,
      averaged moments, products, by the names of the fields of its state.
    - ``skipped_refreshes``: the number of refreshes without effect since the start.
    - ``skipped_in_a_row``: the number of these since the last one with an effect. A layer where
    this
      goes on growing has a preconditioner of long ago: it gets no gradients, or its statistics
      are not finite; ``singd_optax.training.check_refreshes`` warns of it.
    - with ``grads``: ``gradient_rms``, the root mean square of the gradient.
    - with ``updates``: ``update_rms``, that of the update.
    - with both: ``alignment``, the cosine between the negative update and the gradient: 1 for
      gradient descent, above 0 as long as the update descends.

    Args:
      layers: The layers that ``find_layers`` found.
      opt_state: The optimizer's state.
      grads: The gradients of the parameters, or None.
      updates: The updates that ``tx.update`` returned for them, or None.
      exact_dim: The largest dim of a factor whose condition number is exact, see
        ``condition_number``.

    Returns:
      A dict from the path of a layer to a dict from these names to arrays, of shape () or that of
      the stack.

    Raises:
      ValueError: The state is of another optimizer, or the trees do not match ``layers``.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> tx = singd_optax.singd(0.1, layers)
      >>> opt_state = tx.init(params)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
      >>> updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      >>> numbers = singd_optax.diagnostics.layer_diagnostics(
      ...     layers, opt_state, grads=grads, updates=updates)
      >>> sorted(numbers["params"])[:4]
      ['alignment', 'condition_C', 'condition_K', 'gradient_rms']
    """
    check_layers(layers)
    states = known_rule_states(opt_state)
    given = {name: Leaves(tree) for name, tree in _given(grads, updates)}
    numbers: dict[str, dict[str, jax.Array]] = {}
    for state in states:
        specs = [layers[path] for path in state.rule_states if path in layers]
        for name, leaves in given.items():
            check_params(specs, leaves, name)
        for spec in specs:
            path = spec.path
            found: dict[str, jax.Array] = {}
            own = state.rule_states[path]
            for name in role_of_factors(type(own)):
                factor = getattr(own, name)
                found[f"norm_{name}"] = factor.frobenius_norm()
                found[f"condition_{name}"] = condition_number(factor, exact_dim=exact_dim)
            found |= _other_norms(own, spec)
            found["skipped_refreshes"] = state.skipped_refreshes[path]
            found["skipped_in_a_row"] = state.skipped_in_a_row[path]
            found |= _directions({name: _matrix(spec, leaves) for name, leaves in given.items()})
            numbers[path] = found
    return numbers


def metrics(
    layers: Layers,
    opt_state: PyTree,
    *,
    grads: PyTree = None,
    updates: PyTree = None,
    exact_dim: int = 256,
    prefix: str = "singd_optax",
) -> dict[str, jax.Array]:
    """The numbers of ``layer_diagnostics`` as one flat dict of scalars, as loggers take it.

    Args:
      layers: The layers that ``find_layers`` found.
      opt_state: The optimizer's state.
      grads: The gradients of the parameters, or None.
      updates: The updates that ``tx.update`` returned for them, or None.
      exact_dim: The largest dim of a factor whose condition number is exact, see
        ``condition_number``.
      prefix: The text in front of every name; "" for none.

    Returns:
      A dict from ``"<prefix>/<path>/<name>"`` to scalars; the layers of a stack have
      ``"<path>[<index>]"`` for path.

    Raises:
      ValueError: The state is of another optimizer, or the trees do not match ``layers``.
    """
    numbers = layer_diagnostics(
        layers, opt_state, grads=grads, updates=updates, exact_dim=exact_dim
    )
    flat = {}
    for path, found in numbers.items():
        for name, array in found.items():
            for index in np.ndindex(array.shape):
                place = f"{path}[{','.join(map(str, index))}]" if index else path
                flat["/".join(part for part in (prefix, place, name) if part)] = array[index]
    return flat


def _given(grads: PyTree, updates: PyTree) -> Iterator[tuple[str, PyTree]]:
    for name, tree in (("gradient", grads), ("update", updates)):
        if tree is not None:
            yield name, tree


def _matrix(spec: LayerSpec, leaves: Leaves) -> jax.Array:
    return spec.to_matrix(*(leaves[path] for path in spec.shapes)).astype(spec.statistics_dtype)


def _directions(matrices: dict[str, jax.Array]) -> dict[str, jax.Array]:
    axes = (-2, -1)
    found = {
        f"{name}_rms": jnp.sqrt(jnp.mean(matrix**2, axis=axes)) for name, matrix in matrices.items()
    }
    if len(matrices) == 2:
        g, u = (
            matrix / _or_one(jnp.abs(matrix).max(axes, keepdims=True))
            for matrix in matrices.values()
        )
        norms = jnp.sqrt(jnp.sum(g * g, axis=axes) * jnp.sum(u * u, axis=axes))
        found["alignment"] = -jnp.sum(g * u, axis=axes) / _or_one(norms)
    return found


def _or_one(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, 1)


def _other_norms(state: PyTree, spec: LayerSpec) -> dict[str, jax.Array]:
    """Norms of what is neither a factor nor a counter, by the names of fields."""
    found = {}
    for name, role in roles_of(type(state)).items():
        part = getattr(state, name)
        if part is None or role.kind in ("factor", "basis", "counter"):
            continue
        if isinstance(part, StructuredMatrix):
            found[f"norm_{name}"] = part.frobenius_norm()
        else:
            squares = [_sum_of_squares(leaf, spec) for leaf in jax.tree.leaves(part)]
            found[f"norm_{name}"] = jnp.sqrt(sum(squares))
    return found


def _sum_of_squares(array: jax.Array, spec: LayerSpec) -> jax.Array:
    """For each matrix of the stack."""
    own = tuple(range(len(spec.stack_shape), array.ndim))
    return jnp.sum(jnp.square(array.astype(spec.statistics_dtype)), axis=own)
