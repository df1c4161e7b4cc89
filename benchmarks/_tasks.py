"""Small real tasks: a network, its loss, batches, and what a run is judged by.

A new one is one more entry of ``TASKS``.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _data import PACKAGES, Split, digits, digits_graph, lines, table
from _gpt import GPT
from _networks import CNN, GCN, MLP, Autoencoder, Recurrent, ViT
from _text import VOCABULARY, batches, standard_library_source

import singd_optax


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
      steps: Of a run of this size.
      accuracy: params -> share of held-out examples that are told right; None without classes.
    """

    name: str
    measure: str
    loss_fn: Callable[[Any, Any], jax.Array]
    init: Callable[[jax.Array], Any]
    batches: Callable[[int, int], Iterator[Any]]
    evaluate: Callable[[Any], jax.Array]
    loss_average: str = "batch"
    steps: int = 300
    accuracy: Callable[[Any], jax.Array] | None = None

    def cast(self, dtype: str) -> "Task":
        """The task with parameters of another dtype, in which its network then computes."""
        if dtype == "float32":
            return self

        def init(key: jax.Array) -> Any:
            return jax.tree.map(lambda leaf: leaf.astype(dtype), self.init(key))

        return self._replace(init=init)


def language_model(
    size: str = "small",
    batch: int = 16,
    context: int = 64,
    steps: int | None = None,
    **network: int,
) -> Task:
    """A causal transformer on the source text of the CPython standard library.

    ``network`` changes single sizes of ``GPT``.
    """
    sizes = {"small": {}, "base": {"width": 384, "heads": 6, "blocks": 6}}[size]
    if size == "base":
        batch, context = 64, 256
    model = GPT(vocabulary=VOCABULARY, context=context, **sizes | network)
    training, held_out = standard_library_source()
    validation = jnp.asarray(batches(held_out, 128, context, 1, 0)[0])

    def loss_fn(params: Any, tokens: jax.Array) -> jax.Array:
        logits = model.apply({"params": params}, tokens[:, :-1]).astype(jnp.float32)
        logits = singd_optax.tag_distribution(logits)
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    return Task(
        "lm",
        "held-out loss (nats a character)",
        loss_fn,
        lambda key: model.init(key, jnp.zeros((batch, context), jnp.int32))["params"],
        lambda steps, seed: iter(jnp.asarray(batches(training, batch, context, steps, seed))),
        jax.jit(lambda params: loss_fn(params, validation)),
        "batch+sequence",
        steps or {"small": 300, "base": 5000}[size],
    )


def autoencoder(size: str = "small", batch: int = 512) -> Task:
    """Reconstruct the digits; judged by the loss on the training images, as in the literature."""
    widths = {"small": {}, "base": {"widths": (1024, 512, 256, 32, 256, 512, 1024)}}[size]
    model = Autoencoder(**widths)
    images = digits().x
    flat = jnp.asarray(images.reshape(len(images), -1))

    def loss_fn(params: Any, x: jax.Array) -> jax.Array:
        logits = model.apply({"params": params}, _like(params, x)).astype(jnp.float32)
        logits = singd_optax.tag_distribution(logits, "bernoulli")
        return optax.sigmoid_binary_cross_entropy(logits, x).sum(-1).mean()

    return Task(
        "autoencoder",
        "training loss (nats an image)",
        loss_fn,
        lambda key: model.init(key, flat[:1])["params"],
        lambda steps, seed: (flat[i] for i in _draws(len(flat), batch, steps, seed)),
        jax.jit(lambda params: loss_fn(params, flat)),
        steps={"small": 600, "base": 5000}[size],
    )


