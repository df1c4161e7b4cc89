"""Bytes of the optimizer's state beside AdamW's, for GPTs that need not fit this machine.

    python benchmarks/state.py

From shapes alone. "All" has every kernel and embedding as a Kronecker layer; "blocks" leaves the
embedding and the head to AdamW.
"""

import argparse
from typing import Any

import _pod_model as model
import jax
import optax
from _bytes import tree_bytes

import singd_optax

STRUCTURES = ("diagonal", "block_diagonal:32", "block_diagonal:256", "auto", "dense")


def state_bytes(tx: Any, params: Any) -> int:
    """Of the state that ``init`` would make."""
    return tree_bytes(jax.eval_shape(tx.init, params))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs="+", default=["124M", "1.3B"], choices=list(model.SIZES))
    parser.add_argument("--structures", nargs="+", default=STRUCTURES)
    options = parser.parse_args()
    print("| model | structures | factors | all | all, no cached products | blocks |")
    print("|---|---|---|---|---|---|")
    for name in options.size:
        size = model.SIZES[name]
        params, tokens = model.abstract(size, 4)
        adamw = state_bytes(optax.adamw(1e-3), params)
        for structures in options.structures:
            for dtype in ("float32", "bfloat16"):
                layers = singd_optax.find_layers(
                    model.make_loss(size),
                    params,
                    tokens,
                    structures=structures,
                    loss_average="batch+sequence",
                    factor_dtype=dtype,
                )
                ratios = [
                    state_bytes(singd_optax.singd(1e-3, own, cache_products=cached), params) / adamw
                    for own, cached in (
                        (layers, True),
                        (layers, False),
                        (layers.without("embed|head"), True),
                    )
                ]
                cells = " | ".join(f"{ratio:.3f}" for ratio in ratios)
                print(f"| {name} | {structures} | {dtype} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
