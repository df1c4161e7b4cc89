"""What each structure costs: time and bytes over the size of a factor, beside dense.

    python benchmarks/structures.py            # about a minute on two CPU cores
    python benchmarks/structures.py --small    # a quarter of one

Refresh is what a step on K costs: the gram of m rows, and one product of two matrices.
Precondition is K (Kᵀ G) for a gradient G with n columns. At fixed m and n, the paper's costs (table
in arXiv 2312.05705) go with dim to the power beside the fitted slope.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from tqdm import tqdm

from singd_optax.structures import StructuredMatrix, parse_structure

mpl.use("Agg")
import matplotlib.pyplot as plt


class Kind(NamedTuple):
    """A structure, and the powers of dim in its costs at fixed numbers of rows and columns."""

    name: str
    refresh: str
    precondition: str
    stored: str
    max_dim: int | None = None


LOG = "1 (and log d)"
KINDS = (
    Kind("dense", "2 to 3", "2", "2", 4096),
    Kind("block_diagonal:32", "1", "1", "1"),
    Kind("hierarchical:16,16", "1", "1", "1"),
    Kind("lower_triangular:32", "1", "1", "1"),
    Kind("upper_triangular:32,top_left", "1", "1", "1"),
    Kind("lower_toeplitz", LOG, LOG, "1"),
    Kind("upper_toeplitz", LOG, LOG, "1"),
    Kind("diagonal", "1", "1", "1"),
)
ROWS, COLUMNS = 256, 64


class Timing(NamedTuple):
    """One structure at one dim.

    Shortest times in seconds (other programs of the machine only add to them), operations counted
    by the compiler, the largest intermediate memory in bytes, and bytes stored.
    """

    name: str
    dim: int
    refresh: float
    precondition: float
    refresh_flops: float
    precondition_flops: float
    refresh_memory: float
    precondition_memory: float
    nbytes: int


def refresh(K: StructuredMatrix, rows: jax.Array) -> StructuredMatrix:
    return K @ K.gram(rows)


def precondition(K: StructuredMatrix, gradient: jax.Array) -> jax.Array:
    return K @ K.transpose_matmul(gradient)


class Program(NamedTuple):
    call: Callable[[], Any]
    flops: float
    memory: float


def compiled_programs(name: str, dim: int) -> tuple[list[Program], int]:
    structure = parse_structure(name)
    random = np.random.default_rng(dim)
    rows = jnp.asarray(random.normal(size=(ROWS, dim)), jnp.float32)
    gradient = jnp.asarray(random.normal(size=(dim, COLUMNS)), jnp.float32)
    K = jax.jit(structure.project_gram)(rows)
    programs = []
    for function, argument in ((refresh, rows), (precondition, gradient)):
        compiled = jax.jit(function).lower(K, argument).compile()
        call = lambda compiled=compiled, argument=argument: compiled(K, argument)
        flops = (compiled.cost_analysis() or {}).get("flops", float("nan"))
        memory = getattr(compiled.memory_analysis(), "temp_size_in_bytes", float("nan"))
        programs.append(Program(call, flops, memory))
    return programs, K.nbytes


def measure(dims: Sequence[int], repeats: int, max_dense_dim: int) -> list[Timing]:
    """Shortest runs, in turns, so that a change of the machine's speed hits all structures."""
    results = []
    with tqdm(total=len(dims) * repeats) as bar:
        for dim in dims:
            kinds = [k for k in KINDS if k.max_dim is None or dim <= max_dense_dim]
            bar.set_description(f"dim {dim}, compiling")
            programs = {kind.name: compiled_programs(kind.name, dim) for kind in kinds}
            for pair, _ in programs.values():
                for program in pair:
                    jax.block_until_ready(program.call())
            seconds: dict[str, tuple[list[float], list[float]]] = {n: ([], []) for n in programs}
            bar.set_description(f"dim {dim}")
            for _ in range(repeats):
                for name, (pair, _) in programs.items():
                    for program, record in zip(pair, seconds[name], strict=True):
                        begin = time.perf_counter()
                        jax.block_until_ready(program.call())
                        record.append(time.perf_counter() - begin)
                bar.update()
            for name, (pair, nbytes) in programs.items():
                shortest = map(min, seconds[name])
                flops = (program.flops for program in pair)
                memory = (program.memory for program in pair)
                results.append(Timing(name, dim, *shortest, *flops, *memory, nbytes))
    return results