def classifier(
    name: str,
    model: nn.Module,
    data: Split,
    *,
    batch: int = 64,
    steps: int = 300,
    judge: str = "training",
) -> Task:
    """Classify; judged by the loss on all training or all held-out examples, and the accuracy."""
    x, y, x_held_out, y_held_out = (jnp.asarray(part) for part in data)

    def logits_of(params: Any, x: jax.Array) -> jax.Array:
        return model.apply({"params": params}, _like(params, x)).astype(jnp.float32)

    def loss_fn(params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits = singd_optax.tag_distribution(logits_of(params, batch[0]))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    judged = {"training": (x, y), "held-out": (x_held_out, y_held_out)}[judge]
    return Task(
        name,
        f"{judge} loss (nats)",
        loss_fn,
        lambda key: model.init(key, x[:1])["params"],
        lambda steps, seed: ((x[i], y[i]) for i in _draws(len(x), batch, steps, seed)),
        jax.jit(lambda params: loss_fn(params, judged)),
        steps=steps,
        accuracy=jax.jit(lambda p: (logits_of(p, x_held_out).argmax(-1) == y_held_out).mean()),
    )


def graph_task(
    name: str,
    adjacency: np.ndarray,
    features: np.ndarray,
    split: Split,
    width: int,
    classes: int,
    steps: int = 200,
) -> Task:
    """Semi-supervised: some labels, and the graph of all; ``split.x`` are indices of nodes."""
    train, y, rest, y_rest = split
    adjacency, data = jnp.asarray(adjacency), jnp.asarray(features)
    model = GCN(width, classes)

    def logits_of(params: Any) -> jax.Array:
        graph, nodes = _like(params, adjacency), _like(params, data)
        return model.apply({"params": params}, graph, nodes).astype(jnp.float32)

    def loss_at(params: Any, nodes: Any, labels: Any) -> jax.Array:
        logits = logits_of(params)[nodes]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return Task(
        name,
        "held-out loss (nats)",
        lambda params, batch: loss_at(params, *batch),
        lambda key: model.init(key, adjacency, data)["params"],
        lambda steps, seed: (
            (jnp.asarray(train[i]), jnp.asarray(y[i])) for i in _draws(len(train), 50, steps, seed)
        ),
        jax.jit(lambda params: loss_at(params, rest, y_rest)),
        steps=steps,
        accuracy=jax.jit(lambda params: (logits_of(params)[rest].argmax(-1) == y_rest).mean()),
    )


def _gcn(size: str = "small") -> Task:
    adjacency, pixels, split = digits_graph()
    return graph_task("gcn", adjacency, pixels, split, {"small": 32, "base": 128}[size], 10)


def _vit(size: str = "small") -> Task:
    wide = {"small": {}, "base": {"width": 192, "blocks": 6}}[size]
    return classifier("vit", ViT(**wide), digits(), steps={"small": 300, "base": 3000}[size])


def _cnn(size: str = "small") -> Task:
    wide = {"small": {}, "base": {"channels": (64, 128, 256)}}[size]
    return classifier("cnn", CNN(**wide), digits(), steps={"small": 300, "base": 3000}[size])


def _lstm(size: str = "small") -> Task:
    model = Recurrent(VOCABULARY, len(PACKAGES), width={"small": 48, "base": 256}[size])
    steps = {"small": 300, "base": 3000}[size]
    return classifier("lstm", model, lines(), steps=steps, judge="held-out")


def _tabular(name: str, size: str = "small") -> Task:
    model = MLP(classes={"wine": 3, "breast_cancer": 2}[name])
    steps = {"small": 200, "base": 2000}[size]
    return classifier(name, model, table(name), batch=32, steps=steps, judge="held-out")


#: Every task, made when asked for with a size, "small" (minutes on a CPU) or "base".
TASKS: dict[str, Callable[..., Task]] = {
    "lm": language_model,
    "autoencoder": autoencoder,
    "vit": _vit,
    "cnn": _cnn,
    "gcn": _gcn,
    "lstm": _lstm,
    "breast_cancer": functools.partial(_tabular, "breast_cancer"),
    "wine": functools.partial(_tabular, "wine"),
}


def _like(params: Any, x: jax.Array) -> jax.Array:
    """Numbers in the dtype of the parameters; whole numbers as they are."""
    dtype = jax.tree.leaves(params)[0].dtype
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _draws(size: int, batch: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, size, batch) for _ in range(steps))
