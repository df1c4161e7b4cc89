"""A model with every kind of structure, stacked and not, and ways to lay it out on a mesh."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import singd_optax
from singd_optax.testing._compile import _OPTIONS, _known_options

WIDTH, HIDDEN, BLOCKS, STEPS = 8, 16, 8, 20

#: Compile fast; the run is short.
QUICK = dict(_known_options((*_OPTIONS.items(), ("xla_llvm_disable_expensive_passes", True))))

#: Name -> sizes of the mesh axes, and how batch and kernels are split: by path, the last axes.
LAYOUTS = {
    "data": ({"data": 8}, {}),
    "fsdp": ({"data": 8}, {"up": P("data", None), "down": P(None, "data")}),
    "tensor": ({"model": 8}, {"up": P(None, "model"), "down": P("model", None)}),
    "data x tensor": (
        {"data": 4, "model": 2},
        {"up": P("data", "model"), "down": P("model", "data")},
    ),
}


def dot(x, kernel, dimensions, **options):
    """What a model for Explicit meshes does: gather what is split for memory, name the result."""
    if jax.sharding.get_abstract_mesh().empty:
        return jax.lax.dot_general(x, kernel, dimensions, **options)
    spec = [None if axis == "data" else axis for axis in jax.typeof(kernel).sharding.spec]
    kernel = jax.sharding.reshard(kernel, P(*spec))
    out = P(*jax.typeof(x).sharding.spec[:-1], spec[-1])
    return jax.lax.dot_general(x, kernel, dimensions, **options, out_sharding=out)


Dense = functools.partial(nn.Dense, dot_general=dot)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        h = Dense(HIDDEN, use_bias=False, name="up")(x)
        h = nn.tanh(h)
        return x + Dense(WIDTH, use_bias=False, name="down")(h), None


class Net(nn.Module):
    """A stack of blocks by scan, and a layer with a bias that is not stacked."""

    @nn.compact
    def __call__(self, x):
        scan = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=BLOCKS
        )
        x, _ = scan(name="blocks")(x, None)
        return Dense(3, name="head")(x)


def loss_fn(params, x, y):
    return jnp.mean((Net().apply({"params": params}, x) - y) ** 2)


@functools.cache
def problem():
    """Parameters, data, and layers with a structure of each kind."""
    x = jax.random.normal(jax.random.key(0), (16, 4, WIDTH))
    y = jnp.sin(x[..., :3] * 3)
    params = jax.device_get(jax.jit(Net().init)(jax.random.key(1), x)["params"])
    layers = singd_optax.find_layers(loss_fn, params, x, y, structures="dense")
    layers = layers.replace("up", structures=("dense", "block_diagonal:4"))
    layers = layers.replace("down", structures=("diagonal", "hierarchical:2,2"))
    return params, (x, y), layers


def make_tx(layers):
    return singd_optax.singd(2.5e-3, layers, refresh_every=3, weight_decay=1e-2)


def make_step(tx, layers, pmean=None):
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    def step(params, state, x, y):
        loss, grads, curvature = grad_fn(params, x, y, opt_state=state)
        if pmean:
            loss, grads = jax.lax.pmean((loss, grads), pmean)
            curvature = singd_optax.training.pmean_curvature(curvature, pmean)
        updates, state = tx.update(grads, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state, loss

    return step


def shardings_of(params, mesh, kernels):
    """Of all parameters: those of some kernels, the rest whole."""

    def sharding(path, leaf):
        spec = next((kernels[k.key] for k in path if k.key in kernels), P())
        if spec and leaf.ndim > len(spec):
            spec = P(*[None] * (leaf.ndim - len(spec)), *spec)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, params)


def make_mesh(sizes, kind, devices=None):
    count = int(np.prod(list(sizes.values())))
    types = (getattr(AxisType, kind),) * len(sizes)
    devices = (devices or jax.devices())[:count]
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices)


def run(step, params, state, batch, steps=STEPS):
    losses = []
    for _ in range(steps):
        params, state, loss = step(params, state, *batch)
        losses.append(float(loss))
    return params, state, losses


@functools.cache
def alone():
    """The trajectory on one device."""
    params, batch, layers = problem()
    return run(step_alone(), params, make_tx(layers).init(params), batch)


@functools.cache
def step_alone():
    layers = problem()[2]
    return jax.jit(make_step(make_tx(layers), layers), compiler_options=QUICK)


class Setup:
    """Layers, shardings and the step on one mesh."""

    def __init__(self, layout, kind="Auto", strategy="rows", sizes=None, pmean=None):
        params, self.batch, layers = problem()
        full, kernels = LAYOUTS[layout]
        self.mesh = make_mesh(dict(sizes or full), kind)
        self.explicit = kind == "Explicit"
        self.shardings = shardings_of(params, self.mesh, kernels)
        if strategy is not None:
            layers = singd_optax.sharding.spread(layers, self.shardings, strategy=strategy)
        self.layers, self.tx = layers, make_tx(layers)
        self.of_state = singd_optax.sharding.state_shardings(
            self.tx.init, params, self.shardings, layers
        )
        self.of_batch = NamedSharding(self.mesh, P("data" if "data" in full else None))
        self.step = jax.jit(
            make_step(self.tx, layers),
            out_shardings=(self.shardings, self.of_state, NamedSharding(self.mesh, P())),
            donate_argnums=(0, 1),
            compiler_options=QUICK,
        )

    def context(self):
        return jax.set_mesh(self.mesh) if self.explicit else contextlib.nullcontext()

    def start(self):
        """Parameters and state, where they are to be."""
        params = jax.device_put(problem()[0], self.shardings)
        return params, jax.jit(self.tx.init, out_shardings=self.of_state)(params)

    def run(self, params, state, steps=STEPS):
        return run(self.step, params, state, jax.device_put(self.batch, self.of_batch), steps)


@functools.cache
def setup(*arguments):
    return Setup(*arguments)


def difference(got, want):
    """The largest difference of two trees, beside the largest entry of each array."""
    leaves = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return max(
        float(np.max(np.abs(np.asarray(a) - np.asarray(b))) / (np.max(np.abs(b)) + 1e-8))
        for a, b in leaves
        if np.asarray(a).dtype.kind == "f"
    )
