"""What a step costs on TPU pods, from programs compiled for chips that are not there.

    pip install libtpu
    python benchmarks/pod.py                            # one small program, about five minutes
    python benchmarks/pod.py --size 1.3B --layout fsdp tensor --topology v5e:4x4 v5e:8x8
    python benchmarks/pod.py --size 1.3B --gradients soap --update-alone      # without a model

For each model and layout: AdamW's step, and SINGD's without and with a refresh, compiled apart,
since only one side of a branch runs; and with --gradients the like of optimizers that need
gradients only. Products, memory traffic and collectives are read from the
compiled program with loops multiplied out: the compiler's own cost analysis counts the body of a
loop once. The time is the largest of three: products by the peak of the matrix units, traffic by
that of the memory, collectives by that of the links.
"""

import argparse
import functools
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")

import _hlo
import _pod_model as model
import jax
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

import singd_optax

#: Published peaks of a chip: bfloat16 FLOP/s, bytes/s of HBM, bytes/s of all its links.
PEAKS = {"v5e": (197e12, 819e9, 200e9), "v5p": (459e12, 2765e9, 600e9)}


def make_mesh(topology, size, layout):
    devices = np.array(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    chips = devices.size
    if layout == "tensor":
        shape, names = (chips // 4, 4), ("data", "model")
    else:
        stack = max(2**k for k in range(12) if size.layers % 2**k == 0 and chips % 2**k == 0)
        shape, names = (stack, chips // stack), ("data", "rows")
    return Mesh(devices.reshape(shape), names, axis_types=(AxisType.Auto,) * 2)


def compile_with_text(compile_it):
    """The compiled program, and its text, which the compiler writes to a folder.

    The text that jax gives fails for v5p ("async-update instruction should have 1 operands").
    """
    with tempfile.TemporaryDirectory() as folder:
        compiled = compile_it({"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        (file,) = Path(folder).glob("*.after_codegen.txt")
        return compiled, file.read_text()


def measure(compiled, text, peaks, seconds):
    memory, program = compiled.memory_analysis(), _hlo.read(text)
    collectives = {
        kind: {"count": count, "bytes": total, "largest": largest}
        for kind, (count, total, largest) in program.collectives.items()
    }
    sent = sum(entry["bytes"] for entry in collectives.values())
    flops, hbm, links = peaks
    times = (program.passes / flops, program.memory / hbm, sent / links)
    return {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "flops": program.flops,
        "passes": program.passes,
        "memory": program.memory,
        "collectives": collectives,
        "sent": sent,
        "times": times,
        "roofline": max(times),
        "cost_analysis_flops": compiled.cost_analysis()["flops"],
        "compile_seconds": seconds,
    }


def programs(size, layout, topology, options):
    """Names, and what compiles these programs with the options that it gets."""
    mesh = make_mesh(topology, size, layout)
    params, tokens = model.abstract(size, options.sequences * mesh.size)
    shardings = model.parameter_shardings(params, mesh, layout)
    of_tokens = model.batch_sharding(mesh, layout)
    loss_fn = model.make_loss(size, of_tokens)
    layers = singd_optax.find_layers(
        loss_fn,
        params,
        tokens,
        structures=options.structures,
        factor_dtype=options.factor_dtype,
        loss_average="batch+sequence",
        curvature_fraction=1.0,
    ).without("embed|head")

    def one(tx, layers, step):
        state = jax.eval_shape(tx.init, params)
        of_state = singd_optax.sharding.state_shardings(tx.init, params, shardings, layers)
        return functools.partial(
            model.compiled, step, params, state, tokens, shardings, of_state, of_tokens
        )

    if options.update_alone:
        yield from updates(size, layout, mesh, options)
        return
    tx = optax.adamw(1e-3)
    yield "adamw", one(tx, layers, model.plain_step(loss_fn, tx))
    for name in options.gradients:
        matrices = model.matrices(params, model.RULES[name].structures)
        placed = singd_optax.sharding.spread(matrices, shardings)
        own = getattr(singd_optax, name)(1e-3, placed)
        for ending, refresh in (("", False), (" refresh", True)):
            step = model.plain_step(loss_fn, own, refresh=refresh)
            yield f"{name}{ending}", one(own, placed, step)
    for strategy in [] if options.gradients else options.strategy:
        placed = layers
        if strategy != "repeat":
            placed = singd_optax.sharding.spread(layers, shardings, strategy=strategy)
        own = singd_optax.singd(1e-3, placed, cache_products=options.cache_products)
        for name, refresh in (("", 0), (" refresh", 1)):
            step = model.singd_step(loss_fn, own, placed, refresh)
            yield f"singd {strategy}{name}", one(own, placed, step)


def updates(size, layout, mesh, options):
    """The programs of the updates of the blocks, without a model: they compile sooner."""
    params = {"blocks": model.abstract(size, 1)[0]["blocks"]}
    shardings = model.parameter_shardings(params, mesh, layout)
    for name in options.gradients:
        matrices = model.matrices(params, model.RULES[name].structures)
        placed = singd_optax.sharding.spread(matrices, shardings)
        own = getattr(singd_optax, name)(1e-3, placed)
        of_state = singd_optax.sharding.state_shardings(own.init, params, shardings, placed)
        state = jax.eval_shape(own.init, params)
        for ending, refresh in (("", False), (" refresh", True)):
            update = functools.partial(own.update, refresh=refresh)
            trees, places = (params, state, params), (shardings, of_state, shardings)
            yield (
                f"{name} update{ending}",
                functools.partial(model.compiled_with, update, trees, places, places[:2]),
            )


def row(label, name, entry, base):
    sent = ", ".join(
        f"{kind} {each['count']} ({each['bytes'] / 1e6:.0f})"
        for kind, each in sorted(entry["collectives"].items())
    )
    times = " ".join(f"{1e3 * each:.1f}" for each in entry["times"])
    return (
        f"| {label} | {name} | {entry['arguments'] / 1e9:.3f} | {entry['temporaries'] / 1e9:.2f} "
        f"| {entry['flops'] / 1e9:.0f} | {entry['flops'] / base['flops']:.3f} "
        f"| {entry['memory'] / 1e9:.1f} | {sent} | {times} "
        f"| {entry['roofline'] / base['roofline']:.3f} |"
    )


HEAD = (
    "| model | step | arguments, GB | temporaries, GB | GFLOP | beside AdamW | HBM traffic, GB "
    "| collectives, count (MB) | ms: products, HBM, links | roofline beside AdamW |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs="+", default=["tiny"], choices=list(model.SIZES))
    parser.add_argument("--layout", nargs="+", default=["fsdp"], choices=["fsdp", "tensor", "data"])
    parser.add_argument("--topology", nargs="+", default=["v5e:4x4"])
    parser.add_argument("--strategy", nargs="+", default=["rows"])
    parser.add_argument("--gradients", nargs="+", default=[], choices=list(model.RULES))
    parser.add_argument("--update-alone", action="store_true", help="with --gradients: no model")
    parser.add_argument("--structures", default="auto")
    parser.add_argument("--factor-dtype", default=None)
    parser.add_argument("--cache-products", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--sequences", type=int, default=4, help="a chip")
    parser.add_argument("--every", type=int, default=10, help="steps between refreshes")
    default = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=default)
    parser.add_argument("--keep-programs", action="store_true")
    options = parser.parse_args()
    try:
        topologies.get_topology_desc(platform="tpu", topology_name=options.topology[0])
    except Exception as error:  # of a type that depends on what is missing
        print(
            "skipped: no TPU compiler starts here (pip install libtpu; where another process has "
            f"it, set ALLOW_MULTIPLE_LIBTPU_LOAD=1). {str(error)[:200]}"
        )
        return
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "pod.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for topology in options.topology:
        for name in options.size:
            for layout in options.layout:
                size = model.SIZES[name]
                label = f"{name} {layout} {topology}"
                label += " gradients only" if options.gradients else f" {options.structures}"
                label += " update alone" if options.update_alone else ""
                label += f" {options.factor_dtype}" if options.factor_dtype else ""
                label += "" if options.cache_products else " without cached products"
                print(f"\n{HEAD}")
                base = None
                for step, compile_it in programs(size, layout, topology, options):
                    start = time.time()
                    compiled, text = compile_with_text(compile_it)
                    peaks = PEAKS[topology.split(":")[0]]
                    entry = measure(compiled, text, peaks, time.time() - start)
                    base = base or entry
                    results.setdefault(label, {})[step] = entry
                    file.write_text(json.dumps(results, indent=1))
                    if options.keep_programs:
                        path = options.output / f"{label} {step}.hlo".replace(" ", "_")
                        path.with_name(path.name.replace(":", "_")).write_text(text)
                    print(row(label, step, entry, base), flush=True)
                summary(results[label], options)


def summary(entries, options):
    if "adamw" not in entries:  # updates alone
        return
    base = entries["adamw"]
    for name in options.gradients or [f"singd {strategy}" for strategy in options.strategy]:
        plain, refresh = (entries.get(f"{name}{end}") for end in ("", " refresh"))
        if not plain or not refresh:
            continue
        share = 1 / options.every
        for what in ("flops", "passes", "roofline"):
            mixed = plain[what] * (1 - share) + refresh[what] * share
            print(
                f"{name}: {what} {plain[what] / base[what]:.3f} without refresh, "
                f"{refresh[what] / base[what]:.3f} with, {mixed / base[what]:.3f} at "
                f"T={options.every}"
            )


if __name__ == "__main__":
    main()
