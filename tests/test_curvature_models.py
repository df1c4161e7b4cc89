"""The curvature family on models with embeddings, scanned stacks and convolutions."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import CURVATURE, assert_close, jit, make_step

import singd_optax
from singd_optax.layers import rule_states
from singd_optax.measures import Cross, Mean, Moments, Sketch, Squares
from singd_optax.optimizers import KFAC


class Body(nn.Module):
    """One layer of a stack."""

    @nn.compact
    def __call__(self, x, _):
        return x + nn.tanh(nn.Dense(6, name="dense")(x)), None


class Model(nn.Module):
    """Tokens beside images, with a scanned stack between."""

    scanned: bool = True

    @nn.compact
    def __call__(self, tokens, images):
        x = nn.Embed(9, 6, name="embed")(tokens)
        pixels = nn.Conv(6, (2, 2), strides=2, name="conv")(images)
        x = x + pixels.mean((1, 2))[:, None]
        if self.scanned:
            axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
            body = nn.scan(nn.remat(Body), **axes, length=2)
            x, _ = body(name="body")(x, None)
        else:
            for name in ("body_0", "body_1"):
                x, _ = Body(name=name)(x, None)
        return nn.Dense(3, name="head")(x.mean(1))


@functools.cache
def problem(scanned=True):
    rng = np.random.default_rng(0)
    batch = (
        jnp.asarray(rng.integers(9, size=(16, 4))),
        jnp.asarray(rng.normal(size=(16, 4, 4, 2)), jnp.float32),
    )
    labels = jnp.asarray(rng.integers(3, size=16))
    model = Model(scanned)
    params = model.init(jax.random.key(0), *batch)["params"]

    def loss_fn(params, tokens, images):
        logits = singd_optax.tag_distribution(
            model.apply({"params": params}, tokens, images), "categorical"
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    layers = singd_optax.find_layers(loss_fn, params, *batch, structures="dense")
    return params, loss_fn, layers, batch


@pytest.mark.parametrize("name", [*CURVATURE, "singd"])
def test_trains(name):
    params, loss_fn, layers, batch = problem()
    assert set(layers) == {"embed", "conv", "body/dense", "head"}
    options = {"cross_moments": True} if name == "singd" else {}
    tx = getattr(singd_optax, name)(0.02, layers, refresh_every=1, **options)
    step = make_step(tx, layers, loss_fn, donate_argnums=(0, 1))
    carry = jax.tree.map(jnp.copy, params), tx.init(params)
    values = []
    for _ in range(6):
        *carry, value = step(*carry, *batch)
        values.append(float(value))
    assert values[-1] < values[0] - 0.02
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(carry))
    (state,) = rule_states(carry[1])
    assert all(not np.any(count) for count in state.skipped_refreshes.values())
    assert step._cache_size() == 1


ALL = (
    *(Mean(0), Mean(1), Squares(("K", "C")), Squares(("K", "C"), exact=True)),
    *(Cross(), Cross(("S_K", "S_C")), Cross(whitened_by=("K", "C")), Sketch(0, 2), Sketch(1, 2)),
)


class Measuring(KFAC):
    """KFAC that measures all there is."""

    @property
    def measures(self):
        return (Moments(), *ALL)


def test_a_scanned_stack_is_measured_as_separate_layers():
    params, loss_fn, layers, batch = problem()
    _, other_loss_fn, other_layers, _ = problem(scanned=False)
    stack = params["body"]["dense"]
    parts = [jax.tree.map(lambda leaf, i=i: leaf[i], stack) for i in range(2)]
    others = {name: own for name, own in params.items() if name != "body"}
    others |= {f"body_{i}": {"dense": part} for i, part in enumerate(parts)}
    found = []
    for own_layers, own_params, loss in (
        (layers, params, loss_fn),
        (other_layers, others, other_loss_fn),
    ):
        tx = singd_optax.scale_by_rule(Measuring(bias_correction=False), own_layers)
        grad_fn = singd_optax.value_and_grad(loss, own_layers)
        found.append(jit(grad_fn)(own_params, *batch, opt_state=tx.init(own_params))[2])
    for measure in ALL:
        got = found[0]["body/dense"].value_of(measure)
        want = [found[1][f"body_{i}/dense"].value_of(measure) for i in range(2)]
        for i in range(2):
            assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], got), want[i], 1e-4, 1e-7)


def test_of_the_exact_fisher():
    """Pairs of inputs and of all columns of the Hessian's root, at the head."""
    params, loss_fn, layers, batch = problem()
    tx = singd_optax.scale_by_ekfac(layers)
    opt_state = tx.init(params)  # whose bases are I
    grad_fn = singd_optax.value_and_grad(loss_fn, layers, fisher="ggn")
    statistics = jit(grad_fn)(params, *batch, opt_state=opt_state)[2]["head"]
    model = Model()
    p = jax.nn.softmax(model.apply({"params": params}, *batch))
    found = []

    def listen(next_fun, args, kwargs, context):
        if context.module.name == "head":
            found.append(args[0])
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(listen):
        model.apply({"params": params}, *batch)
    a = jnp.concatenate([found[0], jnp.ones((16, 1))], 1)
    want = jnp.einsum("ni,no->io", a**2, p - p**2) / 16
    got = statistics.value_of(Squares(("K", "C")))
    assert_close(got, want, 1e-4, 1e-7)