def slope(timings: Sequence[Timing], field: str, smallest_dim: int) -> float:
    """The slope of a straight line through (log dim, log value), over the larger dims."""
    points = [(t.dim, getattr(t, field)) for t in timings if t.dim >= smallest_dim]
    if len(points) < 2 or not all(value > 0 for _, value in points):
        return float("nan")
    return float(np.polyfit(*np.log(np.array(points, float).T), 1)[0])


def report(results: Sequence[Timing], smallest_dim: int) -> str:
    lines = [
        f"m = {ROWS} rows, gradients of {COLUMNS} columns, float32; shortest of the runs; "
        f"{platform.machine()}, {jax.devices()[0].device_kind}",
        "",
        f"{'':30}{'':>6}{'refresh':>33}{'precondition':>33}",
        f"{'structure':30}{'dim':>6}{'ms':>11}{'Mflop':>11}{'work MB':>11}"
        f"{'ms':>11}{'Mflop':>11}{'work MB':>11}{'stored kB':>11}",
    ]
    for kind in KINDS:
        for t in results:
            if t.name == kind.name:
                lines.append(
                    f"{t.name:30}{t.dim:6}{1e3 * t.refresh:11.3f}{t.refresh_flops / 1e6:11.1f}"
                    f"{t.refresh_memory / 1e6:11.1f}{1e3 * t.precondition:11.3f}"
                    f"{t.precondition_flops / 1e6:11.1f}{t.precondition_memory / 1e6:11.1f}"
                    f"{t.nbytes / 1e3:11.1f}"
                )
    lines += [
        "",
        "Fitted powers of dim: of the time, of the operations that the compiler counts, and in",
        "brackets the power of the stated cost. Operations have no noise and no caches: a time",
        "that grows faster is one whose working memory (above) outgrows the processor's cache.",
        f"Dims from {smallest_dim}, for dense from a quarter of its largest.",
        f"{'structure':30}{'refresh: time, flop':>32}{'precondition: time, flop':>32}{'bytes':>14}",
    ]
    for kind in KINDS:
        own = [t for t in results if t.name == kind.name]
        start = min(smallest_dim, max(t.dim for t in own) // 4)
        powers = {field: f"{slope(own, field, start):.2f}" for field in Timing._fields[2:]}
        refresh_cell, precondition_cell = (
            f"{powers[name]}, {powers[f'{name}_flops']} [{stated}]"
            for name, stated in (("refresh", kind.refresh), ("precondition", kind.precondition))
        )
        stored = f"{powers['nbytes']} [{kind.stored}]"
        lines.append(f"{kind.name:30}{refresh_cell:>32}{precondition_cell:>32}{stored:>14}")
    return "\n".join(lines)


def plot(results: Sequence[Timing], file: Path) -> None:
    fields = (
        ("refresh", 1e3, "refresh, ms"),
        ("precondition", 1e3, "precondition, ms"),
        ("nbytes", 1e-3, "stored, kB"),
    )
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    for axis, (field, scale, label) in zip(axes, fields, strict=True):
        for kind in KINDS:
            own = [t for t in results if t.name == kind.name]
            values = [scale * getattr(t, field) for t in own]
            axis.loglog([t.dim for t in own], values, "o-", label=kind.name)
        axis.set(xlabel="dim", ylabel=label)
        dims = sorted({t.dim for t in results})
        axis.set_xticks(dims, map(str, dims))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(file, dpi=120)


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="small dims, few repeats")
    parser.add_argument("--repeats", type=int, help="runs of each (default 11, small 5)")
    parser.add_argument("--max-dense-dim", type=int, default=KINDS[0].max_dim)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results", help="a folder"
    )
    arguments = parser.parse_args(given)
    dims = [128, 256] if arguments.small else [256, 512, 1024, 2048, 4096, 8192]
    repeats = arguments.repeats or (5 if arguments.small else 11)
    smallest_dim = dims[len(dims) // 2]
    results = measure(dims, repeats, arguments.max_dense_dim)
    text = report(results, dims[0] if arguments.small else smallest_dim)
    print(text)
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    stem = "structures_small" if arguments.small else "structures"
    (folder / f"{stem}.txt").write_text(text + "\n")
    (folder / f"{stem}.json").write_text(json.dumps([t._asdict() for t in results], indent=1))
    plot(results, folder / f"{stem}.png")
    print(f"\nSaved {folder / stem}.txt, .json and .png")


if __name__ == "__main__":
    main()
