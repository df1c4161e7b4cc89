"""How ``Layers`` prints."""

import math
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from singd_optax.layers._matrices import MatrixSpec
from singd_optax.layers._rendered import Part, Table
from singd_optax.layers._spec import LayerSpec
from singd_optax.structures import Structure


def render_table(
    specs: Sequence[LayerSpec | MatrixSpec], others: Iterable[tuple[str, tuple[int, ...], str]]
) -> Table:
    """All parameters of a model: Kronecker layers with their factors, the rest with the reason."""
    header = ["layer", "kind", "kernel", "K", "C", "sharing", "K, C bytes"]
    rows = []
    total = 0
    for spec in specs:
        sizes = [
            factor_bytes(structure, dim, dtype) * math.prod(spec.stack_shape)
            for structure, dim, dtype in zip(
                spec.structures, spec.dims, spec.factor_dtype, strict=True
            )
        ]
        total += sum(sizes)
        stack = f" x{'x'.join(map(str, spec.stack_shape))}" if spec.stack_shape else ""
        rows.append(
            [
                spec.path or "(root)",
                spec.described + stack + ("" if len(spec.shapes) == 1 else " + bias"),
                str(next(iter(spec.shapes.values()))),
                *(
                    f"{dim} {structure!r} {dtype}"
                    for structure, dim, dtype in zip(
                        spec.structures, spec.dims, spec.factor_dtype, strict=True
                    )
                ),
                spec.sharing,
                ", ".join(map(format_bytes, sizes)),
            ]
        )
    # A parameter may be several matrices.
    moments = sum(
        {
            path: 2 * math.prod(shape) * jnp.dtype(spec.dtype).itemsize
            for spec in specs
            for path, shape in spec.shapes.items()
        }.values()
    )
    others = tuple(others)
    counts = {path: math.prod(shape) for spec in specs for path, shape in spec.shapes.items()}
    inside = sum(counts.values())
    outside = sum(math.prod(shape) for _, shape, _ in others)
    caption = (
        f"{len(rows)} Kronecker layer{'' if len(rows) == 1 else 's'} with "
        f"{inside / max(inside + outside, 1):.1%} of the parameters, "
        f"{format_bytes(total)} of factors "
        f"(AdamW's moments of the same parameters: {format_bytes(moments)})"
    )
    parts = [Part(caption, [header, *rows])]
    remaining = [[path, str(shape), reason] for path, shape, reason in others]
    if remaining:
        caption = f"{len(remaining)} other parameters, updated by the fallback"
        parts.append(Part(caption, [["parameter", "shape", "why"], *remaining]))
    return Table.of(parts)


def factor_bytes(structure: Structure, dim: int, dtype: str) -> int:
    """Bytes of one factor, from shapes alone."""
    shapes = jax.eval_shape(lambda: structure.eye(dim, jnp.float32))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes)) * jnp.dtype(dtype).itemsize


def format_bytes(count: int) -> str:
    """Bytes for people.

    >>> format_bytes(40), format_bytes(4_200_000)
    ('40 B', '4.2 MB')
    """
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
