"""The networks of the tasks; see ``_gpt`` for the transformer."""

import flax.linen as nn
import jax


class Autoencoder(nn.Module):
    """A deep autoencoder with a narrow middle, tanh between all layers."""

    widths: tuple[int, ...] = (256, 128, 64, 16, 64, 128, 256)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        outputs = x.shape[-1]
        for width in self.widths:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(outputs)(x)


class ViT(nn.Module):
    """A vision transformer on small images, in patches, with the mean of all tokens at the end."""

    width: int = 64
    blocks: int = 2
    heads: int = 4
    patch: int = 2
    classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        n, height, width, channels = images.shape
        p, rows, columns = self.patch, height // self.patch, width // self.patch
        x = images.reshape(n, rows, p, columns, p, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, rows * columns, p * p * channels)
        x = nn.Dense(self.width, name="patch")(x)
        position = self.param("position", nn.initializers.normal(0.02), x.shape[1:])
        x = x + position.astype(x.dtype)
        for _ in range(self.blocks):
            x = x + nn.MultiHeadDotProductAttention(num_heads=self.heads)(nn.LayerNorm()(x))
            h = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(h)
        return nn.Dense(self.classes, name="head")(nn.LayerNorm()(x).mean(axis=1))


class CNN(nn.Module):
    """Convolutions, of which all but the first halve the image, and a linear head."""

    channels: tuple[int, ...] = (16, 32, 32)
    classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        for i, channels in enumerate(self.channels):
            x = nn.relu(nn.Conv(channels, (3, 3), strides=min(i + 1, 2))(x))
        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1))


class GCN(nn.Module):
    """Two graph convolutions, A relu(A X W) W (arXiv 1609.02907)."""

    width: int = 32
    classes: int = 10

    @nn.compact
    def __call__(self, adjacency: jax.Array, x: jax.Array) -> jax.Array:
        h = nn.relu(adjacency @ nn.Dense(self.width, name="hidden")(x))
        return adjacency @ nn.Dense(self.classes, name="out")(h)


class Recurrent(nn.Module):
    """Characters, embedded, through an LSTM; the last state is classified."""

    vocabulary: int
    classes: int
    width: int = 48

    @nn.compact
    def __call__(self, codes: jax.Array) -> jax.Array:
        x = nn.Embed(self.vocabulary, 16)(codes)
        x = nn.RNN(nn.LSTMCell(self.width, name="cell"), name="lstm")(x)
        return nn.Dense(self.classes, name="head")(x[:, -1])


class MLP(nn.Module):
    """For tables of numbers."""

    widths: tuple[int, ...] = (64, 64)
    classes: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.widths:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)
