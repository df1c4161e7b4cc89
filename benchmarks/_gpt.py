"""A small decoder-only transformer in Flax Linen."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Block(nn.Module):
    """Pre-norm causal self-attention and MLP."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.LayerNorm()(x)
        q, k, v = (
            nn.Dense(self.width, name=name)(h).reshape(*h.shape[:2], self.heads, -1)
            for name in ("query", "key", "value")
        )
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + nn.Dense(self.width, name="out")(mixed.reshape(h.shape))
        h = nn.gelu(nn.Dense(4 * self.width, name="up")(nn.LayerNorm()(x)))
        return x + nn.Dense(self.width, name="down")(h)


class GPT(nn.Module):
    """Token and position embeddings, blocks, and a linear head over the vocabulary."""

    vocabulary: int = 128
    width: int = 96
    heads: int = 4
    blocks: int = 3
    context: int = 64

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(self.vocabulary, self.width)(tokens)
        x = x + self.param(
            "position", nn.initializers.normal(0.02), (self.context, self.width), jnp.float32
        )
        for i in range(self.blocks):
            x = Block(self.width, self.heads, name=f"block_{i}")(x)
        return nn.Dense(self.vocabulary, name="head")(nn.LayerNorm()(x))
