"""A GPT by scan over layers in bfloat16, and how it is laid out on a mesh."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import singd_optax
from singd_optax.optimizers import SOAP, KLShampoo, Shampoo


@dataclasses.dataclass(frozen=True)
class Size:
    """A model: its name, and its sizes."""

    name: str
    layers: int
    width: int
    heads: int
    context: int = 1024
    vocabulary: int = 50304


SIZES = {
    size.name: size
    for size in (
        Size("124M", 12, 768, 12),
        Size("1.3B", 24, 2048, 16),
        Size("7B", 32, 4096, 32),
        Size("4x768", 4, 768, 12),
        Size("tiny", 8, 64, 4, 64, 256),
    )
}


class Block(nn.Module):
    """Pre-norm causal self-attention and MLP, without biases, computing in bfloat16."""

    width: int
    heads: int
    split: NamedSharding | None = None

    @nn.compact
    def __call__(self, x, _):
        def dense(features, name):
            return nn.Dense(features, use_bias=False, dtype=jnp.bfloat16, name=name)

        h = nn.LayerNorm(use_bias=False, dtype=jnp.bfloat16)(x)
        q, k, v = (
            dense(self.width, name)(h).reshape(*h.shape[:2], self.heads, -1)
            for name in ("query", "key", "value")
        )
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + dense(self.width, "out")(mixed.reshape(h.shape))
        h = nn.LayerNorm(use_bias=False, dtype=jnp.bfloat16)(x)
        x = x + dense(self.width, "down")(nn.gelu(dense(4 * self.width, "up")(h)))
        return constrained(x, self.split), None


class GPT(nn.Module):
    """Token and position embeddings, a scan over remat blocks, and a linear head."""

    size: Size
    split: NamedSharding | None = None

    @nn.compact
    def __call__(self, tokens):
        size = self.size
        x = nn.Embed(size.vocabulary, size.width, dtype=jnp.bfloat16, name="embed")(tokens)
        position = self.param(
            "position", nn.initializers.normal(0.02), (size.context, size.width), jnp.float32
        )
        x = constrained(x + position.astype(x.dtype), self.split)
        block = nn.remat(Block, prevent_cse=False)
        blocks = nn.scan(
            block, variable_axes={"params": 0}, split_rngs={"params": True}, length=size.layers
        )
        x, _ = blocks(size.width, size.heads, self.split, name="blocks")(x, None)
        x = nn.LayerNorm(use_bias=False, dtype=jnp.bfloat16)(x)
        head = nn.Dense(size.vocabulary, use_bias=False, dtype=jnp.bfloat16, name="head")
        return constrained(head(x), self.split, last="model")


def constrained(x, split, last=None):
    """Activations with their batch split as the data; the last axis over "model" too, if asked."""
    if split is None:
        return x
    batch = split.spec[0]
    last = last if last in split.mesh.axis_names and last not in batch else None
    return jax.lax.with_sharding_constraint(x, NamedSharding(split.mesh, P(batch, None, last)))


def make_loss(size, split=None):
    def loss_fn(params, tokens):
        logits = GPT(size, split).apply({"params": params}, tokens[:, :-1]).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    return loss_fn


def abstract(size, batch):
    """Shapes of parameters and tokens."""
    tokens = jax.ShapeDtypeStruct((batch, size.context + 1), jnp.int32)
    inputs = jax.ShapeDtypeStruct((batch, size.context), jnp.int32)
    params = jax.eval_shape(GPT(size).init, jax.random.key(0), inputs)["params"]
    return params, tokens


def parameter_shardings(params, mesh, layout):
    """Fully sharded ("fsdp"), or split as Megatron does and fully sharded over the rest."""
    names = mesh.axis_names
    everything = tuple(reversed(names))  # last what divides the stack: one move brings it there
    data = tuple(name for name in names if name != "model")
    column = ("query", "key", "value", "up", "head")
    row = ("out", "down", "embed")

    def sharding(path, leaf):
        keys = [key.key for key in path]
        if leaf.ndim < 2 or keys[-1] == "scale":
            return NamedSharding(mesh, P())
        if layout == "data":
            return NamedSharding(mesh, P())
        if layout == "tensor" and any(key in keys for key in column):
            spec = (data, "model")
        elif layout == "tensor" and any(key in keys for key in row):
            spec = ("model", data)
        elif "head" in keys or "up" in keys:
            spec = (everything, None)
        else:
            spec = (None, everything)
        return NamedSharding(mesh, P(*(None,) * (leaf.ndim - len(spec)), *spec))

    return jax.tree_util.tree_map_with_path(sharding, params)


def batch_sharding(mesh, layout):
    axes = tuple(name for name in mesh.axis_names if name != "model" or layout != "tensor")
    return NamedSharding(mesh, P(axes))


#: Of optimizers that need gradients only.
RULES = {"soap": SOAP, "kl_shampoo": KLShampoo, "shampoo": Shampoo}


def matrices(params, structures):
    """Those of the blocks, as stacks; embeddings and head are left out."""
    axes = {"blocks/.*kernel": ((1,), (2,)), ".*": None}
    return singd_optax.find_matrices(params, structures=structures, matrix_axes=axes)


def plain_step(loss_fn, tx, **static):
    """The step of what needs gradients only."""

    def step(params, state, tokens):
        loss, grads = jax.value_and_grad(loss_fn)(params, tokens)
        updates, state = tx.update(grads, state, params, **static)
        return optax.apply_updates(params, updates), state, loss

    return step


def singd_step(loss_fn, tx, layers, refresh):
    """The step with the flag known, so that the compiler sees one side of each branch."""
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    def step(params, state, tokens):
        flag = jnp.full((), refresh, jnp.int32)
        state = jax.tree.map(
            lambda node: node._replace(refresh_due=flag) if is_state(node) else node,
            state,
            is_leaf=is_state,
        )
        loss, grads, curvature = grad_fn(params, tokens, opt_state=state)
        updates, state = tx.update(grads, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state, loss

    return step


def is_state(node):
    return isinstance(node, singd_optax.layers.RuleState)


def compiled(step, params, state, tokens, shardings, of_state, of_tokens, options=None):
    """The compiled step, for devices that need not be there."""
    trees, places = (params, state, tokens), (shardings, of_state, of_tokens)
    outputs = (shardings, of_state, NamedSharding(of_tokens.mesh, P()))
    return compiled_with(step, trees, places, outputs, options)


def compiled_with(function, trees, places, outputs, options=None):
    """The compiled function of these arguments, of which the first two are donated."""

    def with_sharding(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    arguments = [
        jax.tree.map(with_sharding, tree, split) for tree, split in zip(trees, places, strict=True)
    ]
    jitted = jax.jit(function, out_shardings=outputs, donate_argnums=(0, 1))
    return jitted.lower(*arguments).compile(options)
