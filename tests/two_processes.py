"""One of two processes, each with its own half of the data: prints the losses."""

import json
import sys

import jax


def main(port, number):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, number)
    import meshes

    assert (jax.process_count(), jax.device_count(), jax.local_device_count()) == (2, 2, 1)
    setup = meshes.Setup("fsdp", sizes={"data": 2})
    own = [part.reshape(2, -1, *part.shape[1:])[number] for part in setup.batch]
    batch = [jax.make_array_from_process_local_data(setup.of_batch, part) for part in own]
    *_, losses = meshes.run(setup.step, *setup.start(), batch, steps=8)
    if number == 0:
        print(json.dumps(losses))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
