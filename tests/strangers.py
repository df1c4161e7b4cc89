"""Modules as other libraries have them, written anew and small: none is known to the library."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

import singd_optax

NORMAL = nn.initializers.normal(0.4)
VOCABULARY, WIDTH, HEADS = 20, 8, 2


class Conv1D(nn.Module):
    """As Hugging Face's FlaxGPT2 has it: a dense layer whose kernel is used transposed."""

    features: int
    use_bias: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, inputs):
        inputs = jnp.asarray(inputs, self.dtype)
        kernel = self.param("kernel", NORMAL, (self.features, inputs.shape[-1]))
        kernel = jnp.asarray(kernel.transpose(), self.dtype)
        y = jax.lax.dot_general(inputs, kernel, (((inputs.ndim - 1,), (0,)), ((), ())))
        if self.use_bias:
            bias = self.param("bias", NORMAL, (self.features,))
            y = y + jnp.asarray(bias, self.dtype)
        return y


class Einsum(nn.Module):
    """As the Gemma of Flax's examples and of big_vision has it."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, eqn, x):
        return jnp.einsum(eqn, x, self.param("w", NORMAL, self.shape))


class FeedForward(nn.Module):
    """Likewise."""

    features: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        gating = self.param("gating_einsum", NORMAL, (2, self.features, self.hidden))
        activations = nn.gelu(jnp.dot(x, gating[0])) * jnp.dot(x, gating[1])
        return jnp.dot(activations, self.param("linear", NORMAL, (self.hidden, self.features)))


class Embedder(nn.Module):
    """Likewise."""

    def setup(self):
        self.table = self.param("input_embedding", NORMAL, (VOCABULARY, WIDTH))

    def encode(self, x):
        return self.table[(x,)] * jnp.sqrt(WIDTH)

    def decode(self, x):
        return jnp.dot(x, self.table.T)


class StdConv(nn.Conv):
    """As big_vision's ResNets have it: the kernel is standardized first."""

    def param(self, name, *args, **kwargs):
        value = super().param(name, *args, **kwargs)
        if name != "kernel":
            return value
        return (value - value.mean((0, 1, 2))) / (value.std((0, 1, 2)) + 1e-5)


class GPT2Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        q, k, v = jnp.split(Conv1D(3 * WIDTH, name="c_attn")(y), 3, axis=-1)
        q, k, v = (z.reshape(*z.shape[:-1], HEADS, -1) for z in (q, k, v))
        y = nn.dot_product_attention(q, k, v).reshape(x.shape)
        x = x + Conv1D(WIDTH, name="c_proj")(y)
        y = Conv1D(4 * WIDTH, name="c_fc")(nn.LayerNorm()(x))
        return x + Conv1D(WIDTH, name="mlp_proj")(nn.gelu(y))


class GPT2(nn.Module):
    """As FlaxGPT2LMHeadModel: a head that is applied with the embedding's transpose."""

    def setup(self):
        self.wte = nn.Embed(VOCABULARY, WIDTH, embedding_init=NORMAL)
        self.wpe = nn.Embed(16, WIDTH, embedding_init=NORMAL)
        self.blocks = [GPT2Block() for _ in range(2)]
        self.ln_f = nn.LayerNorm()
        self.lm_head = nn.Dense(VOCABULARY, use_bias=False)

    def __call__(self, tokens):
        x = self.wte(tokens) + self.wpe(jnp.arange(tokens.shape[1])[None])
        for block in self.blocks:
            x = block(x)
        kernel = self.wte.variables["params"]["embedding"].T
        return self.lm_head.apply({"params": {"kernel": kernel}}, self.ln_f(x))


