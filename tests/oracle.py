"""A plain multi-layer perceptron with explicit inputs and output gradients: the capture's oracle.

Every model of the capture tests computes this function; they differ only in how Flax holds it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import singd_optax
from singd_optax.layers import RuleState


def forward(weights, offsets, x):
    """Outputs and the inputs of each layer; offsets are added to each layer's output."""
    inputs = []
    for i, ((kernel, bias), offset) in enumerate(zip(weights, offsets, strict=True)):
        inputs.append(x)
        y = x @ kernel + (0 if bias is None else bias) + offset
        x = jnp.tanh(y) if i < len(weights) - 1 else y
    return x, inputs


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def inputs_and_gradients(weights, x, labels, loss=cross_entropy):
    """Each layer's inputs a and the gradients g of the loss with respect to its outputs."""
    offsets = [jnp.zeros((*x.shape[:-1], kernel.shape[1]), x.dtype) for kernel, _ in weights]

    def of_offsets(offsets):
        output, inputs = forward(weights, offsets, x)
        return loss(output, labels), inputs

    gradients, inputs = jax.grad(of_offsets, has_aux=True)(offsets)
    return list(zip(inputs, gradients, strict=True))


def moments(a, g, *, bias, kfac_approx="expand", loss_average="batch"):
    """U and G as the table of scalings gives them, from explicit a and g, in float64 numpy."""
    a, g = (np.asarray(v, np.float64) for v in (a, g))
    n = a.shape[0] if a.ndim > 1 else 1
    a, g = a.reshape(n, -1, a.shape[-1]), g.reshape(n, -1, g.shape[-1])
    s = a.shape[1]
    if bias:
        a = np.concatenate([a, np.ones((n, s, 1))], axis=-1)
    if kfac_approx == "reduce":
        a, g = a.mean(1, keepdims=True), g.sum(1, keepdims=True)
    U = np.einsum("nsi,nsj->ij", a, a) / (a.shape[0] * a.shape[1])
    G = (
        np.einsum("nsi,nsj->ij", g, g)
        * {"batch": n, "batch+sequence": n * s, None: 1}[loss_average]
    )
    return U, G


def randomized(opt_state, seed=0):
    """The state with random factors, so that whitening shows."""
    return _randomized(opt_state, seed)


@functools.partial(jax.jit, static_argnums=1)
def _randomized(opt_state, seed):
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(opt_state))))

    def randomize(node):
        if not isinstance(node, RuleState):
            return node
        noisy = lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape, leaf.dtype)
        own = {
            path: own._replace(K=jax.tree.map(noisy, own.K), C=jax.tree.map(noisy, own.C))
            for path, own in node.rule_states.items()
        }
        return node._replace(rule_states=own)

    return jax.tree.map(randomize, opt_state, is_leaf=lambda x: isinstance(x, RuleState))


def check(loss_fn, params, args, weights, data, locate, rtol=1e-9, has_aux=False, **options):
    """Gradients equal jax.grad's; statistics equal those of explicit a and g, on refresh steps.

    Args:
      loss_fn: Of the Flax model.
      params: Its parameters.
      args: Further arguments of ``loss_fn``.
      weights: The same parameters as a list of (kernel, bias).
      data: Inputs and labels of the plain model.
      locate: For each layer of the plain model, (path, index into the stack or ()); several may
        share one place, and add up there.
      rtol: Relative tolerance.
      has_aux: Whether ``loss_fn`` returns a pair.
      **options: Of ``find_layers``.
    """
    layers = singd_optax.find_layers(loss_fn, params, *args, **options)
    assert set(layers) == {path for path, _ in locate}
    tx = singd_optax.scale_by_singd(layers, refresh_every=2)
    state = jax.jit(lambda params: randomized(tx.init(params)))(params)
    factors = singd_optax.factors(state)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers, has_aux=has_aux)

    @jax.jit
    def step(params, state):
        value, grads, curvature = grad_fn(params, *args, opt_state=state)
        _, new_state = tx.update(grads, state, params, curvature=curvature)
        return value, grads, curvature, new_state

    value, grads, curvature, later = step(params, state)
    plain_value, plain_grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=has_aux))(params, *args)
    close = lambda got, want: np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * 1e-2)
    jax.tree.map(close, (value, grads), (plain_value, plain_grads))
    assert jax.tree.structure(grads) == jax.tree.structure(plain_grads)

    expected = {}
    for (path, index), (a, g) in zip(locate, inputs_and_gradients(weights, *data), strict=True):
        spec = layers[path]
        U, G = moments(
            a,
            g,
            bias=spec.bias_shape is not None,
            kfac_approx=spec.kfac_approx,
            loss_average=spec.loss_average,
        )
        K, C = (np.asarray(f.to_dense(), np.float64)[index] for f in factors[path])
        leading = np.shape(a)[:-1]
        rows = np.prod(leading[:1] if spec.kfac_approx == "reduce" else leading)
        terms = (K.T @ U @ K, C.T @ G @ C, np.trace(U) / len(U), np.trace(G) / len(G), rows)
        old = expected.get((path, index), (0, 0, 0, 0, 0))
        expected[path, index] = tuple(x + y for x, y in zip(old, terms, strict=True))
    for (path, index), (H_K, H_C, mean_U, mean_G, rows) in expected.items():
        got = curvature[path]
        for matrix, full, structure in zip(
            got[:2], (H_K, H_C), layers[path].structures, strict=True
        ):
            want = structure.project(jnp.asarray(full)).to_dense()
            scale = np.abs(full).max()
            np.testing.assert_allclose(
                matrix.to_dense()[index], want, rtol=0, atol=rtol * 10 * scale
            )
        np.testing.assert_allclose(got.mean_U[index], mean_U, rtol=rtol * 10)
        np.testing.assert_allclose(got.mean_G[index], mean_G, rtol=rtol * 10)
        np.testing.assert_allclose(got.rows[index], rows)

    # The next step is not due: no statistics, the same gradients, no second compilation.
    *_, grads_2, curvature, after = step(params, later)
    assert not bool(later.refresh_due)
    assert bool(after.refresh_due)
    measured = {path: found._replace(measured_at=None) for path, found in curvature.items()}
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), measured)
    jax.tree.map(np.testing.assert_array_equal, grads, grads_2)
    assert step._cache_size() == 1
    return layers
