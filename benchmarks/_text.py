"""Real text without a network: the CPython standard library's own source."""

import sysconfig
from pathlib import Path

import numpy as np

VOCABULARY = 128  # ASCII; everything else becomes 0


def standard_library_source(megabytes: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation text as arrays of character codes.

    Every tenth module is held out, so that validation is on files never seen.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": []}
    total = 0
    for number, file in enumerate(sorted(folder.glob("*.py"))):
        codes = np.frombuffer(file.read_bytes(), np.uint8).astype(np.int32)
        codes = np.where(codes < VOCABULARY, codes, 0)
        parts["validation" if number % 10 == 9 else "train"].append(codes)
        total += codes.size
        if total > megabytes * 1e6:
            break
    return np.concatenate(parts["train"]), np.concatenate(parts["validation"])


def batches(text: np.ndarray, batch: int, context: int, count: int, seed: int) -> np.ndarray:
    """Random windows (count, batch, context + 1): inputs and, one further on, targets."""
    starts = np.random.default_rng(seed).integers(0, text.size - context - 1, (count, batch, 1))
    return text[starts + np.arange(context + 1)]
