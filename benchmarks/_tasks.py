"""Small real tasks: a network, its loss, batches, and what a run is judged by."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _gpt import GPT
from _text import VOCABULARY, batches, standard_library_source
from sklearn.datasets import load_digits


class Task(NamedTuple):
    """What to train, on what.

    Attributes:
      name: For tables.
      measure: What ``evaluate`` gives, for people.
      loss_fn: (params, batch) -> mean loss.
      init: key -> params.
      batches: (steps, seed) -> the batches of a run.
      evaluate: params -> loss on fixed data.
      loss_average: For ``find_layers``.
    """

    name: str
    measure: str
    loss_fn: Callable[[Any, Any], jax.Array]
    init: Callable[[jax.Array], Any]
    batches: Callable[[int, int], Iterator[Any]]
    evaluate: Callable[[Any], jax.Array]
    loss_average: str = "batch"


def language_model(batch: int = 16, context: int = 64, **sizes: int) -> Task:
    """A causal transformer on the source text of the CPython standard library."""
    model = GPT(vocabulary=VOCABULARY, context=context, **sizes)
    training, held_out = standard_library_source()
    validation = jnp.asarray(batches(held_out, 128, context, 1, 0)[0])

    def loss_fn(params: Any, tokens: jax.Array) -> jax.Array:
        logits = model.apply({"params": params}, tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    return Task(
        "lm",
        "validation loss (nats a character)",
        loss_fn,
        lambda key: model.init(key, jnp.zeros((batch, context), jnp.int32))["params"],
        lambda steps, seed: iter(jnp.asarray(batches(training, batch, context, steps, seed))),
        jax.jit(lambda params: loss_fn(params, validation)),
        "batch+sequence",
    )


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
    """A vision transformer on 8 x 8 images: 16 patches of 2 x 2."""

    width: int = 64
    blocks: int = 2
    heads: int = 4

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        n = images.shape[0]
        patches = images.reshape(n, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(n, 16, 4)
        x = nn.Dense(self.width, name="patch")(patches)
        x = x + self.param("position", nn.initializers.normal(0.02), (16, self.width))
        for _ in range(self.blocks):
            x = x + nn.MultiHeadDotProductAttention(num_heads=self.heads)(nn.LayerNorm()(x))
            h = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(h)
        return nn.Dense(10, name="head")(nn.LayerNorm()(x).mean(axis=1))


class CNN(nn.Module):
    """Three convolutions and a linear head on 8 x 8 images."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images[..., None]
        for channels, stride in ((16, 1), (32, 2), (32, 2)):
            x = nn.relu(nn.Conv(channels, (3, 3), strides=stride)(x))
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


def autoencoder(batch: int = 512, **sizes: Any) -> Task:
    """Reconstruct the digits; judged by the loss on the training images, as in the literature."""
    images, _, _, _ = digits()
    model = Autoencoder(**sizes)
    flat = images.reshape(len(images), -1)

    def loss_fn(params: Any, x: jax.Array) -> jax.Array:
        logits = model.apply({"params": params}, x)
        return optax.sigmoid_binary_cross_entropy(logits, x).sum(-1).mean()

    return Task(
        "autoencoder",
        "training loss (nats an image)",
        loss_fn,
        lambda key: model.init(key, flat[:1])["params"],
        lambda steps, seed: (flat[i] for i in _draws(len(flat), batch, steps, seed)),
        jax.jit(lambda params: loss_fn(params, flat)),
    )


def classifier(name: str, model: nn.Module, batch: int = 64) -> Task:
    """Classify the digits; judged by the loss on the training images."""
    images, labels, _, _ = digits()

    def loss_fn(params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits = model.apply({"params": params}, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    return Task(
        name,
        "training loss (nats an image)",
        loss_fn,
        lambda key: model.init(key, images[:1])["params"],
        lambda steps, seed: (
            (images[i], labels[i]) for i in _draws(len(images), batch, steps, seed)
        ),
        jax.jit(lambda params: loss_fn(params, (images, labels))),
    )


#: Every task, made when asked for.
TASKS: dict[str, Callable[[], Task]] = {
    "lm": language_model,
    "autoencoder": autoencoder,
    "vit": lambda: classifier("vit", ViT()),
    "cnn": lambda: classifier("cnn", CNN()),
}


def digits() -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Images and labels of scikit-learn's digits: 1500 to train on, then the rest."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = jnp.asarray(bunch.images[order] / 16, jnp.float32)
    labels = jnp.asarray(bunch.target[order], jnp.int32)
    return images[:1500], labels[:1500], images[1500:], labels[1500:]


def _draws(size: int, batch: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, size, batch) for _ in range(steps))
