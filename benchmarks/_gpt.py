"""A small decoder-only transformer in Flax Linen."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Block(nn.Module):
    """Pre-norm causal self-attention and MLP."""

    width: int
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.LayerNorm(dtype=self.dtype)(x)
        q, k, v = (
            nn.Dense(self.width, dtype=self.dtype, name=name)(h).reshape(
                *h.shape[:2], self.heads, -1
            )
            for name in ("query", "key", "value")
        )
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + nn.Dense(self.width, dtype=self.dtype, name="out")(mixed.reshape(h.shape))
        h = nn.LayerNorm(dtype=self.dtype)(x)
        h = nn.gelu(nn.Dense(4 * self.width, dtype=self.dtype, name="up")(h))
        return x + nn.Dense(self.width, dtype=self.dtype, name="down")(h)


class GPT(nn.Module):
    """Token and position embeddings, blocks, and a linear head over the vocabulary.

    Parameters are float32, and what is computed with them is of ``dtype``.
    """

    vocabulary: int = 128
    width: int = 96
    heads: int = 4
    blocks: int = 3
    context: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(self.vocabulary, self.width, dtype=self.dtype)(tokens)
        position = self.param(
            "position", nn.initializers.normal(0.02), (self.context, self.width), jnp.float32
        )
        x = x + position.astype(self.dtype)
        for i in range(self.blocks):
            x = Block(self.width, self.heads, self.dtype, name=f"block_{i}")(x)
        x = nn.LayerNorm(dtype=self.dtype)(x)
        return nn.Dense(self.vocabulary, dtype=self.dtype, name="head")(x)
