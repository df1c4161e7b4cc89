"""What each device of a mesh holds and does, as devices are added: eight virtual devices of a CPU.

    python benchmarks/mesh.py                   # memory, products, collectives at 1 to 8 devices
    python benchmarks/mesh.py --trajectories    # every layout, axis type and strategy, 20 steps

A GPT of fixed size and batch with dense factors, parameters fully sharded. The step without and
with a refresh are compiled apart. "repeat" is what a mesh does without ``sharding.spread``.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NPROC", "32")  # threads enough for the collectives of eight devices

import _hlo
import _pod_model as model
import jax
import optax
from jax.sharding import AxisType

import singd_optax

STRATEGIES = ("adamw", "repeat", "rows", "layers", "follow")


def measure(blocks, devices, strategy):
    """Name -> what one device holds and does."""
    size = model.Size("mesh", blocks, 256, 4, 128, 512)
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    params, tokens = model.abstract(size, 32)
    shardings = model.parameter_shardings(params, mesh, "fsdp")
    of_tokens = model.batch_sharding(mesh, "fsdp")
    loss_fn = model.make_loss(size, of_tokens)
    layers = singd_optax.find_layers(
        loss_fn, params, tokens, structures="dense", loss_average="batch+sequence"
    ).without("embed|head")
    if strategy not in ("adamw", "repeat"):
        layers = singd_optax.sharding.spread(layers, shardings, strategy=strategy)
    tx = optax.adamw(1e-3) if strategy == "adamw" else singd_optax.singd(1e-3, layers)
    state = jax.eval_shape(tx.init, params)
    of_state = singd_optax.sharding.state_shardings(tx.init, params, shardings, layers)
    result = {}
    for refresh in (0, 1):
        if strategy == "adamw":
            step = model.plain_step(loss_fn, tx)
        else:
            step = model.singd_step(loss_fn, tx, layers, refresh)
        program = model.compiled(step, params, state, tokens, shardings, of_state, of_tokens)
        memory, read = program.memory_analysis(), _hlo.read(program.as_text())
        result["refresh" if refresh else "plain"] = {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "flops": read.flops,
            "collectives": read.collectives,
        }
        if strategy == "adamw":
            break
    return result


def scaling(options):
    rows = {}
    print(
        "| blocks | optimizer | devices | step | arguments, MB | temporaries, MB | MFLOP "
        "| collectives: count (MB, largest) |\n|---|---|---|---|---|---|---|---|"
    )
    for blocks in options.blocks:
        for strategy in options.strategy:
            for devices in options.devices:
                for name, entry in measure(blocks, devices, strategy).items():
                    rows[f"{blocks} {strategy} {devices} {name}"] = entry
                    sent = ", ".join(
                        f"{kind} {count} ({total / 1e6:.1f}, {largest / 1e6:.2f})"
                        for kind, (count, total, largest) in sorted(entry["collectives"].items())
                    )
                    print(
                        f"| {blocks} | {strategy} | {devices} | {name} "
                        f"| {entry['arguments'] / 1e6:.1f} | {entry['temporaries'] / 1e6:.1f} "
                        f"| {entry['flops'] / 1e6:.0f} | {sent} |",
                        flush=True,
                    )
    return rows


def trajectories():
    """The largest differences from the single device's run."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import meshes

    want, rows = meshes.alone(), {}
    print("| layout | axes | strategy | loss | parameters | state |\n|---|---|---|---|---|---|")
    for kind in ("Auto", "Explicit"):
        for strategy in (None, "rows", "layers", "follow"):
            for layout in meshes.LAYOUTS:
                setup = meshes.Setup(layout, kind, strategy)
                with setup.context():
                    params, state, losses = setup.run(*setup.start())
                loss = max(abs(a - b) for a, b in zip(losses, want[2], strict=True))
                found = (
                    loss,
                    meshes.difference(params, want[0]),
                    meshes.difference(state, want[1]),
                )
                rows[f"{layout} {kind} {strategy}"] = found
                each = " | ".join(f"{value:.1e}" for value in found)
                print(f"| {layout} | {kind} | {strategy or 'repeat'} | {each} |", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trajectories", action="store_true")
    parser.add_argument("--strategy", nargs="+", default=STRATEGIES[:3], choices=STRATEGIES)
    parser.add_argument("--blocks", nargs="+", type=int, default=[8], help="3: nothing divides it")
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    rows = trajectories() if options.trajectories else scaling(options)
    options.output.mkdir(parents=True, exist_ok=True)
    name = "mesh_trajectories.json" if options.trajectories else "mesh.json"
    file = options.output / name
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | rows, indent=1))


if __name__ == "__main__":
    main()
