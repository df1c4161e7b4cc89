"""Sets of the SINGD paper (arXiv 2312.05705, section 4): CIFAR-100, ImageWoof-10, Cora.

They are downloaded when first asked for, into ``SINGD_OPTAX_DATA`` or ~/.cache/singd_optax; so
they are no part of "all", and tests put small archives of the same form there instead.
"""

import io
import os
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
from _data import Split
from _networks import CNN, ViT
from _tasks import Task, classifier, graph_task

ADDRESSES = {
    "cifar100": "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    "imagewoof": "https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-160.tgz",
    "cora": "https://linqs-data.soe.ucsc.edu/public/lbc/cora.tgz",
}


def archive(name: str) -> tarfile.TarFile:
    """The downloaded archive, open."""
    folder = Path(os.environ.get("SINGD_OPTAX_DATA", Path.home() / ".cache" / "singd_optax"))
    file = folder / ADDRESSES[name].rsplit("/", 1)[-1]
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".part")
        urllib.request.urlretrieve(ADDRESSES[name], draft)
        draft.rename(file)
    return tarfile.open(file)


def cifar100() -> Split:
    """Images (n, 32, 32, 3), standardized for each channel, and the 100 fine labels."""
    parts = []
    with archive("cifar100") as tar:
        for name in ("train", "test"):
            member = tar.extractfile(f"cifar-100-binary/{name}.bin")
            assert member is not None
            # A row is the coarse label, the fine label, and the pixels of each channel.
            rows = np.frombuffer(member.read(), np.uint8).reshape(-1, 2 + 3 * 32 * 32)
            images = rows[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            parts += [images, rows[:, 1].astype(np.int32)]
    return _standardized(*parts)


def imagewoof(size: int = 64) -> Split:
    """Images (n, size, size, 3) of ten breeds of dogs, squeezed to squares, and their labels."""
    from PIL import Image

    found: dict[str, list[tuple[np.ndarray, str]]] = {"train": [], "val": []}
    with archive("imagewoof") as tar:
        for member in tar:
            path = Path(member.name)
            if path.suffix.lower() in (".jpeg", ".jpg", ".png"):
                stream = tar.extractfile(member)
                assert stream is not None
                image = Image.open(io.BytesIO(stream.read())).convert("RGB").resize((size, size))
                found[path.parts[-3]].append((np.asarray(image), path.parts[-2]))
    classes = sorted({label for _, label in found["train"]})
    parts = []
    for name in ("train", "val"):
        images, labels = zip(*found[name], strict=True)
        parts += [np.stack(images), np.array([classes.index(label) for label in labels], np.int32)]
    return _standardized(*parts)


def cora(labelled: int = 20, held_out: int = 1000) -> tuple[np.ndarray, np.ndarray, Split]:
    """Papers as nodes: the normalized graph of citations, bags of words, and a split.

    ``labelled`` papers of each class are to be trained on, ``held_out`` others are held out.
    """
    with archive("cora") as tar:
        content, cites = (
            tar.extractfile(f"cora/cora.{end}").read().decode().split("\n")  # type: ignore[union-attr]
            for end in ("content", "cites")
        )
    rows = [line.split() for line in content if line]
    index = {row[0]: i for i, row in enumerate(rows)}
    features = np.array([row[1:-1] for row in rows], np.float32)
    features /= np.maximum(features.sum(1, keepdims=True), 1)
    classes = sorted({row[-1] for row in rows})
    y = np.array([classes.index(row[-1]) for row in rows], np.int32)
    graph = np.eye(len(rows), dtype=np.float32)
    for line in cites:
        ends = [index[name] for name in line.split() if name in index]
        if len(ends) == 2:
            graph[ends[0], ends[1]] = graph[ends[1], ends[0]] = 1
    degree = graph.sum(1) ** -0.5
    order = np.random.default_rng(0).permutation(len(y))
    chosen = np.concatenate([order[y[order] == c][:labelled] for c in range(len(classes))])
    rest = np.setdiff1d(order, chosen, assume_unique=True)[:held_out]
    return graph * degree[:, None] * degree, features, Split(chosen, y[chosen], rest, y[rest])


def _standardized(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> Split:
    x, x_test = (part.astype(np.float32) / 255 for part in (x, x_test))
    mean, deviation = x.mean((0, 1, 2)), x.std((0, 1, 2)) + 1e-6
    return Split((x - mean) / deviation, y, (x_test - mean) / deviation, y_test)


def cifar100_cnn(size: str = "base") -> Task:
    """A CNN in the manner of the paper's VGG, at ``base``; "small" is a narrow one."""
    channels = {"small": (16, 32), "base": (64, 128, 256, 512)}[size]
    steps = {"small": 300, "base": 20_000}[size]
    model = CNN(channels, classes=100)
    return classifier("cifar100", model, cifar100(), batch=128, steps=steps, judge="held-out")


def imagewoof_vit(size: str = "base") -> Task:
    """A vision transformer on patches of 8 x 8."""
    wide = {"small": {}, "base": {"width": 192, "blocks": 6, "heads": 6}}[size]
    steps = {"small": 300, "base": 10_000}[size]
    model = ViT(patch=8, **wide)
    return classifier("imagewoof", model, imagewoof(), batch=128, steps=steps, judge="held-out")


def cora_gcn(size: str = "base") -> Task:
    """The graph convolutional network of arXiv 1609.02907."""
    adjacency, features, split = cora()
    width = {"small": 16, "base": 64}[size]
    classes = int(split.y.max()) + 1
    return graph_task("cora", adjacency, features, split, width, classes, steps=200)


#: Tasks that need a network once; named, never part of "all".
PUBLIC = {"cifar100": cifar100_cnn, "imagewoof": imagewoof_vit, "cora": cora_gcn}
