"""Architectures as Flax users write them, at a size for tests. A new one is one more entry."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import singd_optax

WIDTH, CLASSES, BATCH, LENGTH, VOCABULARY = 8, 3, 6, 5, 11


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model and what is to be found in it.

    Attributes:
      model: The module.
      loss: ``loss(apply, batch)`` -> (value, mutated), with ``apply(*args, **kwargs)`` -> outputs
        and mutated collections.
      batch: A dict of arrays.
      inputs: Of ``model.init``, from the batch.
      kinds: Path -> kind, for every layer.
      others: Part of a path -> part of the reason, for parameters of rank >= 2 in no layer.
      options: Of ``find_layers``.
    """

    model: nn.Module
    loss: Callable[..., Any]
    batch: dict[str, Any]
    inputs: Callable[[dict[str, Any]], tuple[Any, ...]]
    kinds: dict[str, str]
    others: dict[str, str] = dataclasses.field(default_factory=dict)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def images(size=8, channels=2):
    x = jax.random.normal(jax.random.key(0), (BATCH, size, size, channels))
    return {"x": x, "y": jnp.arange(BATCH) % CLASSES}


def tokens(length=LENGTH):
    ids = jax.random.randint(jax.random.key(0), (BATCH, length + 1), 0, VOCABULARY)
    return {"x": ids[:, :-1], "y": ids[:, 1:]}


def classify(apply, batch):
    logits, mutated = apply(batch["x"])
    return cross_entropy(logits, batch["y"]), mutated


def with_dropout(apply, batch):
    logits, mutated = apply(batch["x"], rngs={"dropout": jax.random.key(0)})
    return cross_entropy(logits, batch["y"]), mutated


def of_x(batch):
    return (batch["x"],)


class ResNetBlock(nn.Module):
    features: int
    strides: int

    @nn.compact
    def __call__(self, x):
        norm = lambda name: nn.BatchNorm(use_running_average=False, name=name)
        y = nn.Conv(self.features, (3, 3), self.strides, use_bias=False, name="conv1")(x)
        y = nn.relu(norm("norm1")(y))
        y = norm("norm2")(nn.Conv(self.features, (3, 3), use_bias=False, name="conv2")(y))
        if x.shape != y.shape:
            x = nn.Conv(self.features, (1, 1), self.strides, use_bias=False, name="shortcut")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding="SAME", name="stem")(x)
        x = ResNetBlock(4, 1, name="block1")(x)
        x = ResNetBlock(WIDTH, 2, name="block2")(x)
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


class EncoderBlock(nn.Module):
    causal: bool = False

    @nn.compact
    def __call__(self, x, mask=None):
        h = nn.LayerNorm()(x)
        if self.causal:
            mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(h, mask=mask)
        h = nn.gelu(nn.Dense(2 * WIDTH, name="up")(nn.LayerNorm()(x)))
        return x + nn.Dense(WIDTH, name="down")(h)


ATTENTION = {f"attention/{name}": "dense_general" for name in ("query", "key", "value", "out")}
BLOCK = {**ATTENTION, "up": "dense", "down": "dense"}


def under(prefix, kinds):
    return {f"{prefix}/{path}": kind for path, kind in kinds.items()}


class ViT(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(WIDTH, (4, 4), (4, 4), padding="VALID", name="patches")(x)
        x = x.reshape(x.shape[0], -1, WIDTH)
        token = self.param("token", nn.initializers.zeros, (1, 1, WIDTH))
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], axis=1)
        x = x + self.param("position", nn.initializers.normal(0.02), (1, x.shape[1], WIDTH))
        x = nn.Dropout(0.1, deterministic=False)(x)
        x = EncoderBlock(name="block")(x)
        return nn.Dense(CLASSES, name="head")(nn.LayerNorm()(x[:, 0]))


