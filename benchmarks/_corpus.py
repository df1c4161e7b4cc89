"""Tens of megabytes of real text without a network: the source of what is installed.

The standard library and every package beside it, of which ``pip install -e '.[bench]'`` brings
some fifty. What is there differs from machine to machine, so that each text has a name: losses
compare where the names are equal.
"""

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

#: Bytes at most, of a file (longer ones are mostly tables), and of a package.
LONGEST, OF_A_PACKAGE = 200_000, 6_000_000
VOCABULARIES = {"bytes": 256, "bpe": 16_384}
#: Bytes from which the pairs of bytes are counted.
FOR_PAIRS = 20_000_000


class Corpus(NamedTuple):
    """Text as numbers.

    Attributes:
      name: Its hash.
      training: uint8 or uint16.
      held_out: Of files that ``training`` has nothing of.
      bytes_per_token: Of the held-out text, for losses per byte.
    """

    name: str
    training: np.ndarray
    held_out: np.ndarray
    bytes_per_token: float


def corpus(kind: str, folder: Path, megabytes: float = 48.0) -> Corpus:
    """The text, from a folder where it was kept; made, and kept there, if it was not.

    Args:
      kind: "bytes", or "bpe": pairs of bytes merged until there are 16,384 tokens, which needs the
        package ``tokenizers``.
      folder: Where.
      megabytes: How much text, at most.
    """
    file = folder / f"corpus_{kind}_{megabytes:g}.npz"
    if not file.exists():
        parts = _texts(megabytes)
        name = hashlib.sha256(b"".join(parts)).hexdigest()[:8]
        training, held_out = (_tokens(parts, kind, parts[0]), _tokens(parts, kind, parts[1]))
        folder.mkdir(parents=True, exist_ok=True)
        ratio = len(parts[1]) / len(held_out)
        np.savez_compressed(file, name=name, training=training, held_out=held_out, ratio=ratio)
    with np.load(file) as kept:
        return Corpus(str(kept["name"]), kept["training"], kept["held_out"], float(kept["ratio"]))


def _texts(megabytes: float) -> tuple[bytes, bytes]:
    """To train on, and every tenth file held out; no file twice."""
    found: tuple[list[bytes], list[bytes]] = ([], [])
    seen: set[bytes] = set()
    total = number = 0
    for file in _files():
        text = file.read_bytes()
        digest = hashlib.sha256(text).digest()
        if not 500 < len(text) < LONGEST or digest in seen:
            continue
        seen.add(digest)
        found[number % 10 == 9].append(text)
        number += 1
        total += len(text)
        if total > megabytes * 1e6:
            break
    return b"".join(found[0]), b"".join(found[1])


def _files() -> Iterator[Path]:
    """Of the standard library, and then of each package in turn, in the order of their names."""
    paths = sysconfig.get_paths()
    library, installed = Path(paths["stdlib"]), Path(paths["purelib"])
    yield from sorted(library.glob("*.py"))
    roots = [path for path in library.iterdir() if path.is_dir() and path != installed]
    roots += [path for path in installed.iterdir() if path.is_dir()]
    for root in sorted(root for root in roots if root.name not in ("site-packages", "test")):
        size = 0
        for file in sorted(root.rglob("*.py")):
            size += file.stat().st_size
            if size > OF_A_PACKAGE:
                break
            yield file


def _tokens(parts: tuple[bytes, bytes], kind: str, text: bytes) -> np.ndarray:
    if kind == "bytes":
        return np.frombuffer(text, np.uint8)
    tokenizer = _pairs(parts[0][:FOR_PAIRS].decode(errors="ignore"))
    lines = text.decode(errors="ignore").splitlines(keepends=True)
    pieces = ["".join(lines[i : i + 1000]) for i in range(0, len(lines), 1000)]
    encoded = tokenizer.encode_batch(pieces)  # type: ignore[attr-defined]
    return np.concatenate([np.array(piece.ids, np.uint16) for piece in encoded])


def _pairs(text: str) -> object:
    """A byte-level tokenizer, trained on the text."""
    try:
        from tokenizers import ByteLevelBPETokenizer  # an option: bytes need no package
    except ImportError as error:
        raise SystemExit(
            "The text of the size `base` is in pairs of bytes, which the package tokenizers makes: "
            "`pip install -e '.[gpt]'`, or take the size `medium`, which needs no package."
        ) from error
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        text.splitlines(keepends=True), vocab_size=VOCABULARIES["bpe"], show_progress=False
    )
    return tokenizer
