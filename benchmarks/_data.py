"""Real data without a network: scikit-learn's own sets, and the standard library's source."""

import sysconfig
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _text import VOCABULARY
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.neighbors import kneighbors_graph

#: Which of them a line is from: packages of the standard library with much source.
PACKAGES = ("asyncio", "email", "encodings", "multiprocessing", "unittest", "xml")


class Split(NamedTuple):
    """Examples to train on, and held out; labels are int32."""

    x: np.ndarray
    y: np.ndarray
    x_held_out: np.ndarray
    y_held_out: np.ndarray


def digits() -> Split:
    """Images (n, 8, 8, 1) in [0, 1] and labels of the digits: 1500 to train on, then the rest."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = (bunch.images[order, :, :, None] / 16).astype(np.float32)
    labels = bunch.target[order].astype(np.int32)
    return Split(images[:1500], labels[:1500], images[1500:], labels[1500:])


def digits_graph(neighbours: int = 8, labelled: int = 10) -> tuple[np.ndarray, np.ndarray, Split]:
    """The digits as nodes: D^-1/2 (A + I) D^-1/2 of nearest neighbours, pixels, and a split.

    ``labelled`` nodes of each class are to be trained on, all others are held out; ``x`` of the
    split are indices of nodes.
    """
    bunch = load_digits()
    graph = kneighbors_graph(bunch.data, neighbours).toarray()
    graph = np.maximum(graph, graph.T) + np.eye(len(graph))
    degree = graph.sum(1) ** -0.5
    order = np.random.default_rng(0).permutation(len(bunch.target))
    chosen = np.concatenate([order[bunch.target[order] == c][:labelled] for c in range(10)])
    rest = np.setdiff1d(order, chosen)
    y = bunch.target.astype(np.int32)
    adjacency = (graph * degree[:, None] * degree).astype(np.float32)
    pixels = (bunch.data / 16).astype(np.float32)
    return adjacency, pixels, Split(chosen, y[chosen], rest, y[rest])


def table(name: str) -> Split:
    """ "wine" or "breast_cancer", standardized; every fourth row is held out."""
    bunch = {"wine": load_wine, "breast_cancer": load_breast_cancer}[name]()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    x = ((bunch.data - bunch.data.mean(0)) / bunch.data.std(0))[order].astype(np.float32)
    y = bunch.target[order].astype(np.int32)
    held_out = np.arange(len(y)) % 4 == 3
    return Split(x[~held_out], y[~held_out], x[held_out], y[held_out])


def lines(length: int = 32, of_each: int = 1500) -> Split:
    """Lines of Python source as character codes, and the package that each one is from.

    Every fourth file is held out.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    rng = np.random.default_rng(0)
    parts: dict[bool, list[tuple[np.ndarray, int]]] = {False: [], True: []}
    for label, package in enumerate(PACKAGES):
        for held_out in (False, True):
            found = []
            for number, file in enumerate(sorted((folder / package).rglob("*.py"))):
                if (number % 4 == 3) == held_out:
                    for line in file.read_text(errors="ignore").splitlines():
                        text = line.strip()
                        if len(text) >= length // 2:
                            found.append(text[:length].ljust(length))
            codes = np.array([[ord(c) for c in text] for text in found], np.int32)
            codes = np.where(codes < VOCABULARY, codes, 0)
            wanted = of_each // 3 if held_out else of_each
            chosen = rng.permutation(len(codes))[:wanted]
            parts[held_out] += [(code, label) for code in codes[chosen]]
    arrays = []
    for held_out in (False, True):
        codes, labels = zip(*parts[held_out], strict=True)
        arrays += [np.stack(codes), np.array(labels, np.int32)]
    return Split(*arrays)