class ScannedBlock(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return EncoderBlock(causal=True, name="block")(x), None


class GPT(nn.Module):
    """Tied embeddings, and a scan over rematerialized blocks."""

    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(VOCABULARY, WIDTH, name="embed")
        x = embed(ids) + nn.Embed(LENGTH, WIDTH, name="position")(jnp.arange(LENGTH))
        blocks = nn.scan(
            nn.remat(ScannedBlock),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=2,
        )
        x, _ = blocks(name="blocks")(x, None)
        return embed.attend(nn.LayerNorm()(x))


class EncoderDecoder(nn.Module):
    """Padded sources: keys are masked, and their positions do not count in the encoder."""

    @nn.compact
    def __call__(self, source, present, target):
        embed = nn.Embed(VOCABULARY, WIDTH, name="embed")
        mask = nn.make_attention_mask(present, present)
        with singd_optax.position_weights(present):
            memory = EncoderBlock(name="encoder")(embed(source), mask)
        x = EncoderBlock(causal=True, name="decoder")(embed(target))
        cross = nn.MultiHeadDotProductAttention(2, name="cross")
        with singd_optax.position_weights():
            x = x + cross(x, memory, mask=nn.make_attention_mask(jnp.ones(x.shape[:2]), present))
        return nn.Dense(VOCABULARY, name="head")(x)


def translate(apply, batch):
    logits, mutated = apply(batch["source"], batch["present"], batch["x"])
    return cross_entropy(logits, batch["y"]), mutated


def sources():
    lengths = jnp.array([7, 3, 5, 7, 1, 2])
    ids = jax.random.randint(jax.random.key(1), (BATCH, 7), 0, VOCABULARY)
    return {**tokens(), "source": ids, "present": jnp.arange(7) < lengths[:, None]}


class Mixer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(WIDTH, (4, 4), (4, 4), name="patches")(x)
        x = x.reshape(x.shape[0], -1, WIDTH)
        y = jnp.swapaxes(nn.LayerNorm()(x), 1, 2)
        y = nn.Dense(x.shape[1], name="tokens2")(nn.gelu(nn.Dense(6, name="tokens1")(y)))
        x = x + jnp.swapaxes(y, 1, 2)
        y = nn.gelu(nn.Dense(2 * WIDTH, name="channels1")(nn.LayerNorm()(x)))
        x = x + nn.Dense(WIDTH, name="channels2")(y)
        return nn.Dense(CLASSES, name="head")(x.mean(1))


class ConvNeXt(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(WIDTH, (2, 2), (2, 2), name="stem")(x)
        y = nn.Conv(WIDTH, (5, 5), feature_group_count=WIDTH, name="depthwise")(x)
        y = nn.gelu(nn.Dense(2 * WIDTH, name="up")(nn.LayerNorm()(y)))
        scale = self.param("layer_scale", nn.initializers.constant(0.1), (WIDTH,))
        x = x + scale * nn.Dense(WIDTH, name="down")(y)
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


class GCN(nn.Module):
    """Messages over edges, summed at the nodes; padding nodes and edges do not count."""

    @nn.compact
    def __call__(self, graph):
        h = nn.relu(nn.Dense(WIDTH, name="nodes")(graph["x"]))
        ends = jnp.concatenate([h[graph["from"]], h[graph["to"]]], axis=-1)
        messages = nn.relu(nn.Dense(WIDTH, name="edges")(ends)) * graph["edge"][:, None]
        h = h + jax.ops.segment_sum(messages, graph["to"], h.shape[0])
        return nn.Dense(CLASSES, name="head")(h)


def on_nodes(apply, batch):
    with singd_optax.position_weights(batch["node"], batch["edge"]):
        logits, mutated = apply(batch)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
    return jnp.sum(losses * batch["node"]) / jnp.sum(batch["node"]), mutated


def graphs():
    nodes, edges = 12, 20
    ends = jax.random.randint(jax.random.key(2), (2, edges), 0, 9)
    return {
        "x": jax.random.normal(jax.random.key(0), (nodes, 4)),
        "y": jnp.arange(nodes) % CLASSES,
        "from": ends[0],
        "to": ends[1],
        "node": (jnp.arange(nodes) < 9).astype(float),
        "edge": (jnp.arange(edges) < 16).astype(float),
    }


class TextClassifier(nn.Module):
    """One cell built of Dense, and one that fuses its kernels."""

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(VOCABULARY, WIDTH, name="embed")(ids)
        x = nn.RNN(nn.LSTMCell(4, name="cell"), name="lstm")(x)
        x = nn.RNN(nn.OptimizedLSTMCell(4, name="fused"), name="rnn")(x)
        return nn.Dense(CLASSES, name="head")(x[:, -1])


class UNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        down = nn.relu(nn.Conv(4, (3, 3), 2, name="down")(x))
        up = nn.relu(nn.ConvTranspose(4, (2, 2), (2, 2), name="up")(down))
        return nn.Conv(x.shape[-1], (1, 1), name="out")(jnp.concatenate([up, x], axis=-1))


def reconstruct(apply, batch):
    output, mutated = apply(batch["x"])
    return jnp.mean(jnp.sum((output - batch["x"]) ** 2, axis=(1, 2, 3))), mutated


ARCHITECTURES = {
    "resnet": Architecture(
        ResNet(),
        classify,
        images(),
        of_x,
        {
            "stem": "conv",
            **under("block1", {"conv1": "conv", "conv2": "conv"}),
            **under("block2", {"conv1": "conv", "conv2": "conv", "shortcut": "conv"}),
            "head": "dense",
        },
        options={"kfac_approx": "reduce"},
    ),
    "vit": Architecture(
        ViT(),
        with_dropout,
        images(),
        of_x,
        {"patches": "conv", **under("block", BLOCK), "head": "dense"},
        {"token": "ViT", "position": "ViT"},
    ),
    "gpt": Architecture(
        GPT(),
        classify,
        tokens(),
        of_x,
        {"embed": "embed", "position": "embed", **under("blocks/block", BLOCK)},
        {"LayerNorm": "LayerNorm"},  # stacked by scan
        options={"loss_average": "batch+sequence"},
    ),
    "encoder_decoder": Architecture(
        EncoderDecoder(),
        translate,
        sources(),
        lambda batch: (batch["source"], batch["present"], batch["x"]),
        {
            "embed": "embed",
            **under("encoder", BLOCK),
            **under("decoder", BLOCK),
            **{path.replace("attention", "cross"): kind for path, kind in ATTENTION.items()},
            "head": "dense",
        },
        options={"loss_average": "batch+sequence"},
    ),
    "mixer": Architecture(
        Mixer(),
        classify,
        images(),
        of_x,
        {
            "patches": "conv",
            **dict.fromkeys(("tokens1", "tokens2", "channels1", "channels2", "head"), "dense"),
        },
    ),
    "convnext": Architecture(
        ConvNeXt(),
        classify,
        images(),
        of_x,
        {
            "stem": "conv",
            "depthwise": "conv",
            **dict.fromkeys(("up", "down", "head"), "dense"),
        },
        options={"structures": ("block_diagonal:16", "dense")},
    ),
    "gcn": Architecture(
        GCN(),
        on_nodes,
        graphs(),
        lambda batch: (batch,),
        dict.fromkeys(("nodes", "edges", "head"), "dense"),
    ),
    "lstm": Architecture(
        TextClassifier(),
        classify,
        {**tokens(), "y": jnp.arange(BATCH) % CLASSES},
        of_x,
        {
            "embed": "embed",
            **under("cell", dict.fromkeys([a + b for a in "ih" for b in "ifgo"], "dense")),
            "head": "dense",
        },
        {"fused/": "DenseParams"},
    ),
    "unet": Architecture(
        UNet(),
        reconstruct,
        images(),
        of_x,
        {"down": "conv", "up": "conv_transpose", "out": "conv"},
        options={"structures": "diagonal"},
    ),
}