class GemmaBlock(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        y = nn.RMSNorm()(x)
        size = WIDTH // HEADS
        q = Einsum((HEADS, WIDTH, size), name="q_einsum")("BTD,NDH->BTNH", y)
        k, v = Einsum((2, 1, WIDTH, size), name="kv_einsum")("BSD,CKDH->CBSKH", y)
        logits = jnp.einsum("BTNH,BSKH->BTNS", q, k)
        y = jnp.einsum("BTNS,BSKH->BTNH", nn.softmax(logits), v)
        x = x + Einsum((HEADS, size, WIDTH), name="attn_vec_einsum")("BTNH,NHD->BTD", y)
        return x + FeedForward(WIDTH, 4 * WIDTH, name="mlp")(nn.RMSNorm()(x)), None


class Gemma(nn.Module):
    scanned: bool = False

    @nn.compact
    def __call__(self, tokens):
        embedder = Embedder(name="embedder")
        x = embedder.encode(tokens)
        if self.scanned:
            stack = nn.scan(
                nn.remat(GemmaBlock),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=2,
            )
            x, _ = stack(name="layers")(x, None)
        else:
            for i in range(2):
                x, _ = GemmaBlock(name=f"layer_{i}")(x)
        return embedder.decode(nn.RMSNorm(name="final_norm")(x))


class LlamaEinsum(nnx.Module):
    """As tunix's Llama has it."""

    def __init__(self, einsum_str, shape, *, rngs):
        self.einsum_str = einsum_str
        self.w = nnx.Param(NORMAL(rngs.params(), shape))

    def __call__(self, x):
        return jnp.einsum(self.einsum_str, x, self.w[...])


class LlamaFeedForward(nnx.Module):
    """Raw parameters, as many hand-written models have them."""

    def __init__(self, *, rngs):
        self.gate_up = nnx.Param(NORMAL(rngs.params(), (2, WIDTH, 16)))
        self.down = nnx.Param(NORMAL(rngs.params(), (16, WIDTH)))

    def __call__(self, x):
        gate, up = x @ self.gate_up[0], x @ self.gate_up[1]
        return (nnx.silu(gate) * up) @ self.down[...]


class LlamaBlock(nnx.Module):
    def __init__(self, rngs):
        size = WIDTH // HEADS
        self.norms = nnx.List([nnx.RMSNorm(WIDTH, rngs=rngs) for _ in range(2)])
        self.qkv = LlamaEinsum("BTD,SNDH->SBTNH", (3, HEADS, WIDTH, size), rngs=rngs)
        self.o_proj = LlamaEinsum("BTNH,NHD->BTD", (HEADS, size, WIDTH), rngs=rngs)
        self.mlp = LlamaFeedForward(rngs=rngs)

    def __call__(self, x):
        q, k, v = self.qkv(self.norms[0](x))
        x = x + self.o_proj(nnx.dot_product_attention(q, k, v))
        return x + self.mlp(self.norms[1](x))


class Llama(nnx.Module):
    def __init__(self, rngs, scanned=False):
        self.embedder = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.scanned = scanned
        if scanned:
            self.layers = nnx.vmap(LlamaBlock, in_axes=0)(rngs.fork(split=2))
        else:
            self.layers = nnx.List([LlamaBlock(rngs) for _ in range(2)])

    def __call__(self, tokens):
        x = self.embedder(tokens)
        if self.scanned:
            run = nnx.scan(
                nnx.remat(lambda block, x: block(x)), in_axes=(0, nnx.Carry), out_axes=nnx.Carry
            )
            x = run(self.layers, x)
        else:
            for block in self.layers:
                x = block(x)
        return self.embedder.attend(x)


# What a user writes to teach the library these classes.


def gemma_feed_forward(module, x):
    """In place of ``FeedForward.__call__``."""
    gating, linear = (module.get_variable("params", name) for name in ("gating_einsum", "linear"))
    both = jnp.einsum("...d,gdh->g...h", x, gating)
    gate, up = singd_optax.tag(both, x, gating, equation="...d,gdh->g...h")
    activations = nn.gelu(gate) * up
    return singd_optax.tag(activations @ linear, activations, linear)


def gemma_encode(module, x):
    """In place of ``Embedder.encode``."""
    rows = module.table[(x,)]
    rows = singd_optax.tag(rows, x, module.table, like=nn.Embed(VOCABULARY, WIDTH, parent=None))
    return rows * jnp.sqrt(WIDTH)


def llama_feed_forward(module, x):
    """In place of ``LlamaFeedForward.__call__``."""
    gate_up = jnp.einsum("...d,gdh->g...h", x, module.gate_up[...])
    gate, up = singd_optax.tag(gate_up, x, module.gate_up, equation="...d,gdh->g...h")
    x = nnx.silu(gate) * up
    return singd_optax.tag(x @ module.down[...], x, module.down)
